"""Receipts: what was removed where, and what stays until when, without saying of whom."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

from uuid_utils.compat import uuid7

from ...storage import erasures, serial
from ...storage.database import Database, Transaction
from ..views import moment
from .subjects import Subject


@dataclass(slots=True)
class Receipt:
    """What an erasure did. `removed` counts by place; `stays` says what is left where: {place, until, why, ...}.

    `status` is running until all is done: then erase has to be run again. `resumed`: how often that was. `subject` is a
    hash, with `salt`, of what was erased; `digest` is one of all the rest. Of a dry run there is no id.
    """

    id: str
    kind: str
    tenant: str
    by: str
    status: str
    started_at: str | None
    finished_at: str | None = None
    resumed: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    stays: list[dict[str, Any]] = field(default_factory=list)
    subject: str = ""
    salt: str = ""
    digest: str = ""


class Progress:
    """A receipt that is being written: what was counted goes in with what says how far it is."""

    def __init__(self, database: Database, receipt: Receipt, pending: dict[str, dict[str, int]]) -> None:
        self._database = database
        self.receipt = receipt
        #: Sessions that are being erased, or were, by id, with what was counted: all in them, till the end.
        self.sessions = pending

    @classmethod
    def begin(cls, database: Database, subject: Subject, by: str) -> Progress:
        """A new receipt, or that of an erasure of the same subject that was broken off."""

        def work(tx: Transaction) -> Progress:
            for row in erasures.running(tx, subject.tenant):
                if subject.hashed(row.salt) == row.subject:
                    body = serial.decode(row.body)
                    receipt = Receipt(**body["receipt"])
                    receipt.resumed += 1
                    return cls(database, receipt, body["sessions"])
            salt = secrets.token_hex(8)
            hashed = subject.hashed(salt)
            started = moment(tx.now())
            receipt = Receipt(str(uuid7()), subject.kind, subject.tenant, by, "running", started)
            receipt.subject, receipt.salt = hashed, salt
            made = cls(database, receipt, {})
            erasures.add(tx, receipt.id, subject.tenant, hashed, salt, made._body())
            return made

        return database.write(work)

    def _body(self) -> str:
        return serial.encode({"receipt": shown(self.receipt), "sessions": self.sessions}).decode()

    def note(self, session_id: str, counts: dict[str, int]) -> None:
        """Note a session that is about to be erased, and what is in it; what was counted before is more."""
        known = self.sessions.get(session_id, {})
        self.sessions[session_id] = {name: max(counts.get(name, 0), known.get(name, 0)) for name in {**counts, **known}}
        self.save()

    def add(self, place: str, count: int) -> None:
        """Count what was removed and belongs to no session; what was removed before a break is not forgotten."""
        if count:
            self.receipt.removed[place] = self.receipt.removed.get(place, 0) + count

    def save(self) -> None:
        """Write how far it is."""
        self._database.write(lambda tx: erasures.write(tx, self.receipt.id, "running", self._body()))

    def sum_up(self) -> None:
        """Write what was removed in all, and forget the ids of sessions: all of them are gone from everywhere."""
        for counts in self.sessions.values():
            for place, count in counts.items():
                self.add(place, count)
        self.add("sessions", len(self.sessions))
        self.sessions = {}
        self.save()

    def finish(self, stays: list[dict[str, Any]]) -> Receipt:
        """Write the receipt for good."""
        receipt = self.receipt
        receipt.removed = dict(sorted(receipt.removed.items()))
        receipt.stays = stays

        def work(tx: Transaction) -> None:
            receipt.status, receipt.finished_at = "done", moment(tx.now())
            receipt.digest = digest_of(receipt)
            erasures.write(tx, receipt.id, "done", self._body())

        self._database.write(work)
        return receipt


def shown(receipt: Receipt) -> dict[str, Any]:
    """A receipt as JSON-able data."""
    return {name: getattr(receipt, name) for name in Receipt.__slots__}


def digest_of(receipt: Receipt) -> str:
    """A hash of all that a receipt says but the hash itself."""
    told = {name: value for name, value in shown(receipt).items() if name != "digest"}
    return hashlib.blake2b(serial.canonical(told, "receipt"), digest_size=32).hexdigest()


def listing(database: Database, tenant: str) -> list[Receipt]:
    """All receipts of a tenant, the oldest first."""
    rows = database.read(lambda tx: erasures.listing(tx, tenant))
    return [Receipt(**serial.decode(row.body)["receipt"]) for row in rows]
