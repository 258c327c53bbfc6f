"""SQLite as Celeriac needs it: a sound library, safe pragmas, and a gate that lets writers queue instead of sleep."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .retries import is_of_driver

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


_NOTHING: dict[None, None] = {None: None}


def prepare(connection: Any, _record: Any = None) -> None:
    """Set up a fresh connection. FULL, because a commit acknowledges a result; no mmap (it widens the WAL-reset
    bug).
    """
    # None and bytes are stored as they are, but the binding looks for an adapter of each, and where it finds none it
    # raises and drops two AttributeErrors: more than the rest of an insert costs. These give back what they are given.
    library().register_adapter(type(None), _NOTHING.get)
    library().register_adapter(bytes, bytes)
    connection.isolation_level = None  # we say BEGIN IMMEDIATE and BEGIN ourselves (reliability: S1, S11)
    set_up(connection)


def set_up(connection: Any) -> None:
    """Set the pragmas of a fresh connection, of whatever binding."""
    sound = is_sound(library().sqlite_version_info)
    for pragma in (
        "busy_timeout=10000",
        "auto_vacuum=INCREMENTAL",  # of a new file, and so before anything is written to it
        f"journal_mode={'WAL' if sound else 'DELETE'}",
        "synchronous=FULL",
        "mmap_size=0",
        "temp_store=MEMORY",
        "cache_size=-16000",
        "wal_autocheckpoint=4000",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def leave_log(connection: Any) -> None:
    """Let a connection write with a rollback journal, if it is the only one. The next one that is opened sets up the
    log again (`set_up`).
    """
    connection.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    except Exception as fault:
        if not is_of_driver(fault):
            raise
    connection.execute("PRAGMA busy_timeout=10000").fetchall()


#: How long the first in the queue looks for the gate to open before it sleeps, in seconds: to be woken takes about as
#: long as a short transaction.
SPIN_SECONDS = 0.0005 if (os.cpu_count() or 1) > 1 else 0.0


_AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB


class WriteGate:
    """One writer at a time, waiting in the kernel.

    SQLite's own busy handler sleeps 1 to 100 ms between tries; with two busy workers most of the time is slept away.
    A lock on a file *beside* the database (never on the database itself: reliability S3) wakes the next writer at
    once. It is a courtesy, not the guard: BEGIN IMMEDIATE still decides, so a process without the gate does no harm.
    Only the first of those who wait stays awake and looks for the gate to open; the others sleep at a second lock.
    It is used with `thread` held.
    """

    def __init__(self, path: Path) -> None:
        self._paths = (path, path.with_name(path.name + "-turn"))
        #: One thread of this process at a time.
        self.thread = threading.Lock()
        self._files: list[int] = []

    def handle(self) -> int:
        """The gate's file, which a writer locks with `lock` and unlocks with `flock(handle, LOCK_UN)`."""
        files = self._files
        while len(files) < 2:
            files.append(os.open(self._paths[len(files)], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return files[0]

    def lock(self) -> None:
        """Wait until the gate is ours. Also when this raises, it may be: it must be unlocked then as well."""
        try:
            fcntl.flock(self._files[0], _AT_ONCE)
        except OSError:
            _lock_in_turn(*self._files)

    def close(self) -> None:
        """Close the files; the next writer opens them again."""
        with self.thread:
            while self._files:
                os.close(self._files.pop())

    def forget(self) -> None:
        """After a fork: the inherited files share the parent's locks, so open our own."""
        self.thread = threading.Lock()
        self.close()


@contextlib.contextmanager
def through(gate: WriteGate | None) -> Iterator[None]:
    """Hold the gate, for what is not done in a transaction of `Database`; nothing where there is none."""
    if gate is None:
        yield
        return
    with gate.thread:
        handle = gate.handle()
        try:
            gate.lock()
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _locked_at_once(gate: int) -> bool:
    try:
        fcntl.flock(gate, _AT_ONCE)
    except OSError:
        return False
    return True


def _lock_in_turn(gate: int, turnstile: int) -> None:
    try:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        until = time.perf_counter() + SPIN_SECONDS
        while time.perf_counter() < until:
            if _locked_at_once(gate):
                return
            os.sched_yield()
        fcntl.flock(gate, fcntl.LOCK_EX)
    finally:
        fcntl.flock(turnstile, fcntl.LOCK_UN)
