"""Finding files in folders and turning their bytes into text; whatever cannot be read is skipped with a reason."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import CeleriacError

#: A file (and what a .gz unpacks to) may be this large; in bytes.
MAX_BYTES = 50 * 1024 * 1024
#: Folders that hold machinery rather than documents; read only when named as a folder of the question.
SKIPPED_FOLDERS = frozenset(
    ".git .hg .svn .bzr node_modules __pycache__ .venv venv .tox .nox .mypy_cache .ruff_cache .pytest_cache .idea"
    " .eggs .cache .ipynb_checkpoints".split()
)
_BINARY_SUFFIXES = frozenset(
    ".png .jpg .jpeg .gif .webp .ico .bmp .tiff .svgz .woff .woff2 .ttf .otf .eot .mp3 .mp4 .ogg .avi .mov .zip .tar"
    " .xz .bz2 .zst .7z .rar .whl .egg .jar .so .dylib .dll .exe .a .o .obj .pyc .pyo .class .bin .dat .db .sqlite"
    " .sqlite3 .pack .idx .mo .gmo .npy .npz .pkl .parquet .docx .xlsx .pptx .odt .ps .eps .dvi".split()
)


class Unreadable(CeleriacError):
    """A file cannot be read as text; the message is the reason, in words for the report."""


@dataclass(slots=True)
class Walk:
    """What a walk found: the files in a settled order, and what was skipped as (path, reason)."""

    files: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def walk(folders: list[str]) -> Walk:
    """All regular files below `folders` (a file may be named too), sorted, each once.

    Raises CeleriacError where a folder is missing or where none of them holds a file.
    """
    found = Walk()
    seen_files: set[tuple[int, int]] = set()
    for folder in folders:
        if not os.path.exists(folder):
            raise CeleriacError(f"folder {folder!r} does not exist; name an existing folder or file")
        if os.path.isdir(folder):
            for path in _below(folder, found, set()):
                _take(path, found, seen_files)
        else:
            _take(folder, found, seen_files)
    if not found.files and not found.skipped:
        raise CeleriacError(f"nothing to read: {', '.join(map(repr, folders))} holds no file")
    return found


def _below(folder: str, found: Walk, trail: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.skipped.append((folder, _reason(error)))
        return
    here = (status.st_dev, status.st_ino)
    if here in trail:
        found.skipped.append((folder, "a link that leads back to a folder above it"))
        return
    for entry in entries:
        try:
            is_folder = entry.is_dir()
        except OSError as error:
            found.skipped.append((entry.path, _reason(error)))
            continue
        if not is_folder:
            yield entry.path
        elif entry.name not in SKIPPED_FOLDERS:
            yield from _below(entry.path, found, trail | {here})


def _take(path: str, found: Walk, seen: set[tuple[int, int]]) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        found.skipped.append((path, "a link to nowhere" if os.path.islink(path) else _reason(error)))
        return
    identity = (status.st_dev, status.st_ino)
    if not stat.S_ISREG(status.st_mode):
        found.skipped.append((path, "not a regular file (device, pipe or socket)"))
    elif status.st_size == 0:
        found.skipped.append((path, "empty"))
    elif status.st_size > MAX_BYTES:
        found.skipped.append((path, f"too large: {status.st_size / 1e6:.0f} MB, at most 50 MB are read"))
    elif Path(path).suffix.lower() in _BINARY_SUFFIXES:
        found.skipped.append((path, f"binary ({Path(path).suffix.lower()})"))
    elif identity not in seen:  # one file that several links name is read once
        seen.add(identity)
        found.files.append(path)


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, FileNotFoundError):
        return "vanished while reading"
    return (error.strerror or type(error).__name__).lower()


def read_bytes(path: str) -> bytes:
    """The bytes of a regular file, unpacked where it ends in `.gz`. Raises Unreadable with the reason."""
    try:
        # O_NONBLOCK: should a pipe have taken the file's place since the walk, opening it must not hang.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("not a regular file (device, pipe or socket)")
            data = stream.read(MAX_BYTES + 1)
        if path.endswith(".gz"):
            with gzip.open(path, "rb") as packed:
                data = packed.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable("damaged gzip file") from error
    except OSError as error:
        raise Unreadable(_reason(error)) from error
    if len(data) > MAX_BYTES:
        raise Unreadable("too large: more than 50 MB of text")
    if not data:
        raise Unreadable("empty")
    return data


def decode(data: bytes) -> str:
    """Bytes as text: UTF-8, UTF-16 or UTF-32 with a mark, else Latin-1. Raises Unreadable for binary data."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe\x00\x00", "utf-32"),
        (b"\x00\x00\xfe\xff", "utf-32"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    head = data[:65536]
    if b"\x00" in head:
        raise Unreadable("binary")
    if sum(head.count(bytes([code])) for code in (*range(1, 8), *range(14, 27), 28, 29, 30)) > len(head) // 50:
        raise Unreadable("binary")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_text(path: str) -> str:
    """The text of a file with `\\n` line ends. Raises Unreadable with the reason."""
    text = decode(read_bytes(path)).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise Unreadable("empty: only blanks")
    return text
