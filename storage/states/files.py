"""State as files: one readable JSON file for each key, one folder for each scope."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote

from ...errors import StorageError
from .. import serial
from ..disk import sync_folder
from .protocol import Capabilities, Entry, Origin, Watch, Write, conflict, selected

#: Names of more characters are cut, and told apart by a hash.
_LONGEST_NAME: Final = 180
_UNSAFE: Final = re.compile(rb"[^a-z0-9_.-]")
_LOCK: Final = ".lock"
_JOURNAL: Final = ".journal"
_TEMPORARY: Final = ".tmp-"


class FileBackend:
    """Values in files under one folder, changed under a lock on the scope's folder; on a local disk.

    A file appears whole or not at all: written aside, synced, renamed. Several changes at once are first written down
    in a journal; who comes next finishes what a crash left. The lock's file holds the last version that was given.
    """

    capabilities = Capabilities(durable=True, shared=True)

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        with self._held(scope, "read") as folder:
            if folder is None:
                return {}
            found = {key: folder.entry(key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        with self._held(scope, "write") as folder:
            assert folder is not None
            return folder.put(writes)

    def change(
        self, scope: str, key: str, work: Callable[[Entry | None], Write], origin: Origin | None = None
    ) -> tuple[Write, int]:
        with self._held(scope, "write") as folder:
            assert folder is not None
            write = work(folder.entry(key))
            return write, folder.put([write])[0]

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        with self._held(scope, "read") as folder:
            return [] if folder is None else list(selected(sorted(folder.keys()), prefix, after, limit))

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        with self._held(scope, "read") as folder:
            found = {key: folder.until(key) for key in keys} if folder is not None else {}
        moment = time.time()
        return {key: until - moment for key, until in found.items() if until is not None and until > moment}

    def scopes(self) -> list[str]:
        with self._explained():
            names = [entry.name for entry in os.scandir(self._root) if entry.is_dir()] if self._root.is_dir() else []
        cut = next((name for name in names if "=" in name), None)
        if cut is not None:
            raise StorageError(f"the scopes in {self._root} cannot be listed: the name of folder {cut} was cut")
        return sorted(unquote(name) for name in names)

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        with self._held(scope, "write") as folder:
            assert folder is not None
            present = list(folder.keys())
            folder.put([Write(key, None) for key in present])
            return len(present)

    def watch(self) -> Watch | None:
        return None

    def close(self) -> None:
        """Nothing is open."""

    @contextlib.contextmanager
    def _held(self, scope: str, to: Literal["read", "write"]) -> Iterator[_Folder | None]:
        """The scope's folder, locked; None where there is none to be read."""
        path = self._root / _file_name(scope)
        with self._explained():
            if to == "write":
                _make_folder(path)
            try:
                handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                yield None
                return
            try:
                folder = _Folder(scope, path, handle)
                fcntl.flock(handle, fcntl.LOCK_EX if to == "write" else fcntl.LOCK_SH)
                if (path / _JOURNAL).exists():
                    fcntl.flock(handle, fcntl.LOCK_EX)
                    folder.finish()
                yield folder
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise StorageError(f"the state in {self._root} cannot be used: {fault.strerror or fault}") from fault


@dataclass(slots=True)
class _Folder:
    """One scope's folder, while its lock is held."""

    scope: str
    path: Path
    lock: int

    def entry(self, key: str) -> Entry | None:
        document = self._document(self.path / f"{_file_name(key)}.json")
        return _entry(document) if document is not None else None

    def until(self, key: str) -> float | None:
        """When the time of a key's value is over, in seconds since 1970; None for one that stays, or is not there."""
        document = self._document(self.path / f"{_file_name(key)}.json")
        return None if document is None else document.get("until")

    def _document(self, path: Path) -> dict[str, Any] | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        document: dict[str, Any] = serial.decode(data)
        until = document.get("until")
        return None if until is not None and until <= time.time() else document

    def keys(self) -> Iterator[str]:
        with os.scandir(self.path) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".json")]
        for name in names:
            document = self._document(self.path / name)
            if document is not None:
                yield document["key"]

    def put(self, writes: Sequence[Write]) -> list[int]:
        for write in writes:
            if write.expected is not None:
                known = self.entry(write.key)
                found = known.version if known is not None else 0
                if found != write.expected:
                    raise conflict(self.scope, write.key, write.expected, found)
        version = self._next_version(len(writes))
        versions, moves = [], []
        for number, write in enumerate(writes):
            target = f"{_file_name(write.key)}.json"
            if write.body is None:
                is_there = self._document(self.path / target) is not None
                versions.append(version + number if is_there else 0)
                moves.append(["", target])
            else:
                versions.append(version + number)
                aside = f"{_TEMPORARY}{number}"
                _write_synced(self.path / aside, _text(write, write.body, version + number))
                moves.append([aside, target])
        if len(moves) > 1:
            _write_synced(self.path / f"{_TEMPORARY}journal", serial.encode(moves))
            os.replace(self.path / f"{_TEMPORARY}journal", self.path / _JOURNAL)
            sync_folder(self.path)
        self._move(moves)
        return versions

    def finish(self) -> None:
        """Make the changes that a crash left half done."""
        try:
            moves = serial.decode((self.path / _JOURNAL).read_bytes())
        except FileNotFoundError:  # another process was quicker
            return
        self._move(moves)

    def _move(self, moves: list[list[str]]) -> None:
        for aside, target in moves:
            with contextlib.suppress(FileNotFoundError):  # moved before the crash
                if aside:
                    os.replace(self.path / aside, self.path / target)
                else:
                    os.unlink(self.path / target)
        sync_folder(self.path)
        if len(moves) > 1:
            (self.path / _JOURNAL).unlink(missing_ok=True)

    def _next_version(self, count: int) -> int:
        """The first of so many new versions: the time in microseconds, or more if that was given already."""
        last = int(os.pread(self.lock, 32, 0) or b"0")
        first = max(last + 1, time.time_ns() // 1000)
        os.pwrite(self.lock, b"%032d" % (first + count - 1), 0)
        return first


def _text(write: Write, body: bytes, version: int) -> bytes:
    """A value as a file: the JSON itself where it is some, readable."""
    document: dict[str, Any] = {"key": write.key, "version": version}
    if write.meta:
        document["meta"] = write.meta
    if write.ttl is not None:
        document["until"] = time.time() + write.ttl
    head = serial.encode(document)[:-1]
    if '"sealed"' in write.meta or not _is_text(body):
        return head + b',"bytes":' + serial.encode(base64.b64encode(body).decode()) + b"}\n"
    return head + b',"value":' + body + b"}\n"


def _is_text(body: bytes) -> bool:
    try:
        return serial.encode(serial.decode(body)) == body
    except (StorageError, ValueError):
        return False


def _entry(document: dict[str, Any]) -> Entry:
    body = base64.b64decode(document["bytes"]) if "bytes" in document else serial.encode(document["value"])
    return Entry(body, document["version"], document.get("meta", ""), "until" in document)


def _file_name(text: str) -> str:
    """A file name for any text, another one for each: also where upper and lower case are one."""

    def escaped(match: re.Match[bytes]) -> bytes:
        return b"%%%02x" % match[0][0]

    name = _UNSAFE.sub(escaped, text.encode()).decode()
    if name.startswith("."):
        name = "%2e" + name[1:]
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 65]}={hashlib.sha256(text.encode()).hexdigest()}"
    return name


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_folder(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
