"""Seeing to it that what was deleted is gone from the database's files as well, as far as that is ours to do."""

from __future__ import annotations

import time
from typing import Any, Final

from ..errors import StorageError
from . import sqlite
from .database import Database
from .retries import is_of_driver

#: Who reads is waited for so long, in seconds, before the write-ahead log can be emptied.
_PATIENCE: Final = 10.0


def scrub(database: Database) -> list[str]:
    """Write the database anew without what was deleted; gives what is left of that, in words, for which others have to
    do something. Writers wait meanwhile (SQLite) or do not (PostgreSQL). Raises StorageError.
    """
    connection = database.connections.open()
    try:
        return _sqlite(database, connection) if database.is_sqlite else _postgresql(connection)
    except Exception as fault:
        if is_of_driver(fault):
            raise StorageError(f"the database cannot be cleaned: {type(fault).__name__}: {fault}") from fault
        raise
    finally:
        connection.close()


def _sqlite(database: Database, connection: Any) -> list[str]:
    connection.execute("PRAGMA temp_store=FILE")  # else the whole database would be copied into memory
    with sqlite.through(database.connections.gate):
        # The index keeps the words of deleted texts until its parts are merged.
        connection.execute("INSERT INTO session_search(session_search) VALUES('optimize')")
        connection.execute("VACUUM")
        until = time.monotonic() + _PATIENCE
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > until:
                return ["the write-ahead log of the database, until no reader needs it: run erase again"]
            time.sleep(0.05)
    return []


def _postgresql(connection: Any) -> list[str]:
    connection.execute("SET statement_timeout = 0")
    connection.execute("VACUUM")
    return ["free space in PostgreSQL's files, until it is used again or VACUUM FULL; its log, until that is recycled"]
