"""Putting a session away: everything into one file, read back and compared, then the rows go, all or none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, delete, select

from ...errors import ArchiveError, BlobNotFound, SessionError, SessionNotFound, StorageError
from ...storage import sessions, trees
from ...storage.archives import tables as rows
from ...storage.archives.store import ArchiveStore
from ...storage.backup import tables
from ...storage.backup.chunking import cut
from ...storage.backup.manifest import HISTORIES, STATE, Manifest, Part, object_name
from ...storage.backup.transactions import alone
from ...storage.database import Query, Transaction
from ...storage.histories.rows import hold
from ...storage.tables import outbox, steps
from ..backups.creating import part_of
from ..backups.source import STATE_COLUMNS
from ..engine import Engine
from ..states import after
from . import owned
from .settling import settle
from .writing import Writer, row_parts, write

#: A session that changes while it is put away is read anew, so often in all.
_TRIES: Final = 3
_RUNNING = Query(
    select(steps.c.name).where(steps.c.session_id == bindparam("session"), steps.c.status == "running").limit(1)
)
_DROP_HINTS = Query(delete(outbox).where(outbox.c.session_id == bindparam("session")))


def folder(engine: Engine) -> ArchiveStore:
    """The archives of an engine."""
    return ArchiveStore(engine.settings.data_dir / "archives")


def create(engine: Engine, session_id: str) -> rows.Row:
    """Put a session away; gives where it is then.

    Raises SessionError for one that is active, has running steps or branches that are not archived, or is in an
    archive; ArchiveError where it changes again and again. Then it is as it was.
    """
    store = folder(engine)
    with store.holding(session_id):
        known = engine.database.write(lambda tx: _movable(tx, session_id))
        store.clean(session_id, None)
        for _ in range(_TRIES):
            try:
                made = _written(engine, store, session_id, known)
                if _left(engine, made):
                    break
            except BlobNotFound:  # replaced while it was read
                continue
            except BaseException:
                with contextlib.suppress(StorageError):  # nobody can say which file is needed: all stay
                    store.clean(session_id, file_of(engine, session_id))
                raise
            store.clean(session_id, None)
        else:
            raise ArchiveError(f"session {session_id} changes again and again while it is put away; try again later")
        settle(engine, store, session_id)
        found = engine.database.read(lambda tx: rows.get(tx, session_id))
    if found is None:
        raise SessionNotFound(f"no session {session_id!r}")
    return found


def file_of(engine: Engine, session_id: str) -> str | None:
    """The file of a session's archive. The row is locked first: that waits for a COMMIT that may be on its way."""

    def work(tx: Transaction) -> str | None:
        sessions.lock(tx, session_id)
        found = rows.get(tx, session_id)
        return None if found is None else found.file

    return engine.database.write(work)


def _movable(tx: Transaction, session_id: str) -> sessions.Hot:
    """The row of a session that can be put away now, as `at_rest`: its branches, which share what it has, are."""
    hot = at_rest(tx, session_id)
    if present := trees.present(tx, session_id):
        more = f" and {len(present) - 3} more" if len(present) > 3 else ""
        raise SessionError(
            f"session {session_id} cannot be archived: it has branches that are not: {', '.join(present[:3])}{more}; "
            "archive them first, or all of it with recursive=True"
        )
    return hot


def at_rest(tx: Transaction, session_id: str) -> sessions.Hot:
    """The row of a session in which nothing goes on, locked: a COMMIT that may be on its way is waited for, even that
    of a process that was killed. Raises SessionNotFound, SessionError.
    """
    hot = sessions.lock(tx, session_id)
    if hot is None:
        raise SessionNotFound(f"no session {session_id!r}")
    if hot.status != "archived" or rows.get(tx, session_id) is not None:  # else it was put away without a file
        after(hot.status, "archive", session_id)
    running = tx.value(_RUNNING, session=session_id)
    if running is not None:
        raise SessionError(f"session {session_id} cannot be archived: its step {running!r} is still running")
    return hot


@dataclass(slots=True)
class _Made:
    """An archive that was written: what is in it, and what lies elsewhere."""

    row: rows.Row
    hot: sessions.Hot
    manifest: Manifest


def _written(engine: Engine, store: ArchiveStore, session_id: str, hot: sessions.Hot) -> _Made:
    """Write a session's archive, and read it back."""
    row, manifest = write(engine, store, session_id, hot.status, partial(_parts, engine, session_id, hot.tenant))
    return _Made(row, hot, manifest)


def _parts(engine: Engine, session_id: str, tenant: str, writer: Writer) -> list[Part]:
    parts = row_parts(engine, session_id, tenant, writer)
    place = owned.history_elsewhere(engine)
    if place is not None:
        parts.append(part_of(HISTORIES, owned.HISTORY_COLUMNS, owned.history_rows(place, session_id), writer))
    if owned.has_state_elsewhere(engine):
        parts.append(part_of(STATE, STATE_COLUMNS, owned.state_rows(engine, session_id, tenant), writer))
    return parts


def _left(engine: Engine, made: _Made) -> bool:
    """Let the rows go, if they are what the archive has: in one transaction; False if they are not any more."""
    database, session_id = engine.database, made.hot.id
    try:
        with alone(database, write=True) as connection:
            tx = Transaction(connection.cursor(), database.dialect, database.codec)
            turn = engine.turn(tx, session_id)
            hold(tx, session_id)
            if turn.hot.status != made.hot.status or not _is_same(engine, connection, made):
                return False
            _movable(tx, session_id)
            _go(connection, engine, tx, made)
            hot = turn.hot
            hot.status, hot.event_seq, hot.checkpoint_seq, hot.checkpoint_base = "archived", 0, 0, 0
            hot.total_steps = hot.open_steps = hot.failed_steps = hot.stored_bytes = hot.stored_blobs = 0
            about = {"from": made.row.status, "file": made.row.file, "bytes": made.row.bytes, "digest": made.row.digest}
            turn.event("session.archived", component="archives", data=about)
            turn.close()
            tx.send_later()
    except StorageError:
        if file_of(engine, session_id) != made.row.file:
            raise
        # else the COMMIT that seemed to break went in
    engine.copies.forget(session_id)
    for told in tx.after_commit:
        told()
    return True


def _is_same(engine: Engine, connection: Any, made: _Made) -> bool:
    """Whether the rows of the session, locked, are those of the archive, and what lies elsewhere is as long."""
    dialect, manifest = engine.database.dialect, made.manifest
    for table, chosen in owned.kept_tables(owned.choice(made.hot.id, made.hot.tenant)):
        found = cut(tables.stream(connection, dialect, table, chosen))
        names = [object_name("rows", data, manifest.naming) for _, data in found]
        part = manifest.part(table.name)
        if names != [chunk.name for chunk in (part.chunks if part is not None else ())]:
            return False
    place, part = owned.history_elsewhere(engine), manifest.part(HISTORIES)
    return place is None or part is None or place.count(made.hot.id) == part.rows


def _go(connection: Any, engine: Engine, tx: Transaction, made: _Made) -> None:
    dialect, of = engine.database.dialect, owned.choice(made.hot.id, made.hot.tenant)
    for table in tables.tables():
        if table.name not in owned.STAYING:
            tables.clear(connection, dialect, table, of)
    tx.run(_DROP_HINTS, session=made.hot.id)
    rows.add(tx, made.row)
