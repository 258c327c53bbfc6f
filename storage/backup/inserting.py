"""A transaction on a SQLite file in a process of its own, told what to do over a pipe: the side that writes.

`writer.py` is the other side, and says why there are two. What it sends are frames: a kind, two numbers, and bytes,
which for most chunks lie in memory that both sides see. If the pipe ends before a COMMIT was asked for, whatever ended
it, nothing of the transaction is in.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import signal
import struct
import sys
import threading
import time
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec

from ...errors import BackupDamaged
from .. import sqlite
from ..retries import is_of_driver
from .chunking import MOST, rows_of

#: Kind, length of the bytes that follow, and of a chunk: how many rows it has.
HEADER: Final = struct.Struct(">BQQ")
#: Asked for: a statement with its values (msgpack); where the chunks that follow go: an INSERT and the number of its
#: values (msgpack); a chunk of rows; one that lies in the memory, in its turn; the COMMIT.
STATEMENT, INTO, CHUNK, LENT, COMMIT = range(5)
#: Answered: rows (msgpack); what the driver refused, what is damaged, and what else went wrong, as text; that the first
#: of the chunks in the memory has been read. The opened transaction is answered too; a chunk, if it was not inserted.
DONE, REFUSED, DAMAGED, FAILED, RETURNED = range(5)

#: Bytes of the memory that both sides see: while one chunk is inserted, the next ones are made, about eight of them.
MEMORY: Final = 2 * MOST

#: Pages kept in memory: an index that does not fit is read and written again and again.
CACHE_KIB: Final = 32_000
#: Rows that one INSERT puts in.
ROWS_AT_ONCE: Final = 25
#: How often what has been written is sent to the disk.
SYNC_SECONDS: Final = 0.1

_PACK = msgspec.msgpack.encode
_UNPACK = msgspec.msgpack.decode


def connect(path: Path) -> Any:
    """A connection to a SQLite file, set up as all are: of `apsw`, if it is there, whose inserts take half of the time.
    No other process may have both libraries at one file: closing it with one would let go of the other's locks.
    """
    try:
        import apsw
    except ImportError:
        return _with_standard(path)
    major, minor, patch = map(int, apsw.sqlite_lib_version().split(".")[:3])
    if not sqlite.is_sound((major, minor, patch)) or "ENABLE_FTS5" not in apsw.compile_options:
        return _with_standard(path)
    connection = apsw.Connection(str(path))
    sqlite.set_up(connection)
    return connection


def _with_standard(path: Path) -> Any:
    connection = sqlite.library().connect(str(path))
    sqlite.prepare(connection)
    return connection


class Places:
    """Where chunks lie in the memory: one behind the other, and then from its start again. Both sides work it out."""

    def __init__(self) -> None:
        self._end = 0

    def next(self, size: int) -> slice:
        """The place of the next chunk, of so many bytes."""
        start = self._end if self._end + size <= MEMORY else 0
        self._end = start + size
        return slice(start, self._end)


class Inserter:
    """Does what it is told on one connection, and answers."""

    def __init__(self, connection: Any, asked: int, answered: int, memory: memoryview) -> None:
        self._connection = connection
        self._asked = asked
        self._answered = answered
        self._memory = memory
        self._places = Places()
        self._buffer = memoryview(bytearray(1 << 16))
        self._into = self._into_many = ""
        self._width = 0

    def serve(self) -> None:
        """Open the transaction; then do what is asked for until the COMMIT, or until nobody asks any more."""
        try:
            sqlite.leave_log(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            self._answer(DONE, _PACK([]))
            while (asked := self._next()) is not None:
                kind, body, rows = asked
                self._do(kind, body, rows)
        except BackupDamaged as fault:
            self._answer(DAMAGED, str(fault).encode())
        except OSError as fault:  # the other side is gone
            raise SystemExit(1) from fault
        except Exception as fault:
            self._answer(REFUSED if is_of_driver(fault) else FAILED, f"{type(fault).__name__}: {fault}".encode())
        finally:
            self._connection.close()

    def _do(self, kind: int, body: memoryview, rows: int) -> None:
        if kind in (CHUNK, LENT):
            found = rows_of(body, self._width)
            if kind == LENT:
                self._answer(RETURNED, b"")
            if len(found) != rows:
                raise BackupDamaged(f"a chunk has {len(found)} rows, its manifest names {rows}")
            self._insert(found)
        elif kind == INTO:
            self._into, self._width = _UNPACK(body)
            # A row that is refused ends the transaction: so SQLite keeps no journal of the statement.
            start, _, values = self._into.replace("INSERT", "INSERT OR ROLLBACK", 1).rpartition("(")
            self._into_many = start + ", ".join([f"({values}"] * ROWS_AT_ONCE)
        elif kind == STATEMENT:
            text, values = _UNPACK(body)
            self._answer(DONE, _PACK(self._connection.execute(text, values).fetchall()))
        else:
            self._connection.execute("COMMIT")
            self._answer(DONE, _PACK([]))

    def _insert(self, rows: list[list[Any]]) -> None:
        """Many rows by one INSERT, the rest one by one."""
        rest = len(rows) % ROWS_AT_ONCE
        self._connection.executemany(self._into, rows[:rest])
        values = list(chain.from_iterable(rows[rest:]))
        many = ROWS_AT_ONCE * self._width
        self._connection.executemany(
            self._into_many, (values[start : start + many] for start in range(0, len(values), many))
        )

    def _next(self) -> tuple[int, memoryview, int] | None:
        """The next frame; None if there comes none."""
        header = self._read(HEADER.size)
        if header is None:
            return None
        kind, size, rows = HEADER.unpack(header)
        # What lies in the memory stands until it is said to be read.
        body = self._memory[self._places.next(size)] if kind == LENT else self._read(size)
        return None if body is None else (kind, body, rows)

    def _read(self, size: int) -> memoryview | None:
        """So many bytes, which stand until the next are read; None if the pipe ends before."""
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        wanted = self._buffer[:size]
        have = 0
        while have < size:
            got = os.readv(self._asked, [wanted[have:]])
            if not got:
                return None
            have += got
        return wanted

    def _answer(self, kind: int, body: bytes) -> None:
        left = memoryview(HEADER.pack(kind, len(body), 0) + body)
        while left:
            left = left[os.write(self._answered, left) :]


def _send_to_disk(file: int) -> None:
    """Let the disk begin with what has been written: the COMMIT waits for the rest only."""
    while True:
        time.sleep(SYNC_SECONDS)
        with contextlib.suppress(OSError):  # the COMMIT's own look at the disk says what is wrong
            os.fsync(file)


def main(path: str, memory: int) -> None:
    """Serve what is asked on the standard input, in this process, on a database; `memory`: of what both see."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side decides: it ends the pipe
    gc.disable()  # rows come and go by the million, without cycles
    answered = os.dup(1)
    os.dup2(2, 1)  # what anything prints is no answer
    sys.stdout = sys.stderr
    connection = connect(Path(path))
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}").fetchall()
    # Never closed: that would let go of the locks that SQLite has on the file (reliability: S3).
    threading.Thread(target=_send_to_disk, args=(os.open(path, os.O_RDONLY | os.O_CLOEXEC),), daemon=True).start()
    seen = mmap.mmap(memory, MEMORY, prot=mmap.PROT_READ)
    Inserter(connection, 0, answered, memoryview(seen)).serve()
