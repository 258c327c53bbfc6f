"""Tar files as Celeriac writes them, and no others: what to read is taken for hostile.

There is one header for a name and a size. What is read is compared with it byte by byte, so that links, devices,
folders, extensions, owners and whatever else a header can say is refused without being understood. Nothing is
compressed here, and nothing is written: reading takes the memory of one header.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final, NamedTuple

from ..errors import StorageError

BLOCK: Final = 512
_END: Final = bytes(2 * BLOCK)
_NAME: Final = re.compile(rb"[A-Za-z0-9._/-]{1,99}")
_SIZE: Final = re.compile(rb"[0-7]{11}\0")
#: What a header says of the kind of its member: a file.
_FILE: Final = b"0"


class TarRefused(StorageError):
    """A tar file is not as Celeriac writes them, or holds what it should not; nothing of it was taken over."""


class Member(NamedTuple):
    """A file in a tar: where its bytes begin, and how many there are."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The header of a file."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = size, 0o600
    return about.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def write(out: BinaryIO, name: str, size: int, pieces: Iterable[bytes]) -> int:
    """Append a file of `size` bytes; gives how many bytes that takes."""
    out.write(header(name, size))
    left = size
    for piece in pieces:
        left -= out.write(piece)
    if left:
        raise TarRefused(f"{name} has {size - left:,} bytes, expected: {size:,}")
    padding = -size % BLOCK
    out.write(bytes(padding))
    return BLOCK + size + padding


def finish(out: BinaryIO) -> None:
    """Write what follows the last file."""
    out.write(_END)


def members(file: BinaryIO, most: Callable[[str], int], entries: int) -> Iterator[Member]:
    """The files of a tar, in order, which is whole once the last one was given.

    `most` says how many bytes a file of a name may have at most, 0: there must be none of that name; `entries` is how
    many there may be. Raises TarRefused.
    """
    whole = os.fstat(file.fileno()).st_size
    seen: set[str] = set()
    place = 0
    while (block := _read(file, place, BLOCK)) != _END[:BLOCK]:
        name, size = _parsed(block)
        if name.casefold() in seen:
            raise TarRefused(f"it has two files {name!r}")
        if len(seen) == entries:
            raise TarRefused(f"it has more than {entries:,} files")
        if not (allowed := most(name)):
            raise TarRefused(f"it has a file {name!r}, which is not expected")
        if size > allowed:
            raise TarRefused(f"{name} has {size:,} bytes; allowed: {allowed:,}")
        seen.add(name.casefold())
        end = place + BLOCK + size
        padding = -size % BLOCK
        if end + padding > whole:
            raise TarRefused(f"it is cut within {name}")
        if _read(file, end, padding) != bytes(padding):
            raise TarRefused(f"there is something behind the end of {name}")
        yield Member(name, place + BLOCK, size)
        place = end + padding
    if whole != place + len(_END) or _read(file, place, len(_END)) != _END:
        raise TarRefused("there is something behind its end, or its end is cut")


def _parsed(block: bytes) -> tuple[str, int]:
    """Name and size of a header. Raises TarRefused for any but ours."""
    raw = block[:100].partition(b"\0")[0]
    shown = raw.decode("ascii", "backslashreplace")
    if len(block) == BLOCK and block[156:157] not in (_FILE, b"\0"):
        raise TarRefused(f"{shown!r:.120} is no regular file")
    if not _NAME.fullmatch(raw):
        raise TarRefused(f"it has a file {shown!r:.120}, which is not expected")
    if len(block) == BLOCK and _SIZE.fullmatch(block[124:136]):
        size = int(block[124:135], 8)
        if block == header(shown, size):
            return shown, size
    raise TarRefused(f"the header of {shown!r:.120} is damaged, or not one that Celeriac writes")


def _read(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def pieces(file: BinaryIO, member: Member, size: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a file, some at a time."""
    file.seek(member.offset)
    left = member.size
    while left:
        piece = file.read(min(left, size))
        if not piece:
            raise TarRefused(f"it is cut within {member.name}")
        left -= len(piece)
        yield piece
