"""Archives in a backup: their files in pieces, as rows, so that backups share them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from ...errors import BlobNotFound
from ...storage.archives.store import ArchiveStore
from ...storage.backup.manifest import ARCHIVES

if TYPE_CHECKING:
    from .content import Kept

COLUMNS: Final = ("file", "place", "bytes")
#: Characters of a file's name that are the id of its session.
_ID: Final = 36
_PIECE: Final = 1 << 20


def file_rows(store: ArchiveStore, files: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
    """The files of archives in pieces. Raises BlobNotFound for one that is gone: its session was restored meanwhile."""
    for file in files:
        try:
            stream = open(store.path(file), "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise BlobNotFound(f"no archive {file}") from None
        with stream:
            for place, piece in enumerate(iter(lambda: stream.read(_PIECE), b"")):  # noqa: B023
                yield file, place, piece


def is_of(row: Any, sessions: Iterable[str]) -> bool:
    """Whether a piece is of an archive of one of these sessions."""
    return row[0][:_ID] in sessions


def put_back(kept: Kept, store: ArchiveStore, sessions: tuple[str, ...]) -> int:
    """Write the files of archives of these sessions (none named: all); gives how many. Those that no row names then are
    leftovers.
    """
    if kept.columns(ARCHIVES) != COLUMNS:
        return 0
    rows = (row for found in kept.rows(ARCHIVES) for row in found if not sessions or is_of(row, sessions))
    count = 0
    for file, pieces in groupby(rows, itemgetter(0)):
        with store.holding(file[:_ID]):
            store.put(file, (bytes(row[2]) for row in pieces))
        count += 1
    return count
