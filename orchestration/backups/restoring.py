"""Putting a backup back: in one transaction, so that all of it is in or nothing."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine.interfaces import Dialect

from ...errors import BackupError
from ...storage import schema, steps, workers
from ...storage.backup import tables
from ...storage.backup.chunking import digest_of
from ...storage.backup.manifest import ARCHIVES, HISTORIES, STATE, Manifest
from ...storage.backup.store import BackupStore
from ...storage.backup.tables import Choice
from ...storage.backup.transactions import alone
from ...storage.backup.writer import NotStarted, Writer, apart
from ...storage.database import Database
from ...storage.histories.sql import SqlPlace
from ...storage.presence import Presence
from . import conversations
from .archived import is_of, put_back
from .content import Content, Kept, Staged
from .source import STATE_COLUMNS, Source, clear_state, put_state

#: Epochs rise by so many over the highest that is known: claims may have been made that no table knows of any more.
_EPOCHS: Final = 1000
#: From so many bytes of rows on, it pays to start a process that inserts them.
APART_BYTES = 16_000_000
_FINAL: Final = ", ".join(f"'{status}'" for status in steps.FINAL)


@dataclass(slots=True)
class Restored:
    """What was restored, or (a dry run) would be: rows by table, blobs, values of keyed state and entries of histories
    that live elsewhere, or did.

    `safety`: the backup of what was there before, where one was made.
    """

    id: str
    rows: dict[str, int] = field(default_factory=dict)
    blobs: int = 0
    state: int = 0
    entries: int = 0
    archives: int = 0
    dry_run: bool = False
    safety: str | None = None


def at_work(database: Database, presence: Presence) -> list[str]:
    """The names of the workers that were seen of late, and are not known to be dead."""
    moment, found = database.read(lambda tx: (tx.now(), workers.listing(tx)))
    return [
        one["name"] for one in found if one["seen_at"] > moment - workers.SILENT and not presence.is_dead(one["id"])
    ]


def restore(
    source: Source, store: BackupStore, manifest: Manifest, choice: Choice, dry_run: bool, recheck: bool = False
) -> Restored:
    """Replace what is there by what the backup has, as far as it is chosen. Raises BackupDamaged; then nothing has
    changed. `recheck`: read all rows back and compare them before the commit.
    """
    kept = Kept(store, manifest)
    result = Restored(manifest.id, dry_run=dry_run)
    with store.reading(), _content(kept) as content:
        if dry_run:
            _count(kept, content, choice, result)
            return result
        for part in (STATE, HISTORIES):  # written after the commit: what is damaged has to be seen before
            for _ in kept.rows(part):
                pass
        needed = _needed_blobs(content, choice)
        _put_blobs(kept, source, needed, result)
        if source.archives is not None and (choice.is_all or choice.sessions):
            result.archives = put_back(kept, source.archives, choice.sessions)
        with _writing(source.database, kept, choice, recheck) as connection:
            highest = _highest_epoch(connection)
            replace(connection, source.database, content, choice, needed, result)
            _insert_entries(connection, kept, source, choice, result)
            if recheck:
                _compare(connection, source.database, content)
            _let_old_claims_end(connection, source.database, choice, highest)
        _put_state(kept, source, choice, result)
        _put_entries(kept, source, choice, result)
    return result


@contextlib.contextmanager
def _writing(database: Database, kept: Kept, choice: Choice, recheck: bool) -> Iterator[Any]:
    """The transaction: of another process, where that is quicker, and can be started; not where all rows are to be read
    back.
    """
    is_large = sum(part.size for part in kept.manifest.parts) >= APART_BYTES
    if choice.is_all and database.is_sqlite and is_large and not recheck:
        with contextlib.ExitStack() as held, contextlib.suppress(NotStarted):
            yield held.enter_context(apart(database))
            return
    with alone(database, write=True, whole=choice.is_all) as connection:
        yield connection


@contextlib.contextmanager
def _content(kept: Kept) -> Iterator[Content]:
    if kept.manifest.revision == schema.HEAD:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="celeriac-restore-") as folder:
        staged = Staged(kept, Path(folder))
        try:
            yield staged
        finally:
            staged.close()


def _chosen(content: Content, choice: Choice, table: str) -> Iterator[list[Any]]:
    """The chosen rows of a table."""
    columns = content.columns(table)
    if columns is None:
        return
    if choice.is_all:
        yield from content.rows(table)
        return
    chosen = choice.of(table, columns)
    if chosen is None:
        return
    place = columns.index(chosen.column)
    for rows in content.rows(table):
        if wanted := [row for row in rows if chosen.has(row[place])]:
            yield wanted


def replace(
    connection: Any,
    database: Database,
    content: Content,
    choice: Choice,
    needed: set[str] | None,
    result: Restored,
    stay: Sequence[str] = (),
) -> None:
    """Delete the chosen rows that are there, and add those of the backup; but for some tables, which `stay`."""
    dialect = database.dialect
    for table in tables.tables():
        if table.name in stay:
            continue
        tables.clear(connection, dialect, table, choice)
        if count := _insert(connection, dialect, content, choice, table.name):
            result.rows[table.name] = count
    if needed:
        columns = content.columns("blobs") or ()
        for rows in content.rows("blobs"):
            wanted = [row for row in rows if row[columns.index("hash")] in needed]
            tables.insert_missing(connection, dialect, "blobs", columns, wanted)
    tables.continue_numbers(connection, dialect)
    if choice.sessions and result.rows.get("sessions", 0) < len(choice.sessions):
        raise BackupError(f"{result.id} has not all of the sessions {', '.join(choice.sessions)}")


def _insert(connection: Any, dialect: Dialect, content: Content, choice: Choice, table: str) -> int:
    """Add the chosen rows of a table; gives how many."""
    columns = content.columns(table) or ()
    count = 0
    if isinstance(connection, Writer) and isinstance(content, Kept) and choice.is_all:
        for chunk, bits in content.packed(table):
            tables.insert_chunk(connection, dialect, table, columns, chunk, bits)
            count += chunk.rows
        return count
    for found in _chosen(content, choice, table):
        tables.insert(connection, dialect, table, columns, found)
        count += len(found)
    return count


def _highest_epoch(connection: Any) -> int:
    found = [
        connection.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]
        for column, table in (("epoch", "steps"), ("epoch_floor", "sessions"))
    ]
    return int(max(found))


def _let_old_claims_end(connection: Any, database: Database, choice: Choice, highest: int) -> None:
    """Raise epochs, so that no claim from before can write; what was running is taken back by the next sweep."""
    if choice.scopes and not choice.sessions:
        return
    floor = max(highest, _highest_epoch(connection)) + _EPOCHS
    mark = ", ".join(["?" if database.is_sqlite else "%s"] * len(choice.sessions))
    of_session, of_step = (f" AND {name} IN ({mark})" if mark else "" for name in ("id", "session_id"))
    running = "status = 'running' AND lease_until IS NOT NULL"
    for statement in (
        f"UPDATE sessions SET epoch_floor = {floor} WHERE epoch_floor < {floor}{of_session}",
        f"UPDATE steps SET epoch = {floor}, hinted_at = 0 WHERE status NOT IN ({_FINAL}){of_step}",
        f"UPDATE steps SET lease_until = 0 WHERE {running}{of_step}",
    ):
        connection.execute(statement, choice.sessions)
    if choice.is_all:
        # Copies in Redis are kept under this name: another one is made, and they are not found again.
        connection.execute("DELETE FROM cache_cutoffs WHERE kind = 'name'")


def _compare(connection: Any, database: Database, content: Content) -> None:
    """Read all rows back. Raises BackupError for a table whose rows are not those of the backup."""
    for table in tables.tables():
        wanted = digest_of(row for rows in content.rows(table.name) for row in rows)
        found = digest_of(tables.stream(connection, database.dialect, table))
        if found != wanted:
            raise BackupError(
                f"{table.name} has {found[0]:,} rows with the hash {found[1]} where it was moved to, "
                f"expected: {wanted[0]:,} with {wanted[1]}; nothing was moved"
            )


def _needed_blobs(content: Content, choice: Choice) -> set[str] | None:
    """The hashes of the blobs that the chosen rows refer to; None: all."""
    if choice.is_all:
        return None
    needed = set()
    for table in tables.tables():
        if "blob" in (columns := content.columns(table.name) or ()):
            place = columns.index("blob")
            needed |= {row[place] for rows in _chosen(content, choice, table.name) for row in rows}
    return needed


def _put_blobs(kept: Kept, source: Source, needed: set[str] | None, result: Restored) -> None:
    """Blobs come before the rows that name them; where the rows then do not come, nothing refers to them."""
    for name, key in kept.blobs():
        if needed is None or name in needed:
            source.blobs.put_stored(name, kept.blob(name, key))
            result.blobs += 1


def _put_state(kept: Kept, source: Source, choice: Choice, result: Restored) -> None:
    """Keyed state that lives elsewhere: after the rows are in, in writes of its own."""
    if source.backend is None or kept.columns(STATE) != STATE_COLUMNS or (choice.sessions and not choice.scopes):
        return
    clear_state(source.backend, choice.scopes)
    for rows in kept.rows(STATE):
        wanted = [row for row in rows if not choice.scopes or row[0] in choice.scopes]
        put_state(source.backend, wanted)
        result.state += len(wanted)


def _entries(kept: Kept, choice: Choice) -> Iterator[list[Any]]:
    """The chosen entries of histories that lived elsewhere."""
    if choice.sessions or not choice.scopes:
        for rows in kept.rows(HISTORIES):
            yield from (row for row in rows if not choice.sessions or row[0] in choice.sessions)


def _insert_entries(connection: Any, kept: Kept, source: Source, choice: Choice, result: Restored) -> None:
    """Entries that lived elsewhere and live in the database now: among its rows."""
    if isinstance(source.histories, SqlPlace):
        names = {row[0] for row in _entries(kept, choice)}
        result.entries = conversations.insert(connection, source.database, names, _entries(kept, choice))


def _put_entries(kept: Kept, source: Source, choice: Choice, result: Restored) -> None:
    """Entries that live elsewhere now, wherever they lived: after the rows are in, in writes of their own."""
    place = source.histories
    if place is None or isinstance(place, SqlPlace) or (choice.scopes and not choice.sessions):
        return
    for name in choice.sessions or list(place.conversations()):
        place.delete(name)
    result.entries = conversations.put(place, _entries(kept, choice))
    result.entries += conversations.take_over(place, source.database, source.blobs, choice.sessions)


def _count(kept: Kept, content: Content, choice: Choice, result: Restored) -> None:
    """Read and check all that would be restored."""
    files = (row for rows in kept.rows(ARCHIVES) for row in rows if choice.is_all or is_of(row, choice.sessions))
    result.archives = len({row[0] for row in files})
    for table in tables.tables():
        if count := sum(len(rows) for rows in _chosen(content, choice, table.name)):
            result.rows[table.name] = count
    needed = _needed_blobs(content, choice)
    for name, key in kept.blobs():
        if needed is None or name in needed:
            kept.blob(name, key)
            result.blobs += 1
    if not choice.sessions or choice.scopes:
        state = (row for rows in kept.rows(STATE) for row in rows)
        result.state = sum(not choice.scopes or row[0] in choice.scopes for row in state)
    result.entries = sum(1 for _ in _entries(kept, choice))
