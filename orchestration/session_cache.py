"""Copies of what reading a session costs, in this process: checked against the session's row before each use.

Every write to a session raises what `storage.sessions.version` reads (the number of its last event, of its last
checkpoint, the time of its last change), in the same transaction. So a read takes one short query, and what it gives is
as of now, whichever process wrote last. Two kinds of writes go past that row, and nothing of theirs is kept: progress
of running steps is read anew, and what holds sealed fields, which new keys are put on, is not kept at all.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from cachetools import TLRUCache

from ..errors import CeleriacError, SessionNotFound
from ..storage import graph, serial, sessions, steps
from ..storage.archives import tables as archives
from ..storage.database import Database, Transaction

T = TypeVar("T")
Version = tuple[Any, ...]
#: JSON by name of the part; None for one that is not kept.
Parts = dict[str, bytes | None]

#: A part of a session (its steps, its result ...) of more bytes of JSON than this is read anew each time.
MOST_PART_BYTES: Final = 64 * 1024
#: But its steps may be so many bytes.
MOST_STEPS_BYTES: Final = 1024 * 1024
#: Bytes of JSON that one process keeps; those whose use is longest ago go first.
MOST_BYTES: Final = 64 * 1024 * 1024
#: What a copy takes beside its JSON, about, in bytes.
_OVERHEAD: Final = 1000
_SEALED: Final = b"$sealed"


class Copy(msgspec.Struct, frozen=True):
    """Parts of a session as they were at one version of it."""

    version: Version
    parts: Parts
    until: float
    size: int


class Reading:
    """One read of a session, in one transaction: its parts come from the copy, or else from the database."""

    def __init__(self, tx: Transaction, session_id: str, version: Version, kept: Parts) -> None:
        self.tx = tx
        self.id = session_id
        self.version = version
        #: What was read from the database.
        self.found: Parts = {}
        #: Whether any part was asked for, and whether all came from the copy.
        self.asked = False
        self.from_copy = True
        self._kept = kept

    def part(self, name: str, load: Callable[[Transaction], T], most: int = MOST_PART_BYTES) -> T:
        """That part of the session, JSON-able and the caller's own; `load` reads it from the database.

        It is kept if it is of at most so many bytes of JSON.
        """
        self.asked = True
        known = self._kept.get(name)
        if known is not None:
            value: T = serial.decode(known)
            return value
        self.from_copy = False
        value = load(self.tx)
        if name not in self._kept:
            self.found[name] = _packed(value, most)
        return value

    @property
    def status(self) -> str:
        """The session's status."""
        return str(self.version[-1])

    def archive(self) -> archives.Row | None:
        """Where its archive is, if it is in one; not kept, since two archives of a session may have one version."""
        return archives.get(self.tx, self.id) if self.status == "archived" else None

    def steps(self) -> list[dict[str, Any]]:
        """The rows of its steps as `graph.overview` gives them, with the progress of running ones as it is now."""
        rows = self.part("steps", lambda tx: graph.overview(tx, self.id), MOST_STEPS_BYTES)
        running = [row for row in rows if row["status"] == "running"] if self._kept.get("steps") is not None else []
        now = steps.progress(self.tx, self.id) if running else {}
        if any(row["number"] not in now for row in running):  # it has ended since the version was read
            return graph.overview(self.tx, self.id)
        for row in running:
            row["progress"], row["task"] = now[row["number"]]
        return rows


def _packed(value: Any, most: int) -> bytes | None:
    try:
        body = serial.encode(value, limit=most)
    except CeleriacError:  # too large, or nothing that reads back equal
        return None
    return None if _SEALED in body else body


class SessionCache:
    """Copies by session id, bounded in number, bytes and age. Safe in threads and across forks. 0 entries: none."""

    def __init__(self, entries: int, seconds: float) -> None:
        self.entries = entries
        self.seconds = seconds
        self.start()
        _all.add(self)

    def start(self) -> None:
        """Forget everything; with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._kept: TLRUCache[str, Copy] = TLRUCache(
            MOST_BYTES, ttu=lambda _, copy, __: copy.until, getsizeof=lambda copy: copy.size
        )
        self._hits = self._misses = 0

    def read(self, database: Database, session_id: str, work: Callable[[Reading], T]) -> T:
        """What `work` makes of the session as it is now. Raises SessionNotFound."""

        def transaction(tx: Transaction) -> tuple[T, Reading]:
            reading = self._opened(tx, session_id)
            return work(reading), reading

        result, reading = database.read(transaction)
        if self.entries and reading.asked:
            self._note(reading)
        return result

    def _opened(self, tx: Transaction, session_id: str) -> Reading:
        version = sessions.version(tx, session_id)  # first, so that what is read after it is never older than it
        if version is None:
            self.forget(session_id)
            raise SessionNotFound(f"no session {session_id!r}")
        with self._lock:
            copy = self._kept.get(session_id)
        return Reading(tx, session_id, version, copy.parts if copy is not None and copy.version == version else {})

    def _note(self, reading: Reading) -> None:
        with self._lock:
            self._hits += reading.from_copy
            self._misses += not reading.from_copy
            if reading.found:
                self._keep(reading)

    def _keep(self, reading: Reading) -> None:
        kept, key = self._kept, reading.id
        before = kept.get(key)
        same = before is not None and before.version == reading.version
        parts = {**before.parts, **reading.found} if before is not None and same else reading.found
        until = before.until if before is not None and same else time.monotonic() + self.seconds
        size = _OVERHEAD + sum(len(body) for body in parts.values() if body is not None)
        kept.pop(key, None)
        if size <= MOST_BYTES:
            kept[key] = Copy(reading.version, parts, until, size)
        while len(kept) > self.entries:
            kept.popitem()

    def forget(self, session_id: str) -> None:
        """Drop the copy of a session that is gone."""
        with self._lock:
            self._kept.pop(session_id, None)

    def stats(self) -> dict[str, Any]:
        """Of this process: copies and their bytes, how many reads they answered whole, and how many not."""
        with self._lock:
            self._kept.expire()
            hits, misses = self._hits, self._misses
            return {
                "entries": len(self._kept),
                "most_entries": self.entries,
                "bytes": int(self._kept.currsize),
                "hits": hits,
                "misses": misses,
                "hit_rate": round(hits / (hits + misses), 4) if hits + misses else 0.0,
            }


_all: weakref.WeakSet[SessionCache] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for cache in list(_all):
        cache.start()


os.register_at_fork(after_in_child=_after_fork_in_child)
