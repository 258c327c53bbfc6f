"""State in RocksDB (`pip install celeriac[rocksdb]`): quick and durable, for one process at a time."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import StorageError
from .protocol import Capabilities, Entry, Origin, StateError, Watch, Write, beyond, conflict

if TYPE_CHECKING:
    from rocksdict import Rdict

#: version, moment at which its time is over (0: never), length of meta
_HEADER = struct.Struct(">QdI")
#: The highest version that was given, written with every change. No scope is empty, so no value has this key.
_LAST = b"\0"


class RocksBackend:
    """Values in one folder, keyed `scope NUL key`, which neither can hold: ordered, and never mixed up.

    A write is in RocksDB's log when it returns: it outlives the process, and the machine's power only once the system
    has written it (within seconds). The folder is opened at the first use, and by one process only.
    """

    capabilities = Capabilities(durable=True, shared=False)

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._db: Rdict | None = None
        self._pid = 0
        self._version = 0
        self._batch: Any = None
        # Also keeps `close` from pulling the database away under a reader.
        self._lock = threading.Lock()

    def _open(self) -> Rdict:
        if self._db is not None:
            if self._pid == os.getpid():
                return self._db
            raise StateError(f"RocksDB {self._folder} was opened before this process forked; it is for one process")
        try:
            from rocksdict import Options, Rdict, WriteBatch
        except ImportError:
            raise StateError("state in RocksDB needs `pip install celeriac[rocksdb]`") from None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            db = Rdict(str(self._folder), Options(raw_mode=True))
        except Exception as fault:
            raise StorageError(
                f"RocksDB {self._folder} cannot be opened (by one process at a time): {fault}"
            ) from fault
        last = db.get(_LAST)
        self._version = max(int.from_bytes(last or b"", "big"), time.time_ns() // 1000)
        self._batch, self._db, self._pid = WriteBatch, db, os.getpid()
        return db

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        with self._lock:
            db, head = self._open(), scope.encode() + b"\0"
            found = {key: _read(db.get(head + key.encode())) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        head = scope.encode() + b"\0"
        with self._lock:
            db = self._open()
            batch = self._batch(raw_mode=True)
            versions = []
            last = self._version
            for write in writes:
                at = head + write.key.encode()
                known = _read(db.get(at)) if write.expected is not None or write.body is None else None
                found = known.version if known is not None else 0
                if write.expected is not None and write.expected != found:
                    raise conflict(scope, write.key, write.expected, found)
                last += 1
                versions.append(last if write.body is not None or known is not None else 0)
                if write.body is None:
                    batch.delete(at)
                else:
                    batch.put(at, _packed(write, write.body, last))
            batch.put(_LAST, last.to_bytes(8, "big"))
            db.write(batch)
            self._version = last
        return versions

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        head = scope.encode() + b"\0"
        start = head + max(prefix, after).encode()
        top = beyond(prefix)
        end = scope.encode() + b"\1" if top is None else head + top.encode()
        found: list[str] = []
        past = []
        with self._lock:
            db = self._open()
            cursor = db.iter()
            cursor.seek(start)
            while cursor.valid() and (limit is None or len(found) < limit):
                at: Any = cursor.key()
                if at >= end:
                    break
                if at != start or not after or prefix > after:
                    value: Any = cursor.value()
                    if _read(value) is not None:
                        found.append(at[len(head) :].decode())
                    else:
                        past.append(at)
                cursor.next()
            for at in past:
                db.delete(at)
        return found

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        with self._lock:
            db, head = self._open(), scope.encode() + b"\0"
            found: dict[str, Any] = {key: db.get(head + key.encode()) for key in keys}
        moment = time.time()
        until = {key: _HEADER.unpack_from(value)[1] for key, value in found.items() if value is not None}
        return {key: over - moment for key, over in until.items() if over > moment}

    def scopes(self) -> list[str]:
        found: list[str] = []
        with self._lock:
            cursor = self._open().iter()
            cursor.seek(b"\1")  # no scope is empty: what comes before is ours
            while cursor.valid():
                at: Any = cursor.key()
                scope, _, _ = at.partition(b"\0")
                found.append(scope.decode())
                cursor.seek(scope + b"\1")
        return found

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        count = len(self.keys(scope))
        with self._lock:
            batch = self._batch(raw_mode=True)
            batch.delete_range(scope.encode() + b"\0", scope.encode() + b"\1")
            self._open().write(batch)
        return count

    def watch(self) -> Watch | None:
        return None

    def close(self) -> None:
        with self._lock:
            if self._db is not None and self._pid == os.getpid():
                self._db.close()
            self._db = None


def _packed(write: Write, body: bytes, version: int) -> bytes:
    meta = write.meta.encode()
    until = time.time() + write.ttl if write.ttl is not None else 0.0
    return _HEADER.pack(version, until, len(meta)) + meta + body


def _read(value: Any) -> Entry | None:
    """The entry of a stored value; None where there is none, or its time is over."""
    if value is None:
        return None
    version, until, length = _HEADER.unpack_from(value)
    if until and until <= time.time():
        return None
    start = _HEADER.size + length
    return Entry(value[start:], version, value[_HEADER.size : start].decode(), bool(until))
