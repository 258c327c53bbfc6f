"""Histories that live outside of the database (`history_url`): read into a backup, and put back where they live now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, Final

from ...storage import serial
from ...storage.backup import tables
from ...storage.blobs import BlobStore
from ...storage.database import Database
from ...storage.histories import rows as history_rows
from ...storage.histories.protocol import Item, Place
from ...storage.histories.sql import SqlPlace
from ..history.entries import mark_of
from ..history.histories import move
from ..history.pages import pages

#: What an entry consists of: the session that it was said in, its number, its time (seconds since 1970), its JSON.
COLUMNS: Final = ("session_id", "number", "at", "body")
#: Entries that are put back at once, and their bytes.
_MOST: Final = 500
_BYTES: Final = 4_000_000


def elsewhere(place: Place) -> Place | None:
    """The place if its entries have to be backed up beside the database's rows."""
    return place if place.capabilities.durable and not isinstance(place, SqlPlace) else None


def entry_rows(place: Place) -> Iterator[tuple[Any, ...]]:
    """All entries of a place, conversation by conversation, in order."""
    for name in place.conversations():
        for kept in chain.from_iterable(pages(place, name)):
            yield name, kept.number, kept.at, kept.body


def put(place: Place, entries: Iterable[list[Any]]) -> int:
    """Append entries; gives how many."""
    count = 0
    for name, items in _together(entries):
        place.append(name, items)
        count += len(items)
    return count


def _together(entries: Iterable[list[Any]]) -> Iterator[tuple[str, list[Item]]]:
    """Entries that can be appended at once."""
    name, items, size = "", list[Item](), 0
    for session_id, _, at, body in entries:
        data = bytes(body)
        if items and (session_id != name or len(items) >= _MOST or size > _BYTES):
            yield name, items
            items, size = [], 0
        name, size = session_id, size + len(data)
        items.append(Item(data, mark_of(serial.decode(data)), at))
    if items:
        yield name, items


def take_over(place: Place, database: Database, blobs: BlobStore, sessions: Collection[str]) -> int:
    """Move the entries of these sessions, or (none named) of all, that a restore brought into the database to the place
    where they live now; gives how many.
    """
    rows = SqlPlace(database, blobs, 0)
    names = [name for name in sessions or list(rows.conversations()) if not place.count(name)]
    return sum(move(rows, place, name) for name in names)


def insert(connection: Any, database: Database, names: Iterable[str], entries: Iterable[list[Any]]) -> int:
    """Put entries from elsewhere, all of the sessions of these names, among the rows of a database, in an open
    transaction; gives how many.
    """
    mark = "?" if database.is_sqlite else "%s"
    for name in names:
        for table in ("history", "conversations"):
            connection.execute(f"DELETE FROM {table} WHERE session_id = {mark}", (name,))
    codec = database.codec if database.codec is not None and database.codec.whole else None
    numbers: dict[str, list[Any]] = {}

    def made() -> Iterator[tuple[Any, ...]]:
        for name, number, at, body in entries:
            data = bytes(body)
            text = data.decode()
            known = numbers.setdefault(name, [name, 0, 0.0, 0])
            known[1:] = [number, max(known[2], at), known[3] + len(data)]
            sealed = text if codec is None else codec.seal(text, history_rows.BODY, name, number)
            yield name, number, at, mark_of(serial.decode(data)), sealed, len(data)

    for table, columns, rows in (
        ("history", ("session_id", "number", "at", "mark", "body", "size"), made()),
        ("conversations", ("session_id", "entries", "updated_at", "bytes"), numbers.values()),
    ):
        tables.insert(connection, database.dialect, table, columns, rows)
    return sum(known[1] for known in numbers.values())
