"""Sessions with all that branched from them: put away from below, brought back from above."""

from __future__ import annotations

from collections.abc import Callable

from ...storage.archives import tables as rows
from ...storage.archives.store import ArchiveStore
from ..engine import Engine
from ..trees.branching import below
from . import making, restoring

#: Raises where one may not go on with a session.
May = Callable[[str], None]


def create(engine: Engine, session_id: str, may: May) -> rows.Row:
    """Put a session away, and before it all that is below it and is not archived yet; gives where it is then.

    Raises what `making.create` raises, before anything is put away if something goes on in any of them. They go one by
    one: where this is broken off, what has gone is in archives, and the rest can be put away later.
    """
    ids = [*_chosen(engine, below(engine, session_id), archived=False), session_id]
    for one in ids:
        may(one)
        engine.database.write(lambda tx, one=one: making.at_rest(tx, one))  # type: ignore[misc]
    return [making.create(engine, one) for one in ids][-1]


def restore(engine: Engine, store: ArchiveStore, session_id: str, may: May) -> None:
    """Bring back what is archived of a session and all below it. Raises what `restoring.restore` raises."""
    ids = _chosen(engine, [session_id, *reversed(below(engine, session_id))], archived=True) or [session_id]
    for one in ids:
        may(one)
    for one in ids:
        restoring.restore(engine, store, one)


def _chosen(engine: Engine, ids: list[str], archived: bool) -> list[str]:
    """Those of the sessions that are in archives, or those that are not."""
    return engine.database.read(lambda tx: [one for one in ids if (rows.get(tx, one) is not None) is archived])
