"""Giving room back to the disk. PostgreSQL does it by itself; SQLite keeps pages that are free until it is told."""

from __future__ import annotations

import contextlib
from typing import Final

from sqlalchemy import text

from ..errors import StorageError
from . import sqlite
from .database import Database, Query, Transaction
from .retries import is_of_driver

#: What `PRAGMA auto_vacuum` says of a database that can give back free pages a few at a time.
_INCREMENTAL: Final = 2
_MODE = Query(text("PRAGMA auto_vacuum"))
_FREE = Query(text("PRAGMA freelist_count"))
_PAGE = Query(text("PRAGMA page_size"))


def gives_back(database: Database) -> bool:
    """Whether free pages can be given back a few at a time: on SQLite where the file was made so."""
    return not database.is_sqlite or database.read(_mode) == _INCREMENTAL


def _mode(tx: Transaction) -> int:
    tx.value(_FREE)  # looks at the file: a connection says what it knew of it before
    return int(tx.value(_MODE))


def free_bytes(database: Database) -> int:
    """Bytes of the free pages of an SQLite file; 0 elsewhere."""
    if not database.is_sqlite:
        return 0
    return database.read(lambda tx: int(tx.value(_FREE)) * int(tx.value(_PAGE)))


def file_bytes(database: Database) -> int:
    """Bytes of an SQLite file without its log; 0 elsewhere."""
    if not database.is_sqlite:
        return 0
    with contextlib.suppress(FileNotFoundError):
        return database.path.stat().st_size
    return 0


def give_back(tx: Transaction, pages: int) -> int:
    """Give up to so many free pages back; gives how many."""
    before = int(tx.value(_FREE))
    tx.rows(text(f"PRAGMA incremental_vacuum({int(pages)})"))
    return before - int(tx.value(_FREE))


def checkpoint(database: Database) -> None:
    """Write SQLite's log into its file, as far as nobody is in the way; nobody waits for that."""
    if not database.is_sqlite:
        return
    with database.connections.busy:
        connection = database.connections.open()
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except Exception as fault:
            if not is_of_driver(fault):
                raise
        finally:
            connection.close()


def vacuum(database: Database) -> tuple[int, int]:
    """Write an SQLite file anew without its free pages, and so that it gives room back from then on; gives its bytes
    before and after. Who writes waits meanwhile. Raises StorageError.
    """
    if not database.is_sqlite:
        raise StorageError(f"{database.shown} gives room back by itself (autovacuum); there is nothing to do")
    checkpoint(database)
    before = file_bytes(database)
    connections = database.connections
    with connections.busy, sqlite.through(connections.gate):
        connection = connections.open()  # whose settings ask for INCREMENTAL
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except Exception as fault:
            if is_of_driver(fault):
                raise StorageError(f"{database.shown} was not vacuumed: {fault}") from fault
            raise
        finally:
            connection.close()
    return before, file_bytes(database)
