"""Bringing a session back from its archive: all or nothing, and as it was."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from ...config.urls import masked
from ...errors import ArchiveDamaged, ArchiveError, ArchiveNotFound, StorageError
from ...storage import results, schema, serial, sessions, trees
from ...storage.archives import tables as rows
from ...storage.archives.file import damaged
from ...storage.archives.store import ArchiveStore
from ...storage.backup import tables
from ...storage.backup.manifest import HISTORIES, STATE
from ...storage.backup.transactions import alone
from ...storage.database import Transaction
from ...storage.histories.protocol import Item
from ..backups import conversations
from ..backups.content import Content, Kept, Staged
from ..backups.restoring import Restored, replace
from ..backups.source import STATE_COLUMNS, put_state
from ..engine import Engine
from ..history.entries import mark_of
from . import owned
from .settling import settle
from .verifying import opened, read_back


def restore(engine: Engine, store: ArchiveStore, session_id: str) -> rows.Row:
    """Bring a session back; gives where it was. Raises ArchiveNotFound for one that is in no archive, ArchiveError for
    a branch of one that is not there, ArchiveDamaged, KeyMissing; then nothing has changed.
    """
    with store.holding(session_id):
        row, hot = engine.database.read(lambda tx: (rows.get(tx, session_id), sessions.look(tx, session_id)))
        if row is None or hot is None:
            raise not_archived(session_id, hot.status if hot is not None else None)
        engine.database.read(lambda tx: _check_above(tx, session_id))
        settle(engine, store, session_id)
        with opened(engine, store, row) as archive, damaged(archive.id):
            if (found := read_back(archive)).problems:
                raise ArchiveDamaged(found.problems[0])
            kept = Kept(archive, archive.manifest)
            _check_places(engine, kept, session_id)
            with _content(store, session_id, kept) as content:
                needed = dict(kept.blobs())
                for name, key in needed.items():
                    engine.blobs.put_stored(name, kept.blob(name, key))
                _put_elsewhere(engine, kept, row, hot.tenant)
                _put_rows(engine, kept, content, needed, row, hot.tenant)
        store.clean(session_id, None)
    engine.copies.forget(session_id)
    return row


def not_archived(session_id: str, status: str | None) -> ArchiveError:
    """The error for a session that is in no archive, or is not there at all."""
    if status is None:
        return ArchiveNotFound(f"no session {session_id!r}")
    return ArchiveNotFound(f"session {session_id} is in no archive: it is {status}; `celeriac archive list` shows all")


def _check_above(tx: Transaction, session_id: str) -> None:
    """Raise ArchiveError for a branch whose parent, which has what it shares, is archived or is not there."""
    above = [one for one, _ in trees.above(tx, session_id)]
    if not above:
        return
    if sessions.status(tx, above[0]) is None:
        raise ArchiveError(
            f"session {session_id} cannot be restored: it is a branch of {above[0]}, which is not there; bring that "
            "one back from a backup first"
        )
    if rows.get(tx, above[0]) is not None:
        away = [one for one in above if rows.get(tx, one) is not None]
        raise ArchiveError(
            f"session {session_id} cannot be restored: it is a branch of {above[0]}, which is archived; restore "
            f"{', then '.join(reversed(away))} first, or {away[-1]} with recursive=True"
        )


def _check_places(engine: Engine, kept: Kept, session_id: str) -> None:
    """Raise ArchiveError where a history or state would go back to where nobody looks for it now."""
    of_history, of_state = (kept.manifest.part(name) is not None for name in (HISTORIES, STATE))
    is_history, is_state = owned.history_elsewhere(engine) is not None, owned.has_state_elsewhere(engine)
    for what, setting, rows_of in (
        # a history from elsewhere goes into the database as well
        ("history", "history_url", "history" if is_history and not of_history else None),
        ("keyed state", "state_url", None if is_state == of_state else STATE if of_state else "state_values"),
    ):
        if rows_of is not None and any(kept.rows(rows_of)):
            now = masked(getattr(engine.settings, setting)) or "the database"
            raise ArchiveError(
                f"session {session_id} cannot be restored: its {what} was elsewhere than in {now} when it was archived;"
                f" restore it with {setting} as it was then"
            )


@contextlib.contextmanager
def _content(store: ArchiveStore, session_id: str, kept: Kept) -> Iterator[Content]:
    if kept.manifest.revision == schema.HEAD:
        yield kept
        return
    with staged(store, session_id, kept) as found:
        yield found


@contextlib.contextmanager
def staged(store: ArchiveStore, session_id: str, kept: Kept) -> Iterator[Staged]:
    """The rows of an archive in a database of their own, of the present schema, for the length of the `with` block."""
    folder = store.temporary(session_id)
    try:
        found = Staged(kept, folder)
        try:
            yield found
        finally:
            found.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_elsewhere(engine: Engine, kept: Kept, row: rows.Row, tenant: str) -> None:
    """Put back what takes no part in the transaction: before it, so that a session that is back is whole. Until then
    the row says that something is left outside.
    """
    place, part = owned.history_elsewhere(engine), kept.manifest.part(HISTORIES)
    has_state = kept.columns(STATE) == STATE_COLUMNS and owned.has_state_elsewhere(engine)
    if (place is None or part is None) and not has_state:
        return
    session_id = row.session_id
    engine.database.write(lambda tx: rows.settle(tx, session_id, False))
    if place is not None and part is not None and place.count(session_id) <= part.rows:
        place.delete(session_id)
        if part.rows:
            place.append(session_id, Entries(kept))
    if has_state:
        owned.clear_state(engine, session_id, tenant)
        for found in kept.rows(STATE):
            put_state(engine.state.places.backend, found)


class Entries:
    """Entries as items for a place, as often as they are asked for."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def __iter__(self) -> Iterator[Item]:
        for found in self._kept.rows(HISTORIES):
            for _, at, body in found:
                yield Item(bytes(body), mark_of(serial.decode(body)), at)


def _put_rows(engine: Engine, kept: Kept, content: Content, needed: dict[str, str], row: rows.Row, tenant: str) -> None:
    """Put the rows in the place of the one that stayed, in one transaction."""
    database, session_id = engine.database, row.session_id
    try:
        with alone(database, write=True) as connection:
            tx = Transaction(connection.cursor(), database.dialect, database.codec)
            branch = trees.get(tx, session_id)
            if branch is not None:  # which then is not put away meanwhile
                sessions.lock(tx, branch.parent)
            sessions.lock(tx, session_id)
            _check_above(tx, session_id)
            now = rows.get(tx, session_id)
            if now is None or now.file != row.file:
                raise not_archived(session_id, "restored already")
            of = owned.choice(session_id, tenant)
            result = Restored(kept.manifest.id)
            replace(connection, database, content, of, set(needed), result, stay=(tables.SEARCH.name,))
            if owned.history_elsewhere(engine) is None and kept.manifest.part(HISTORIES) is not None:
                said = ([session_id, *entry] for found in kept.rows(HISTORIES) for entry in found)
                conversations.insert(connection, database, [session_id], said)
            for name, key in needed.items():
                _keep_blob(engine, tx, kept, name, key)
    except StorageError:
        if engine.database.read(lambda tx: rows.get(tx, session_id)) is not None:
            raise
        # else the COMMIT that seemed to break went in


def _keep_blob(engine: Engine, tx: Transaction, kept: Kept, name: str, key: str) -> None:
    """Hold a blob until the transaction ends; put it back if it was deleted since it was put."""
    results.hold_blob(tx, name, engine.blobs.size(name) if engine.blobs.exists(name) else 0)
    if not engine.blobs.exists(name):
        engine.blobs.put_stored(name, kept.blob(name, key))


__all__ = ["Entries", "not_archived", "restore", "staged"]
