"""What takes no part in the transaction in which a session's rows go: its blobs, and what lives elsewhere.

It goes after the commit. Until then the row of the archive says that something may be left, so that what a killed
process left is seen to by the next one.
"""

from __future__ import annotations

from typing import Final

from ...storage import results, sessions
from ...storage.archives import tables as rows
from ...storage.archives.store import ArchiveStore
from ...storage.backup.manifest import HISTORIES
from ...storage.histories.protocol import HistoryConflict
from ..backups.content import Kept
from ..engine import Engine
from . import owned
from .verifying import opened

_BATCH: Final = 100


def settle(engine: Engine, store: ArchiveStore, session_id: str) -> None:
    """Delete what is left of an archived session outside of its archive. Only while its archive is held."""
    row, hot = engine.database.read(lambda tx: (rows.get(tx, session_id), sessions.look(tx, session_id)))
    if row is None or row.settled or hot is None:
        return
    with opened(engine, store, row) as archive:
        kept = Kept(archive, archive.manifest)
        names = [name for name, _ in kept.blobs()]
        part = archive.manifest.part(HISTORIES)
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        engine.database.write(
            lambda tx, batch=batch: results.delete_unreferenced(tx, engine.blobs, batch)  # type: ignore[misc]
        )
    place, whole = owned.history_elsewhere(engine), True
    if place is not None and part is not None:
        try:
            place.delete(session_id, expected=part.rows)
        except HistoryConflict:  # an entry that was on its way when the session was put away: a restore keeps it
            whole = place.count(session_id) == 0
    owned.clear_state(engine, session_id, hot.tenant)
    engine.database.write(lambda tx: rows.settle(tx, session_id, whole))
