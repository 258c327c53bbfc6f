"""Results of steps: recorded once, never changed. Small ones are JSON in the row, large ones a blob that the row
names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, literal, select, text

from ..errors import TooLarge
from . import serial
from .blobs import BlobStore
from .cache.tables import BLOB_TAG, cached_tags
from .database import Database, Query, Transaction
from .histories.tables import cold_history, history
from .states.tables import state_values
from .tables import blobs, checkpoint_blobs, partial_results, results, steps

_r = results.c
_INSERT = Query(
    insert(results).values(
        {
            c: bindparam(c)
            for c in (
                "session_id",
                "number",
                "epoch",
                "body",
                "blob",
                "size",
                "confidence",
                "cost",
                "maker",
                "added",
            )
        }
    )
)
# Held until the transaction ends, these locks let a blob's file be deleted only while no result that names it is on its
# way.
_KEEP_BLOB = Query(
    select(blobs.c.hash).where(blobs.c.hash == bindparam("wanted")).with_for_update(read=True, key_share=True)
)
_LOCK_BLOB = Query(select(blobs.c.hash).where(blobs.c.hash == bindparam("wanted")).with_for_update())
_ADD_BLOB = Query(
    text("INSERT INTO blobs (hash, size, created_at) VALUES (:wanted, :bytes, :moment) ON CONFLICT (hash) DO NOTHING")
)
_GET = Query(
    select(_r.body, _r.blob).where(
        _r.session_id == bindparam("session"), _r.number == bindparam("step"), _r.epoch == bindparam("at")
    )
)
_PAST = Query(
    select(_r.body, _r.blob, _r.size, _r.confidence, _r.cost, _r.maker, _r.added).where(
        _r.session_id == bindparam("session"), _r.number == bindparam("step"), _r.epoch == bindparam("at")
    )
)
_BODY = "results.body"
_ADDED = "results.added"
_COUNTS = and_(steps.c.session_id == _r.session_id, steps.c.number == _r.number, steps.c.result_epoch == _r.epoch)


@dataclass(frozen=True, slots=True)
class Stored:
    """A result ready to be written: its JSON, and the hash of the blob that already holds it if it is too large for
    a row.
    """

    data: bytes
    blob: str | None
    size: int


def store(data: bytes, blobs_: BlobStore, inline: int) -> Stored:
    """Put JSON bytes where they belong: up to `inline` bytes in the row, else a blob, written before the
    transaction.
    """
    if len(data) <= inline:
        return Stored(data, None, len(data))
    return Stored(data, blobs_.put(data), len(data))


def hold_blob(tx: Transaction, blob: str, size: int) -> None:
    """Let nobody delete a blob, of `size` bytes if it is not known yet, until the transaction ends."""
    while tx.row(_KEEP_BLOB, wanted=blob) is None:
        tx.run(_ADD_BLOB, wanted=blob, bytes=size, moment=tx.now())


def refer_to(tx: Transaction, blobs_: BlobStore, blob: str, data: bytes) -> None:
    """Hold on to a blob until the transaction ends; write it again if it was deleted since it was put."""
    hold_blob(tx, blob, len(data))
    if not blobs_.exists(blob):
        blobs_.put(data)


def record(
    tx: Transaction,
    blobs_: BlobStore,
    session_id: str,
    number: int,
    epoch: int,
    stored: Stored,
    confidence: float | None,
    cost: float | None,
    maker: str | None = None,
    added: str | None = None,
) -> None:
    """Insert the one result of a claim; the primary key refuses a second.

    `maker` tells what made it (see `orchestration.agents.maker_of`), `added` are the steps that came with it (JSON).
    """
    if stored.blob is not None:
        refer_to(tx, blobs_, stored.blob, stored.data)
    values = {"session_id": session_id, "number": number, "epoch": epoch, "blob": stored.blob, "size": stored.size}
    body = tx.seal(stored.data.decode(), _BODY, session_id, number, epoch) if stored.blob is None else None
    values |= {"body": body, "confidence": confidence, "cost": cost, "maker": maker}
    tx.later(_INSERT, [{**values, "added": tx.seal(added, _ADDED, session_id, number, epoch)}])


@dataclass(frozen=True, slots=True)
class Past:
    """A recorded result whole: JSON bytes, or the blob that holds them."""

    body: bytes | None
    blob: str | None
    size: int
    confidence: float | None
    cost: float | None
    maker: str | None
    added: str | None

    def data(self, blobs_: BlobStore) -> bytes:
        """Its JSON. Raises StorageError for a blob that cannot be read."""
        return blobs_.get(self.blob) if self.blob is not None else self.body or b"null"


def past(tx: Transaction, session_id: str, number: int, epoch: int) -> Past | None:
    """The result of a claim; None if there is none, or its blob is gone. The blob stays until the transaction ends."""
    row = tx.row(_PAST, session=session_id, step=number, at=epoch)
    if row is None or (row[1] is not None and tx.row(_KEEP_BLOB, wanted=row[1]) is None):
        return None
    key = (session_id, number, epoch)
    body = tx.open(row[0], _BODY, *key)
    _, blob, size, confidence, cost, maker, added = row
    data = None if body is None else body.encode()
    return Past(data, blob, size, confidence, cost, maker, tx.open(added, _ADDED, *key))


_MADE = Query(
    select(_r.number, _r.epoch, _r.maker, _r.added).where(_r.session_id == bindparam("session"), _r.maker.is_not(None))
)


def made(tx: Transaction, session_id: str) -> dict[tuple[int, int], tuple[str, str | None]]:
    """What made the results of a session, and the steps that came with them (JSON), by number and epoch."""
    found = tx.rows(_MADE, session=session_id)
    return {(n, epoch): (maker, tx.open(added, _ADDED, session_id, n, epoch)) for n, epoch, maker, added in found}


def load(tx: Transaction, blobs_: BlobStore | None, session_id: str, number: int, epoch: int | None) -> Any:
    """A step's recorded output, or None where it has none. Raises TooLarge for a blob if there are no `blobs_` to
    read it from.
    """
    row = tx.row(_GET, session=session_id, step=number, at=epoch) if epoch is not None else None
    return _value(tx, (session_id, number, epoch), row[0], row[1], blobs_) if row else None


def _value(
    tx: Transaction, key: tuple[object, ...], body: str | None, blob: str | None, blobs_: BlobStore | None
) -> Any:
    if blob is None:
        return serial.decode(tx.open(body or "null", _BODY, *key))
    if blobs_ is None:
        raise TooLarge(f"blob {blob} is not read inside a transaction that writes")
    return serial.decode(blobs_.get(blob))


_OF_GROUP = Query(
    select(_r.number, _r.epoch, _r.body, _r.blob)
    .select_from(results.join(steps, _COUNTS))
    .where(steps.c.session_id == bindparam("session"), steps.c.member_of == bindparam("group"))
)


def load_members(tx: Transaction, blobs_: BlobStore | None, session_id: str, group: int) -> dict[int, Any]:
    """The outputs that count of a group's members, by step number."""
    rows = tx.rows(_OF_GROUP, session=session_id, group=group)
    return {number: _value(tx, (session_id, number, epoch), body, blob, blobs_) for number, epoch, body, blob in rows}


_HAS = Query(
    select(_r.size).where(
        _r.session_id == bindparam("session"), _r.number == bindparam("step"), _r.epoch == bindparam("at")
    )
)
_BLOBS_OF = Query(select(_r.blob).where(_r.session_id == bindparam("session"), _r.blob.is_not(None)))
#: Where blobs are referred to: one that none of these finds can go.
_REFERRED = (
    Query(select(_r.session_id).where(_r.blob == bindparam("wanted")).limit(1)),
    Query(select(state_values.c.key).where(state_values.c.blob == bindparam("wanted")).limit(1)),
    Query(select(cached_tags.c.key).where(cached_tags.c.tag == literal(BLOB_TAG).concat(bindparam("wanted"))).limit(1)),
    Query(select(checkpoint_blobs.c.number).where(checkpoint_blobs.c.blob == bindparam("wanted")).limit(1)),
    Query(select(history.c.number).where(history.c.blob == bindparam("wanted")).limit(1)),
    Query(select(cold_history.c.first).where(cold_history.c.blob == bindparam("wanted")).limit(1)),
)
_NOTED = Query(select(blobs.c.hash).where(blobs.c.hash == bindparam("wanted")))
_FORGET_BLOB = Query(delete(blobs).where(blobs.c.hash == bindparam("wanted")))


def exists(tx: Transaction, session_id: str, number: int, epoch: int) -> bool:
    """Whether that result is in the database."""
    return tx.row(_HAS, session=session_id, step=number, at=epoch) is not None


def blobs_of(tx: Transaction, session_id: str) -> list[str]:
    """Hashes of the blobs that a session's results refer to."""
    return [row[0] for row in tx.rows(_BLOBS_OF, session=session_id)]


def delete_unreferenced(tx: Transaction, blobs_: BlobStore, hashes: Iterable[str]) -> list[str]:
    """Delete those of the blobs that nothing refers to any more, rows and files; gives which.

    The file goes while the row is locked. If the transaction then fails, the row stays without a file: whoever records
    that content next finds the file missing and writes it again.
    """
    gone = []
    for one in sorted(set(hashes)):
        if tx.row(_LOCK_BLOB, wanted=one) is None or is_referred_to(tx, one):
            continue
        tx.run(_FORGET_BLOB, wanted=one)
        blobs_.delete(one)
        gone.append(one)
    return gone


def delete_stray(tx: Transaction, blobs_: BlobStore, hashes: Iterable[str]) -> list[str]:
    """The same for blobs that may have no row: with one of this transaction's, nobody begins to refer to them."""
    ordered = sorted(set(hashes))
    for one in ordered:
        tx.run(_ADD_BLOB, wanted=one, bytes=0, moment=tx.now())
    return delete_unreferenced(tx, blobs_, ordered)


def is_referred_to(tx: Transaction, blob: str) -> bool:
    """Whether anything refers to a blob."""
    return any(tx.row(query, wanted=blob) for query in _REFERRED)


def has_row(tx: Transaction, blob: str) -> bool:
    """Whether a blob is noted."""
    return tx.row(_NOTED, wanted=blob) is not None


def let_go(tx: Transaction, database: Database, blobs_: BlobStore, hashes: Sequence[str]) -> None:
    """Delete blobs that this transaction stops referring to, and that nothing else refers to, once it is committed."""
    if hashes:
        tx.after_commit.append(lambda: _deleted(database, blobs_, hashes))


def _deleted(database: Database, blobs_: BlobStore, hashes: Sequence[str]) -> None:
    database.write(lambda tx: delete_unreferenced(tx, blobs_, hashes))


_ADD_PARTIAL = Query(
    insert(partial_results).values({c: bindparam(c) for c in ("session_id", "seq", "number", "agent", "body")})
)
_PARTIAL = "partial_results.body"
_p = partial_results.c
_PARTIALS = Query(
    select(_p.seq, _p.number, _p.agent, _p.body)
    .where(_p.session_id == bindparam("session"), _p.seq > bindparam("beyond"))
    .order_by(_p.seq)
)


def add_partials(tx: Transaction, session_id: str, rows: list[dict[str, Any]]) -> None:
    """Append partial results: rows with seq (the number of their event), number, agent and body (JSON text)."""
    if tx.seals:
        rows = [{**row, "body": tx.seal(row["body"], _PARTIAL, session_id, row["seq"])} for row in rows]
    tx.many(_ADD_PARTIAL, [{"session_id": session_id, **row} for row in rows])


def partials(tx: Transaction, session_id: str, beyond: int = 0) -> list[tuple[int, int, str, Any]]:
    """(event number, step number, agent, value) of the partial results after event `beyond`, in order."""
    found = tx.rows(_PARTIALS, session=session_id, beyond=beyond)
    return [(seq, n, a, serial.decode(tx.open(b, _PARTIAL, session_id, seq))) for seq, n, a, b in found]
