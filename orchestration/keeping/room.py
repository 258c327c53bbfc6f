"""Room given back to the disk, after much was deleted."""

from __future__ import annotations

from ...storage import vacuum
from ...storage.batches import Batches
from ...storage.database import Database


def measured(database: Database) -> int:
    """Bytes of SQLite's file, with what its log still held; 0 elsewhere."""
    vacuum.checkpoint(database)  # else the file is smaller than what is in it
    return vacuum.file_bytes(database)


def give_back(database: Database, batches: Batches) -> None:
    """Give the free pages of an SQLite file back, some at a time, where it was made so that it can."""
    if not (database.is_sqlite and vacuum.gives_back(database)):
        return
    for pages in batches.again(vacuum.give_back):
        if not pages:
            break
    vacuum.checkpoint(database)


def kept_back(database: Database) -> str | None:
    """Why a file does not get smaller, where it does not."""
    if not database.is_sqlite:
        return "PostgreSQL gives room back by itself (autovacuum)"
    if vacuum.gives_back(database):
        return None
    return (
        f"the file of the database keeps its {vacuum.free_bytes(database):,} free bytes: an older Celeriac made it. "
        "`celeriac db vacuum` changes that, once"
    )
