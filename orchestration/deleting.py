"""Deleting a session: all its rows, the blobs that only it refers to, and what of it lies elsewhere."""

from __future__ import annotations

from functools import partial

from ..errors import SessionError
from ..storage import migration_runs, results, session_state, sessions, trees
from ..storage.archives import tables as archives
from ..storage.archives.store import ArchiveStore
from ..storage.database import Transaction
from ..storage.histories import cold
from ..storage.histories import rows as history
from .engine import Engine
from .state.scopes import Scope
from .trees import apart, taking


def delete(engine: Engine, session_id: str) -> None:
    """Delete a session with all its rows and the blobs that only it refers to. Raises SessionError while it is
    active.
    """
    erased = False

    def work(tx: Transaction) -> None:
        nonlocal erased
        if erased and sessions.identity(tx, session_id) is None:
            return  # the COMMIT that broke went in after all
        hot = erasable(engine, tx, session_id)
        if hot.status == "active":
            raise SessionError(f"session {session_id} is active; pause or cancel it before it is deleted")
        erase(engine, tx, session_id, hot.tenant)
        erased = True

    engine.database.write(work)
    if not engine.conversations.capabilities.with_steps:  # else they went with its rows
        engine.conversations.delete(session_id)


def erasable(engine: Engine, tx: Transaction, session_id: str) -> sessions.Hot:
    """Lock a session that is to be deleted. Raises SessionNotFound, and SessionError while it has branches."""
    hot = engine.turn(tx, session_id).hot
    _check_leaf(tx, session_id)
    return hot


def erase(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete a locked session with all its rows and the blobs that only it refers to."""
    hashes = results.blobs_of(tx, session_id) + session_state.blobs_of(tx, session_id)
    hashes += history.blobs_of(tx, session_id) + cold.blobs_of(tx, session_id)
    archived = archives.get(tx, session_id)
    if archived is not None:
        tx.after_commit.append(partial(_remove_archive, engine, archived.file))
    forget_made(engine, tx, session_id, tenant)
    sessions.erase(tx, session_id)
    results.delete_unreferenced(tx, engine.blobs, hashes)
    forget_state(engine, tx, session_id, tenant)


def forget_state(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete the keyed state of a session's own scope, and what migrations keep of it."""
    engine.state.of_tenant(tenant).clear_with(tx, Scope.session(session_id))
    migration_runs.forget_scope(tx, str(Scope.session(session_id)))
    apart.forget(engine, tx, session_id, tenant)


def forget_made(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete what was copied for branches of a session that never came to be; before its own rows go."""
    taking.forget(engine, tx, session_id, tenant)


def _check_leaf(tx: Transaction, session_id: str) -> None:
    """Branches share what their parent has: it stays while there are any."""
    below = trees.children(tx, session_id)
    if below:
        how_many = "a branch" if len(below) == 1 else f"{len(below)} branches, the first"
        raise SessionError(
            f"session {session_id} has {how_many} {below[0].session_id}; delete them first, or all of it: "
            "recursive=True, --recursive"
        )


def _remove_archive(engine: Engine, file: str) -> None:
    ArchiveStore(engine.settings.data_dir / "archives").remove(file)
