"""Deleting whole sessions in short transactions."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SessionError, SessionNotFound
from ...storage import aging, removals, results, session_state, sessions
from ...storage.batches import Batches
from ...storage.database import Transaction
from .. import deleting
from ..engine import Engine

#: A session of up to so many rows is deleted in one transaction.
_SMALL = 300


def remove(engine: Engine, batches: Batches, session_id: str, may_go: Callable[[Transaction], bool]) -> bool:
    """Delete a session with everything that belongs to it, if `may_go` says so behind its lock; whether it did.

    One with many rows is gone with the first transaction; the rest of it follows in others.
    """
    whole = False

    def begin(tx: Transaction, batch: list[str]) -> bool:
        nonlocal whole
        found = deleting.erasable(engine, tx, session_id)
        if not may_go(tx):
            return False
        whole = aging.rows_of(tx, session_id, session_state.scope_of(session_id, found.tenant)) <= _SMALL
        if whole:
            deleting.erase(engine, tx, session_id, found.tenant)
        else:
            deleting.forget_made(engine, tx, session_id, found.tenant)
            removals.note(tx, session_id, found.tenant)
        return True

    try:
        gone = next(batches.run([session_id], begin))
    except (SessionNotFound, SessionError):  # it was deleted meanwhile; or something needs it
        return False
    if not gone:
        return False
    engine.copies.forget(session_id)
    if not whole:
        finish(engine, batches)
    if not engine.conversations.capabilities.with_steps:
        engine.conversations.delete(session_id)
    return True


def finish(engine: Engine, batches: Batches) -> None:
    """Delete what is left of sessions that are gone, also of those that another process left."""
    for session_id, tenant in engine.database.read(removals.pending):
        _finish(engine, batches, session_id, tenant)


def _finish(engine: Engine, batches: Batches, session_id: str, tenant: str) -> None:
    freed: list[str] = []
    start: int | None = 0
    work = batches.again(lambda tx, most: removals.some(tx, session_id, tenant, most, start or 0))
    while start is not None:
        _, blobs, start = next(work)
        freed += blobs
    let_go(engine, batches, freed)
    engine.database.write(lambda tx: _forget_state(engine, tx, session_id, tenant))


def _forget_state(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    if sessions.identity(tx, session_id) is None:  # else it is there again, as after a restore
        deleting.forget_state(engine, tx, session_id, tenant)


def let_go(engine: Engine, batches: Batches, blobs: list[str]) -> None:
    """Delete those of the blobs that nothing refers to any more."""
    for _ in batches.run(sorted(set(blobs)), lambda tx, some: results.delete_unreferenced(tx, engine.blobs, some)):
        pass
