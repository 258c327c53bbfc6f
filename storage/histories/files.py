"""Conversations as files: one readable file of JSON lines for each, in one folder; on a local disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ...errors import StorageError
from ..disk import sync_folder
from .protocol import Capabilities, Item, Kept, chosen, grown, named

_HEADS: Final = ".heads"
_SUFFIX: Final = ".jsonl"
_HEAD: Final = "%020d %020d %s"
_HEAD_BYTES: Final = 58
_BLOCK: Final = 1 << 16
# The rest of the line is the entry's own object, without its brace.
_LINE: Final = re.compile(rb'\{"number":(\d+),"timestamp":([0-9.e+-]+)(?:,"_mark":(\d))?[,}]')


class FilePlace:
    """Conversations in files under one folder. An entry is a line, whose file only grows.

    A second file says how much of the first one counts: lines are synced before they count, all of an append at once,
    so a crash leaves none of them or all. What was not to count is cut off by who appends next.
    """

    capabilities = Capabilities(durable=True, shared=True)

    def __init__(self, root: Path) -> None:
        self._root = root
        #: Where reading forward ended last: the head's name, the number of the next entry, and its place in the file.
        self._ends: dict[str, tuple[str, int, int]] = {}

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        return self._append(conversation, items, None)

    def append_after(self, conversation: str, items: Iterable[Item], expected: int) -> tuple[int, int]:
        return self._append(conversation, items, expected)

    def _append(self, conversation: str, items: Iterable[Item], expected: int | None) -> tuple[int, int]:
        with self._held(conversation, fcntl.LOCK_EX) as talk:
            assert talk is not None
            before = talk.entries
            if expected is not None and before != expected:
                raise grown(conversation, expected, before)
            talk.append(items)
            return before + 1, talk.entries

    def load(
        self,
        conversation: str,
        first: int = 1,
        last: int | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        mark: int | None = None,
    ) -> list[Kept]:
        with self._held(conversation, fcntl.LOCK_SH) as talk:
            if talk is None:
                return []
            wanted = chosen(talk.entries, first, last, limit if mark is None else None, newest)
            if not wanted or limit == 0:
                return []
            if newest:
                lines = (one for one in talk.back() if one[0].number < wanted.stop)
                within = (one for one in lines if mark is None or one[1] == mark or one[0].number < wanted.start)
                return _until(within, wanted.start, limit)[::-1]
            return self._forward(talk, conversation, wanted, limit, mark)

    def _forward(
        self, talk: _Talk, conversation: str, wanted: range, limit: int | None, mark: int | None
    ) -> list[Kept]:
        name, number, place = self._ends.get(conversation, ("", 1, 0))
        start = place if name == talk.name and number <= wanted.start else 0
        found: list[Kept] = []
        for kept, its, end in talk.forward(start):
            if kept.number >= wanted.stop or len(found) == limit:
                break
            if kept.number >= wanted.start and (mark is None or its == mark):
                found.append(kept)
            self._ends[conversation] = (talk.name, kept.number + 1, end)
        return found

    def count(self, conversation: str) -> int:
        with self._held(conversation, fcntl.LOCK_SH) as talk:
            return 0 if talk is None else talk.entries

    def delete(self, conversation: str, expected: int | None = None) -> int:
        with self._held(conversation, fcntl.LOCK_EX) as talk:
            assert talk is not None
            found = talk.entries
            if expected is not None and found != expected:
                raise grown(conversation, expected, found)
            talk.name = ""
            talk.confirm(0, 0)
            talk.path.unlink(missing_ok=True)
            self._ends.pop(conversation, None)
            return found

    def conversations(self) -> Iterator[str]:
        with self._explained():
            files = sorted(self._root.glob(f"*{_SUFFIX}")) if self._root.is_dir() else []
        return (name for name in (file.name.removesuffix(_SUFFIX) for file in files) if self.count(name))

    def close(self) -> None:
        """Nothing is open."""

    @contextlib.contextmanager
    def _held(self, conversation: str, lock: int) -> Iterator[_Talk | None]:
        """The conversation's file, locked; None where there is none to be read."""
        path = self._root / f"{named(conversation)}{_SUFFIX}"
        heads = self._root / _HEADS
        with self._explained():
            if lock == fcntl.LOCK_SH and not path.exists():
                yield None
                return
            heads.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(heads / conversation, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, lock)
                yield _Talk.read(path, handle)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise StorageError(f"the histories in {self._root} cannot be used: {fault.strerror or fault}") from fault


@dataclass(slots=True)
class _Talk:
    """One conversation's file, while its head is locked: how many bytes and entries of it count, and a random name that
    it has until it is deleted.
    """

    path: Path
    head: int
    length: int
    entries: int
    name: str

    @classmethod
    def read(cls, path: Path, head: int) -> _Talk:
        """What the head says; of a file that was put there by hand, what it holds."""
        said = os.pread(head, _HEAD_BYTES, 0).decode("ascii", "replace").split()
        if len(said) == 3:
            return cls(path, head, int(said[0]), int(said[1]), said[2])
        if not path.exists():
            return cls(path, head, 0, 0, "")
        talk = cls(path, head, path.stat().st_size, 0, "")
        for kept, _, _ in talk.forward(0):
            talk.entries += 1
            if kept.number != talk.entries:
                raise StorageError(f"line {talk.entries} of {path} is entry {kept.number}; they count from 1")
        return talk

    def append(self, items: Iterable[Item]) -> None:
        is_new = not self.path.exists()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.truncate(self.length)
            file.seek(self.length)
            entries, moment = self.entries, time.time()
            for entries, item in enumerate(items, self.entries + 1):
                file.write(_line(entries, moment, item))
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        if is_new:
            sync_folder(self.path.parent)
        self.confirm(length, entries)

    def confirm(self, length: int, entries: int) -> None:
        """Say durably how much of the file counts."""
        self.name = self.name or secrets.token_hex(8)
        self.length, self.entries = length, entries
        os.pwrite(self.head, (_HEAD % (length, entries, self.name)).encode(), 0)
        os.fsync(self.head)

    def forward(self, start: int) -> Iterator[tuple[Kept, int, int]]:
        """Entries from a place in the file on, with their marks and the places where they end."""
        with self.path.open("rb") as file:
            file.seek(start)
            while start < self.length:
                line = file.readline()
                start += len(line)
                yield *self._parsed(line), start

    def back(self) -> Iterator[tuple[Kept, int]]:
        """Entries from the newest back, with their marks."""
        with self.path.open("rb") as file:
            for line in _lines_back(file, self.length):
                yield self._parsed(line)

    def _parsed(self, line: bytes) -> tuple[Kept, int]:
        head = _LINE.match(line)
        if head is None or not line.endswith(b"}\n"):
            raise StorageError(f"{self.path} is damaged: a line of it is no entry: {line[:60]!r}")
        body = b"{" + line[head.end() : -1] if line[head.end() - 1 : head.end()] == b"," else b"{}"
        return Kept(int(head[1]), float(head[2]), body), int(head[3] or 0)


def _line(number: int, moment: float, item: Item) -> bytes:
    mark = b',"_mark":%d' % item.mark if item.mark else b""
    at = repr(moment if item.at is None else float(item.at)).encode()
    rest = item.body[1:] if item.body == b"{}" else b"," + item.body[1:]
    return b'{"number":%d,"timestamp":%s%s%s\n' % (number, at, mark, rest)


def _lines_back(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines before a place in a file, the last one first."""
    tail, size = b"", _BLOCK
    while end > 0:
        start = max(end - size, 0)
        file.seek(start)
        tail, *lines = (file.read(end - start) + tail).splitlines(keepends=True)
        yield from reversed(lines)
        end, size = start, _BLOCK if lines else size * 2  # a line that is longer than a block
    if tail:
        yield tail


def _until(lines: Iterator[tuple[Kept, int]], first: int, limit: int | None) -> list[Kept]:
    found: list[Kept] = []
    for kept, _ in lines:
        if kept.number < first:
            break
        found.append(kept)
        if len(found) == limit:
            break
    return found
