"""Bringing what is sealed under the active key: in batches, while work goes on, and again from the start at any time.

Only data keys are wrapped anew; nothing is decrypted. A row that changes meanwhile is left alone: who changed it sealed
it with the active key. What is done once is passed over the next time, so that an interrupted run is simply run again.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sqlalchemy import Column, LargeBinary, Table, and_, bindparam, select, tuple_, update

from ...errors import CeleriacError, SealBroken
from .. import tables
from ..cache.tables import cached_results
from ..database import Database, Query, Transaction
from ..migration_runs import migrated_values
from ..states.tables import state_events, state_values
from . import sealing
from .sealing import KeyRing

#: Rows of one transaction.
BATCH: Final = 200
#: A sealed field inside JSON text, as the guard's policy writes it.
_TOKEN: Final = re.compile(r'\{"\$sealed":"((?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"\}')
#: What is counted in the place of a key where the object does not say one.
DAMAGED: Final = "(damaged)"

#: Where sealed bytes lie, and JSON that may hold sealed fields. Checkpoints and blobs are not among them: checksums
#: cover what they hold. Nor are agents' states, which checkpoints tell the changes of.
PLACES: Final[tuple[Column[Any], ...]] = (
    state_values.c.packed,
    migrated_values.c.packed,
    cached_results.c.body,
    migrated_values.c.body,
    state_values.c.body,
    state_events.c.old,
    state_events.c.new,
    tables.step_inputs.c.body,
    tables.results.c.body,
    tables.partial_results.c.body,
    tables.session_documents.c.body,
    tables.events.c.data,
)


@dataclass(slots=True)
class Tally:
    """How many objects were found by the key that they are sealed with, rewrapped, and found damaged or keyless."""

    found: Counter[str] = field(default_factory=Counter)
    rewrapped: int = 0
    refused: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.found + other.found, self.rewrapped + other.rewrapped, self.refused + other.refused)


def counted(database: Database) -> Tally:
    """How many objects there are by the key that they are sealed with."""
    tally = Tally()
    for place in PLACES:
        for rows in _batches(database, place):
            for row in rows:
                tally.found.update(_keys_in(row[-1]))
    return tally


def rewrap(database: Database, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Bring all under the active key; `told` hears after each batch how far it is.

    What cannot be opened stays as it is, and is named in `refused`.
    """
    tally = Tally()
    for place in PLACES:
        change = _Change(place, keyring, tally)
        for rows in _batches(database, place):
            new = [(row, body) for row in rows if (body := change.of(row)) is not None]
            if new:
                tally.rewrapped += database.write(partial(change.write, rows=new))
            told(tally)
    return tally


def rewrapped(body: bytes | str, place: str, keyring: KeyRing, tally: Tally) -> bytes | str | None:
    """A body (sealed bytes, or JSON with sealed fields) under the active key; None where there is nothing to be done,
    or where it cannot be opened. Both are counted.
    """
    tally.found.update(_keys_in(body))
    try:
        if not isinstance(body, str):
            return keyring.rewrap(bytes(body), place) if sealing.is_sealed(bytes(body)) else None
        after = _TOKEN.sub(partial(_token, keyring, place), body)
        return after if after != body else None
    except CeleriacError as fault:
        tally.refused.append(str(fault))
        return None


def _token(keyring: KeyRing, place: str, match: re.Match[str]) -> str:
    after = keyring.rewrap(base64.b64decode(match[1]), place)
    return match[0] if after is None else f'{{"$sealed":"{base64.b64encode(after).decode()}"}}'


class _Change:
    """What is done with the rows of one place."""

    def __init__(self, place: Column[Any], keyring: KeyRing, tally: Tally) -> None:
        self._place = place
        self._keyring = keyring
        self._tally = tally
        keys = [column == bindparam(f"key_{n}") for n, column in enumerate(_table(place).primary_key)]
        self._update = Query(
            update(_table(place)).where(and_(*keys, place == bindparam("before"))).values({place: bindparam("after")})
        )

    def of(self, row: tuple[Any, ...]) -> bytes | str | None:
        """The body under the active key; None where it is that already, or cannot be opened."""
        return rewrapped(row[-1], f"{self._place} {row[:-1]}", self._keyring, self._tally)

    def write(self, tx: Transaction, rows: list[tuple[tuple[Any, ...], bytes | str]]) -> int:
        """Write new bodies in the place of those that were read; gives how many still were there."""
        count = 0
        for row, after in rows:
            keys = {f"key_{n}": value for n, value in enumerate(row[:-1])}
            count += tx.run(self._update, **keys, before=row[-1], after=after)
        return count


def _batches(database: Database, place: Column[Any]) -> Iterator[list[tuple[Any, ...]]]:
    """Rows with something sealed in them, as (primary key ..., body), in the order of their keys."""
    keys = list(_table(place).primary_key)
    wanted = _is_sealed(place)
    ordered = select(*keys, place).order_by(*keys).limit(BATCH)
    after = tuple_(*keys) > tuple_(*(bindparam(f"after_{n}", type_=key.type) for n, key in enumerate(keys)))
    first, later = Query(ordered.where(wanted)), Query(ordered.where(wanted, after))
    rows = database.read(lambda tx: tx.rows(first))
    while rows:
        yield [row for row in rows if _keys_in(row[-1])]
        last = {f"after_{n}": value for n, value in enumerate(rows[-1][:-1])}
        rows = _later(database, later, last)


def _later(database: Database, query: Query, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return database.read(lambda tx: tx.rows(query, **values))


def _is_sealed(place: Column[Any]) -> Any:
    return place.is_not(None) if isinstance(place.type, LargeBinary) else place.contains('{"$sealed":"')


def _keys_in(body: bytes | str) -> list[str]:
    """The ids of the keys of what is sealed in a body."""
    if isinstance(body, str):
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
