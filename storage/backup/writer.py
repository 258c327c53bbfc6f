"""A change of nearly all of a SQLite file, in one transaction, by a process of its own.

While this one reads, checks and unpacks what a backup has, the other one inserts it. Threads of one process would not:
each row that is inserted lets go of the interpreter's lock for a moment, too short for another thread to take it, and
so the one that reads would get hardly anything done meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ...errors import BackupDamaged, StorageError
from .. import sqlite
from ..database import Database
from .inserting import (
    CHUNK,
    COMMIT,
    DAMAGED,
    DONE,
    HEADER,
    INTO,
    LENT,
    MEMORY,
    REFUSED,
    RETURNED,
    STATEMENT,
    Places,
)
from .wrapping import Bytes

#: The other side imports from where this one does.
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {__package__}.inserting import main; main(sys.argv[2], int(sys.argv[3]))"
)
#: As much as may be on its way, in bytes, where the system allows it: about a chunk.
_PIPE_BYTES: Final = 1 << 20
_PACK = msgspec.msgpack.encode


class NotStarted(Exception):
    """The process did not come up."""


class Found(list[list[Any]]):
    """The rows of a statement, as cursors give them."""

    def fetchone(self) -> list[Any] | None:
        """The first row, or None."""
        return self[0] if self else None

    def fetchall(self) -> list[list[Any]]:
        """All rows."""
        return self


class Writer:
    """The transaction, used as a connection of the driver. Raises StorageError for what the database refuses, also for
    what was asked for before.
    """

    def __init__(self, path: Path) -> None:
        memory = _memory()
        command = [sys.executable or "", "-c", _PROGRAM, json.dumps(sys.path), str(path), str(memory)]
        pipe = subprocess.PIPE
        try:
            self._memory = mmap.mmap(memory, MEMORY)
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, pass_fds=[memory])
        except OSError as fault:
            raise NotStarted from fault
        finally:
            os.close(memory)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asking, self._answers = self._process.stdin, self._process.stdout
        #: Of the process that inserts.
        self.pid = self._process.pid
        self._places = Places()
        self._lent: deque[slice] = deque()
        self._into = ""
        with contextlib.suppress(AttributeError, OSError):
            fcntl.fcntl(self._asking, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        if not select.select([self._answers], [], [], None)[0] or not (opened := self._read(HEADER.size)):
            self.close()
            raise NotStarted
        self._understood(*HEADER.unpack(opened))

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Found:
        """Run a statement; gives all of its rows."""
        self._ask(STATEMENT, _PACK([text, values]))
        return self._answer()

    def executemany(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an INSERT of one row, whose text ends with its values, for each of the rows."""
        if rows := list(rows):
            chunk = _PACK(rows)
            self.insert(text, len(rows[0]), len(rows), len(chunk), [chunk])

    def insert(self, text: str, width: int, count: int, size: int, bits: Iterable[Bytes]) -> None:
        """As `executemany`, for the `count` rows of a chunk, with `width` values each. The chunk comes bit by bit, and
        has `size` bytes. Raises BackupDamaged, for this chunk or for one before.
        """
        if text != self._into:
            self._ask(INTO, _PACK([text, width]))
            self._into = text
        if size <= MEMORY:
            self._lend(count, size, bits)
        else:
            self._ask(CHUNK, b"".join(bits), count)
        while select.select([self._answers], [], [], 0)[0]:
            self._hear()

    def _lend(self, count: int, size: int, bits: Iterable[Bytes]) -> None:
        """Lay a chunk into its place in the memory, once what lay there has been read."""
        place = self._places.next(size)
        while any(place.start < lent.stop and lent.start < place.stop for lent in self._lent):
            self._hear()
        at = place.start
        for bit in bits:
            self._memory[at : at + len(bit)] = bit
            at += len(bit)
        self._lent.append(place)
        self._send(HEADER.pack(LENT, size, count))

    def commit(self) -> None:
        """Commit the transaction."""
        self._ask(COMMIT, b"")
        self._answer()

    def close(self) -> None:
        """End the process; what was not committed is not in."""
        self._asking.close()
        self._answers.close()
        self._process.wait()
        self._memory.close()

    def _ask(self, kind: int, body: bytes, rows: int = 0) -> None:
        self._send(HEADER.pack(kind, len(body), rows))
        self._send(body)

    def _send(self, frame: bytes) -> None:
        left = memoryview(frame)
        try:
            while left:
                left = left[os.write(self._asking.fileno(), left) :]
        except BrokenPipeError:
            self._answer()  # says why, or that it is gone
            raise

    def _answer(self) -> Found:
        while (found := self._hear()) is None:
            pass
        return found

    def _hear(self) -> Found | None:
        """The next answer; None for one that only says that a chunk has been read."""
        header = self._read(HEADER.size)
        if header is None:
            raise StorageError(f"the process that wrote the database has ended with {self._process.wait()}")
        return self._understood(*HEADER.unpack(header))

    def _understood(self, kind: int, size: int, _rows: int) -> Found | None:
        body = self._read(size) or b""
        if kind == RETURNED:
            self._lent.popleft()
            return None
        if kind == DONE:
            return Found(msgspec.msgpack.decode(body))
        text = body.decode(errors="replace")
        if kind == DAMAGED:
            raise BackupDamaged(text)
        raise StorageError(f"the database refused: {text}" if kind == REFUSED else text)

    def _read(self, size: int) -> bytes | None:
        found = b""
        while len(found) < size:
            more = self._answers.read(size - len(found))
            if not more:
                return None
            found += more
        return found


def _memory() -> int:
    """A file for chunks, which is memory alone: what it holds may be sealed elsewhere. Raises NotStarted."""
    try:
        memory = os.memfd_create("celeriac-restore")
    except (AttributeError, OSError) as fault:
        raise NotStarted from fault
    try:
        os.ftruncate(memory, MEMORY)
    except OSError as fault:
        os.close(memory)
        raise NotStarted from fault
    return memory


@contextlib.contextmanager
def apart(database: Database) -> Iterator[Writer]:
    """A transaction on SQLite that changes all, as `transactions.alone` is one, in a process of its own. Raises
    NotStarted, before anything is done.
    """
    connections = database.connections
    connections.let_go()
    with connections.busy, sqlite.through(connections.gate):
        writer = Writer(database.path)
        try:
            yield writer
            writer.commit()
        finally:
            writer.close()
