"""Large values as files named by a hash of their content, compressed, checked on every read.

The name is the SHA-256 of the content. Where all is sealed it is a keyed hash, so that nobody without the key can tell
whether some content is there; the content is compressed, then sealed for the file's name.

A file appears whole or not at all: it is written under a temporary name in its folder, synced, renamed, and the
folder synced. Equal content is one file, whoever writes it and however often.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import BlobDamaged, BlobNotFound, KeyMissing, SealBroken, StorageError, TooLarge
from .disk import explained, sync_folder
from .faults import point
from .keys.codec import Codec, refuse
from .keys.sealing import is_sealed, key_of
from .serial import digest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Largest content of one blob, in bytes; also the most that reading one can take.
MAX_BYTES: Final = 1 << 30
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_TEMPORARY: Final = ".tmp-"
# format mark, length of the content in bytes; a zstd frame follows, plain or sealed
_HEADER: Final = struct.Struct(">4sQ")
_MARK: Final = b"CLB1"
_SEALED: Final = b"CLB2"
#: What sealed content is bound to, with the name.
_PLACE: Final = "blobs"
#: A sealed object is larger than what is in it by less than this.
_SEAL_BYTES: Final = 512
_LEVEL: Final = 3
_PIECE: Final = 1 << 20
_WINDOW_LOG_MAX: Final = 23
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Not blocking, or a pipe in the place of a blob would hold its reader for ever.
_READ_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _SAFELY
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY


class BlobStore:
    """Blobs under one folder, two levels deep; safe for any number of processes and threads at once."""

    def __init__(self, root: Path, max_bytes: int = MAX_BYTES, codec: Codec | None = None) -> None:
        self._root = Path(root)
        self._max_bytes = max_bytes
        self._codec = codec
        with explained(f"blob folder {self._root}"):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Store the content durably and return its hash.

        Equal content that is there and sound is left alone but counts as new for `age`; damaged, it is replaced.
        Raises TooLarge, and StorageError when the disk refuses; then nothing of it can be seen.
        """
        if len(data) > self._max_bytes:
            raise TooLarge(f"blob is {len(data):,} bytes; the limit is {self._max_bytes:,} bytes")
        codec = self._codec if self._codec is not None and self._codec.whole and not is_sealed(data) else None
        name = digest(data) if codec is None else codec.blob_name(data)
        path = self._path(name)
        with explained(f"blob {name} cannot be written"):
            self._make_folders(path.parent)
            if not (self._holds(path, name) and _touched(path)):
                _write_whole(path, _packed(codec, name, data))
            sync_folder(path.parent)
        return name

    def get(self, name: str) -> bytes:
        """The content of that hash. Raises BlobNotFound, BlobDamaged, and StorageError when it cannot be read."""
        path = self._path(name)
        with explained(f"blob {name} cannot be read"):
            try:
                return self._read(path, name)
            except FileNotFoundError:
                raise BlobNotFound(f"no blob {name}") from None

    def stored(self, name: str) -> bytes:
        """The file of a blob as it lies there, plain or sealed; its content is not checked. Raises as `get`."""
        return self._start(name, self._most())

    def put_stored(self, name: str, stored: bytes) -> None:
        """Put a blob back as `stored` gave it, unless it is there and sound. Raises BlobDamaged for a plain one whose
        content is not that of its name, and StorageError.
        """
        if not stored.startswith(_SEALED):
            self._check(stored, name)
        path = self._path(name)
        with explained(f"blob {name} cannot be written"):
            self._make_folders(path.parent)
            if not (self._holds(path, name) and _touched(path)):
                _write_whole(path, stored)
            sync_folder(path.parent)

    def _check(self, stored: bytes, name: str) -> None:
        """See that a plain blob holds what its name says, in the memory of a piece of it. Raises BlobDamaged."""
        size, found = self._content_size(stored, name), hashlib.sha256()
        reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        packed: memoryview | bytes = memoryview(stored)[_HEADER.size :]
        left = size
        try:
            while not reader.eof and left >= 0:
                piece = reader.decompress(packed, max_length=_PIECE)
                packed = b""
                left -= len(piece)
                found.update(piece)
                if not piece and reader.needs_input:
                    break
        except zstd.ZstdError as error:
            raise BlobDamaged(f"blob {name} is damaged: {error}") from error
        if left or not reader.eof or reader.unused_data or found.hexdigest() != name:
            raise BlobDamaged(f"blob {name} is damaged: its content is not the one that its name says")

    def opened(self, name: str, stored: bytes) -> bytes:
        """The content of a blob whose file has these bytes, wherever it lies. Raises BlobDamaged, KeyMissing."""
        return self._content(stored, name)

    def key_of(self, name: str) -> str | None:
        """The id of the key that a blob is sealed with; None for a plain one. Raises as `get`."""
        stored = self._start(name, _HEADER.size + _SEAL_BYTES)
        return key_of(stored[_HEADER.size :], f"blob {name}") if stored.startswith(_SEALED) else None

    def rewrap(self, name: str) -> bool:
        """Bring a sealed blob under the active key, in its place; False for one that is, or is not sealed.

        Not while it may be deleted: the caller holds its row. Raises as `get`.
        """
        path = self._path(name)
        with explained(f"blob {name} cannot be sealed anew"):
            try:
                stored = _read_file(path, self._most())
            except FileNotFoundError:
                raise BlobNotFound(f"no blob {name}") from None
            if not stored.startswith(_SEALED):
                return False
            if self._codec is None:
                raise refuse(_PLACE, (name,))
            after = self._codec.keyring.rewrap(stored[_HEADER.size :], f"blob {name}")
            if after is None:
                return False
            _write_whole(path, stored[: _HEADER.size] + after)
            sync_folder(path.parent)
        return True

    def _start(self, name: str, most: int) -> bytes:
        path = self._path(name)
        with explained(f"blob {name} cannot be read"):
            try:
                return _read_file(path, most)
            except FileNotFoundError:
                raise BlobNotFound(f"no blob {name}") from None

    def exists(self, name: str) -> bool:
        """Whether there is a blob of that hash (its content is not checked)."""
        path = self._path(name)
        with explained(f"blob {name} cannot be looked up"):
            return path.is_file()

    def delete(self, name: str) -> bool:
        """Remove the blob; False when there was none."""
        path = self._path(name)
        with explained(f"blob {name} cannot be deleted"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            return True

    def size(self, name: str) -> int:
        """Length of the content in bytes, as the file's header has it. Raises as `get`."""
        return self._content_size(self._start(name, _HEADER.size), name)

    def age(self, name: str) -> float:
        """Seconds since the content was last put. Who deletes unreferenced blobs leaves the young ones alone."""
        path = self._path(name)
        with explained(f"blob {name} cannot be looked up"):
            try:
                return time.time() - path.stat().st_mtime
            except FileNotFoundError:
                raise BlobNotFound(f"no blob {name}") from None

    def hashes(self) -> Iterator[str]:
        """The hash of every blob, in no order; blobs that come or go meanwhile may be missed."""
        for entry in self._files():
            if _HASH.fullmatch(entry.name):
                yield entry.name

    def stored_bytes(self, name: str) -> int:
        """Bytes of the file of a blob; 0 where there is none."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def temporary(self, older_than_seconds: float) -> Iterator[tuple[Path, int]]:
        """(file, bytes) of what killed writers left behind that long ago."""
        newest = time.time() - older_than_seconds
        for entry in self._files():
            if not entry.name.startswith(_TEMPORARY):
                continue
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                if about.st_mtime <= newest:
                    yield Path(entry.path), about.st_size

    def sweep_temporary(self, older_than_seconds: float) -> int:
        """Remove what killed writers left behind that long ago; returns how many files that were."""
        removed = 0
        for path, _ in self.temporary(older_than_seconds):
            with explained(f"temporary file {path.name} cannot be removed"), contextlib.suppress(FileNotFoundError):
                path.unlink()
                removed += 1
        return removed

    def _path(self, name: str) -> Path:
        if not isinstance(name, str) or not _HASH.fullmatch(name):
            raise StorageError(f"{name!r:.80} is not the hash of a blob: 64 characters of 0-9 and a-f")
        return self._root / name[:2] / name[2:4] / name

    def _make_folders(self, leaf: Path) -> None:
        for folder in (leaf.parent, leaf):
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                continue
            sync_folder(folder.parent)

    def _holds(self, path: Path, name: str) -> bool:
        try:
            self._read(path, name)
        except (BlobDamaged, SealBroken, KeyMissing, FileNotFoundError):
            return False
        return True

    def _read(self, path: Path, name: str) -> bytes:
        return self._content(_read_file(path, self._most()), name)

    def _content(self, stored: bytes, name: str) -> bytes:
        size = self._content_size(stored, name)
        codec, packed = None, memoryview(stored)[_HEADER.size :]
        if stored.startswith(_SEALED):
            codec = self._codec
            if codec is None:
                raise refuse(_PLACE, (name,))
            packed = memoryview(codec.open_bytes(bytes(packed), _PLACE, name))
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        reader = zstd.ZstdDecompressor(options=options)
        try:
            # One byte more than recorded is enough to know a lie; a bomb gets no further.
            data = reader.decompress(packed, max_length=size + 1)
        except zstd.ZstdError as error:
            raise BlobDamaged(f"blob {name} is damaged: {error}") from error
        if len(data) != size or not reader.eof or reader.unused_data:
            raise BlobDamaged(f"blob {name} is damaged: its content is not the {size:,} bytes recorded")
        if (digest(data) if codec is None else codec.blob_name(data)) != name:
            raise BlobDamaged(f"blob {name} is damaged: its content has another hash")
        return data

    def _most(self) -> int:
        """Bytes of the largest file that may be a blob."""
        return _HEADER.size + self._max_bytes + self._max_bytes // 128 + 1024 + _SEAL_BYTES

    def _content_size(self, stored: bytes, name: str) -> int:
        if len(stored) < _HEADER.size or not stored.startswith((_MARK, _SEALED)):
            raise BlobDamaged(f"blob {name} is damaged: it does not begin as a blob does")
        size: int = _HEADER.unpack_from(stored)[1]
        if size > self._max_bytes:
            raise BlobDamaged(f"blob {name} claims {size:,} bytes; the limit is {self._max_bytes:,} bytes")
        return size

    def _files(self) -> Iterator[os.DirEntry[str]]:
        for first in _entries(self._root):
            if _FOLDER.fullmatch(first.name):
                for second in _entries(first.path):
                    if _FOLDER.fullmatch(second.name):
                        yield from _entries(second.path)


def _packed(codec: Codec | None, name: str, data: bytes) -> bytes:
    """The file of a blob."""
    packed = zstd.compress(data, _LEVEL)
    if codec is None:
        return _HEADER.pack(_MARK, len(data)) + packed
    return _HEADER.pack(_SEALED, len(data)) + codec.seal_bytes(packed, _PLACE, name)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    with explained(f"blob folder {folder} cannot be listed"), os.scandir(folder) as entries:
        return list(entries)


def _touched(path: Path) -> bool:
    """Make the file young; False if it was deleted meanwhile."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _read_file(path: Path, most: int) -> bytes:
    """Up to `most` bytes of a regular file; a link, pipe or device in its place is refused."""
    try:
        handle = os.open(path, _READ_FLAGS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BlobDamaged(f"blob {path.name} is damaged: it is a link") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BlobDamaged(f"blob {path.name} is damaged: it is not a regular file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(handle)


def _write_whole(path: Path, stored: bytes) -> None:
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
    handle = os.open(temporary, _WRITE_FLAGS, 0o600)
    try:
        try:
            rest = memoryview(stored)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        point("before-blob-rename")
        os.replace(temporary, path)
        point("after-blob-rename")
    except BaseException:
        # Also when a time limit or Ctrl-C interrupts: the temporary file must not outlive the attempt.
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
