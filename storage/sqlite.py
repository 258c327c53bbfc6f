"""SQLite as Celeriac needs it: a sound library, safe pragmas, and a gate that lets writers queue instead of sleep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

#: Releases that carry the fix of the WAL-reset bug (reliability: S2): this version and later, and these backports.
_FIXED = (3, 51, 3)
_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def is_sound(version: tuple[int, int, int]) -> bool:
    """Whether that SQLite version is free of the WAL-reset bug (3.7.0 to 3.51.2, but for two backports)."""
    backport = _BACKPORTS.get(version[:2])
    return version >= _FIXED or (backport is not None and version[2] >= backport)


def library() -> ModuleType:
    """The SQLite binding in use: the standard library's if sound, else `pysqlite3` if sound, else the standard one."""
    if is_sound(sqlite3.sqlite_version_info):
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2 if is_sound(dbapi2.sqlite_version_info) else sqlite3


def describe() -> dict[str, Any]:
    """Which SQLite is in use and why, for `doctor`: {module, version, sound, journal_mode}."""
    module = library()
    sound = is_sound(module.sqlite_version_info)
    return {
        "module": module.__name__.partition(".")[0],
        "version": module.sqlite_version,
        "sound": sound,
        "journal_mode": "WAL" if sound else "DELETE",
    }


def prepare(connection: Any, _record: Any = None) -> None:
    """Set up a fresh connection. FULL, because a commit acknowledges a result; no mmap (it widens the WAL-reset
    bug).
    """
    connection.isolation_level = None  # we say BEGIN IMMEDIATE and BEGIN ourselves (reliability: S1, S11)
    sound = is_sound(library().sqlite_version_info)
    for pragma in (
        "busy_timeout=10000",
        f"journal_mode={'WAL' if sound else 'DELETE'}",
        "synchronous=FULL",
        "mmap_size=0",
        "temp_store=MEMORY",
        "cache_size=-16000",
        "wal_autocheckpoint=4000",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


class WriteGate:
    """One writer at a time, waiting in the kernel.

    SQLite's own busy handler sleeps 1 to 100 ms between tries; with two busy workers most of the time is slept away.
    A lock on a file *beside* the database (never on the database itself: reliability S3) wakes the next writer at
    once. It is a courtesy, not the guard: BEGIN IMMEDIATE still decides, so a process without the gate does no harm.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._file = -1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the gate for the length of one write transaction."""
        with self._thread:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Inside the `try`: an exception from outside can be raised as soon as the call returns.
                fcntl.flock(self._file, fcntl.LOCK_EX)
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def forget(self) -> None:
        """After a fork: the inherited file shares the parent's lock, so open one of our own."""
        self._thread = threading.Lock()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
