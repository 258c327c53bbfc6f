"""Bringing what is sealed under the active key, and, where all is to be sealed, what lies plain under seal: in batches,
while work goes on, and again from the start at any time.

Only data keys are wrapped anew; what is inside is opened only to look for fields that a rule sealed. A row that changes
meanwhile is left alone: who changed it sealed it with the active key. What is done once is passed over the next time,
so that an interrupted run is simply run again.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sqlalchemy import Column, LargeBinary, Table, and_, bindparam, or_, select, tuple_, update

from ...errors import CeleriacError, SealBroken
from .. import tables
from ..agent_parts import agent_parts
from ..cache.tables import cached_results
from ..database import Database, Query, Transaction
from ..histories.tables import history
from ..migration_runs import migrated_values, migration_runs
from ..states.tables import state_events, state_values
from ..templates import templates
from ..trees import branches, merge_conflicts
from . import sealing
from .codec import MARK, Codec, sealed_bytes
from .sealing import KeyRing

#: Rows of one transaction.
BATCH: Final = 200
#: A sealed field inside JSON text, as the guard's policy writes it.
_TOKEN: Final = re.compile(r'\{"\$sealed":"((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"\}')
#: A record of a change of keyed state that tells no value.
_SIZES: Final = re.compile(r'\{"bytes":\d+(,"sealed":true)?(,"sha256":"[0-9a-f]{64}")?\}')
#: What is counted in the place of a key where the object does not say one.
DAMAGED: Final = "(damaged)"

#: Texts that are sealed where all is.
TEXTS: Final[tuple[Column[Any], ...]] = (
    state_events.c.old,
    state_events.c.new,
    tables.step_inputs.c.body,
    tables.results.c.body,
    tables.results.c.added,
    history.c.body,
    tables.partial_results.c.body,
    tables.session_documents.c.body,
    tables.events.c.data,
    tables.sessions.c.query,
    tables.sessions.c.title,
    tables.sessions.c.error,
    tables.steps.c.error,
    tables.steps.c.task,
    tables.checkpoints.c.label,
    tables.conflicts.c.resolution,
    migrated_values.c.error,
    migration_runs.c.summary,
    agent_parts.c.body,
    branches.c.name,
    branches.c.description,
    branches.c.creator,
    merge_conflicts.c.resolution,
    templates.c.body,
)
#: Where sealed bytes lie, and JSON that is not sealed here but may hold sealed fields.
PLACES: Final[tuple[Column[Any], ...]] = (
    state_values.c.packed,
    migrated_values.c.packed,
    cached_results.c.body,
    tables.checkpoints.c.body,
    migrated_values.c.body,
    state_values.c.body,
    tables.findings.c.value,
    tables.findings.c.evidence,
    *TEXTS,
)
#: Fields in them are left as they are: checkpoints tell their changes. See `memories`.
_WITH_CHECKPOINTS: Final = (agent_parts.c.body,)


@dataclass(slots=True)
class Tally:
    """How many objects were found by the key that they are sealed with, brought under the active key, brought under
    seal, and found damaged or keyless. `archives` counts those by the keys that they need; `renewed`: so many were
    brought under the active key.
    """

    found: Counter[str] = field(default_factory=Counter)
    rewrapped: int = 0
    sealed: int = 0
    refused: list[str] = field(default_factory=list)
    archives: Counter[str] = field(default_factory=Counter)
    renewed: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.found + other.found,
            self.rewrapped + other.rewrapped,
            self.sealed + other.sealed,
            self.refused + other.refused,
            self.archives + other.archives,
            self.renewed + other.renewed,
        )


def counted(database: Database) -> Tally:
    """How many objects there are in rows by the key that they are sealed with, fields in sealed texts left out."""
    tally = Tally()
    for place in PLACES:
        for rows in batches(database, place, _is_sealed(place)):
            for row in rows:
                tally.found.update(keys_in(row[-1]))
    return tally


def rewrap(database: Database, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Bring all rows under the active key, and plain texts under seal where the database is sealed as a whole; `told`
    hears after each batch how far it is.

    What cannot be opened stays as it is, and is named in `refused`.
    """
    tally = Tally()
    whole = database.codec is not None and database.codec.whole
    for place in PLACES:
        change = _Change(place, Codec(keyring, whole), tally)
        wanted = place.is_not(None) if change.covers else _is_sealed(place)
        for rows in batches(database, place, wanted):
            new = [(row, body) for row in rows if (body := change.of(row)) is not None]
            if new:
                database.write(partial(change.write, rows=new))
                change.count()
            told(tally)
    return tally


def rewrapped(body: bytes | str, place: str, keyring: KeyRing, tally: Tally) -> bytes | str | None:
    """A body (sealed bytes, or JSON with sealed fields) under the active key; None where there is nothing to be done,
    or where it cannot be opened. Both are counted.
    """
    tally.found.update(keys_in(body))
    try:
        if not isinstance(body, str):
            return keyring.rewrap(bytes(body), place) if sealing.is_sealed(bytes(body)) else None
        after = fields_rewrapped(body, place, keyring)
        return after if after != body else None
    except CeleriacError as fault:
        tally.refused.append(str(fault))
        return None


def fields_rewrapped(text: str, place: str, keyring: KeyRing, known: dict[str, str] | None = None) -> str:
    """JSON text with its sealed fields under the active key. `known` keeps what became of each, so that equal ones stay
    equal. Raises SealBroken and KeyMissing.
    """
    if '{"$sealed":"' not in text:
        return text
    return _TOKEN.sub(partial(_token, keyring, place, {} if known is None else known), text)


def _token(keyring: KeyRing, place: str, known: dict[str, str], match: re.Match[str]) -> str:
    if match[0] not in known:
        after = keyring.rewrap(base64.b64decode(match[1]), place)
        known[match[0]] = match[0] if after is None else f'{{"$sealed":"{base64.b64encode(after).decode()}"}}'
    return known[match[0]]


class _Change:
    """What is done with the rows of one place."""

    def __init__(self, place: Column[Any], codec: Codec, tally: Tally) -> None:
        self._place = place
        self._codec = codec
        self._tally = tally
        self._what = str(place)
        self.covers = codec.whole and place in TEXTS
        self._written = Counter[str]()
        keys = [column == bindparam(f"key_{n}") for n, column in enumerate(_table(place).primary_key)]
        self._update = Query(
            update(_table(place)).where(and_(*keys, place == bindparam("before"))).values({place: bindparam("after")})
        )

    def of(self, row: tuple[Any, ...]) -> bytes | str | None:
        """The body under the active key; None where it is that already, or cannot be opened."""
        *key, body = row
        what = f"{self._place} {tuple(key)}"
        if not isinstance(body, str):
            return rewrapped(body, what, self._codec.keyring, self._tally)
        if body.startswith(MARK):
            return self._renewed(body, key)
        after: str | None = None if self._place in _WITH_CHECKPOINTS else self._fields(body, what)
        if self.covers and body and not _SIZES.fullmatch(body):
            return self._codec.seal(after or body, self._what, *key)
        return after

    def _fields(self, body: str, what: str) -> str | None:
        after = rewrapped(body, what, self._codec.keyring, self._tally)
        return after if isinstance(after, str) else None

    def _renewed(self, body: str, key: list[Any]) -> str | None:
        """A sealed text under the active key, with the fields in it that a rule sealed."""
        data = sealed_bytes(body)
        if data is None:
            return None
        ring, what = self._codec.keyring, f"{self._place} {tuple(key)}"
        self._tally.found.update(keys_in(body))
        try:
            if self._place not in _WITH_CHECKPOINTS:
                plain = self._codec.open(body, self._what, *key)
                after = fields_rewrapped(plain, what, ring)
                if after != plain:
                    return self._codec.seal(after, self._what, *key)
            new = ring.rewrap(data, what)
        except CeleriacError as fault:
            self._tally.refused.append(str(fault))
            return None
        return None if new is None else MARK + base64.b64encode(new).decode()

    def write(self, tx: Transaction, rows: list[tuple[tuple[Any, ...], bytes | str]]) -> int:
        """Write new bodies in the place of those that were read; gives how many still were there."""
        self._written = Counter()
        for row, after in rows:
            keys = {f"key_{n}": value for n, value in enumerate(row[:-1])}
            count = tx.run(self._update, **keys, before=row[-1], after=after)
            covered = self.covers and not row[-1].startswith(MARK)
            self._written["sealed" if covered else "rewrapped"] += count
        return self._written.total()

    def count(self) -> None:
        """Add what was written last to the tally, once it is committed."""
        self._tally.rewrapped += self._written["rewrapped"]
        self._tally.sealed += self._written["sealed"]


def batches(database: Database, place: Column[Any], wanted: Any) -> Iterator[list[tuple[Any, ...]]]:
    """Rows that are wanted, as (primary key ..., body), in the order of their keys."""
    keys = list(_table(place).primary_key)
    ordered = select(*keys, place).order_by(*keys).limit(BATCH)
    after = tuple_(*keys) > tuple_(*(bindparam(f"after_{n}", type_=key.type) for n, key in enumerate(keys)))
    first, later = Query(ordered.where(wanted)), Query(ordered.where(wanted, after))
    rows = database.read(lambda tx: tx.rows(first))
    while rows:
        yield rows
        last = {f"after_{n}": value for n, value in enumerate(rows[-1][:-1])}
        rows = _later(database, later, last)


def _later(database: Database, query: Query, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return database.read(lambda tx: tx.rows(query, **values))


def _is_sealed(place: Column[Any]) -> Any:
    if isinstance(place.type, LargeBinary):
        return place.is_not(None)
    return or_(place.contains('{"$sealed":"'), place.startswith(MARK))


def keys_in(body: bytes | str) -> list[str]:
    """The ids of the keys of what is sealed in a body."""
    if isinstance(body, str):
        data = sealed_bytes(body)
        if data is not None:
            return [_key_of(data)]
        return [_key_of(base64.b64decode(token)) for token in _TOKEN.findall(body)]
    data = bytes(body)
    return [_key_of(data)] if sealing.is_sealed(data) else []


def _key_of(sealed: bytes) -> str:
    try:
        return sealing.key_of(sealed)
    except SealBroken:
        return DAMAGED


def _table(place: Column[Any]) -> Table:
    return place.table
