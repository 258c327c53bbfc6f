"""What waits for the disk, and what need not."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import text

from celeriac.storage.database import Database, Query

_LEVEL = Query(text("PRAGMA synchronous"))
NORMAL, FULL = 1, 2


def test_a_commit_that_need_not_be_synced_leaves_the_next_one_as_it_was(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.db'}")
    levels: list[int] = []
    for synced in (False, True):
        database.write(lambda tx: levels.append(tx.value(_LEVEL)), synced=synced)
        with suppress(ZeroDivisionError):
            database.write(lambda tx: 1 // 0, synced=synced)
        database.write(lambda tx: levels.append(tx.value(_LEVEL)))
    assert levels == [NORMAL, FULL, FULL, FULL]
    database.dispose()
