"""Rows cut into chunks whose borders depend on the rows alone, so that a changed row changes one chunk and no other.

Every chunk is kept once, under the hash of its rows. So each backup is whole by itself, and costs what has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...errors import BackupDamaged

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

#: Bytes of a chunk on the average, and at most (but for one row that is larger).
USUAL: Final = 1 << 20
MOST: Final = 4 << 20
_ENCODER: Final = msgspec.msgpack.Encoder()
_RAW: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_ROW: Final = msgspec.msgpack.Decoder(list[Any])
_HASH: Final = 32
_SUMMED: Final = 16
_MODULUS: Final = 1 << 8 * _SUMMED


class Digest:
    """Counts rows and sums up their hashes: equal for equal rows in whatever order they come."""

    __slots__ = ("rows", "size", "total")

    def __init__(self) -> None:
        self.rows, self.size, self.total = 0, 0, 0

    def add(self, row: Buffer, size: int) -> bytes:
        """Add a row as it is encoded, of that many bytes; gives its hash."""
        hashed = hashlib.blake2b(row, digest_size=_HASH).digest()
        self.rows += 1
        self.size += size
        self.total += int.from_bytes(hashed[:_SUMMED], "big")
        return hashed

    @property
    def text(self) -> str:
        """The sum."""
        return f"{self.total % _MODULUS:0{2 * _SUMMED}x}"


def cut(rows: Iterable[Any], digest: Digest) -> Iterator[tuple[int, bytes, bytes]]:
    """Chunks of the rows: how many rows, their hashes, and their bytes. Each row is added to the digest."""
    waiting: list[bytes] = []
    hashes: list[bytes] = []
    size = 0
    encode = _ENCODER.encode
    for row in rows:
        encoded = encode(row)
        hashed = digest.add(encoded, len(encoded))
        waiting.append(encoded)
        hashes.append(hashed)
        size += len(encoded)
        # The larger a row, the likelier a border behind it: so that chunks have the same size in all tables.
        if size >= MOST or int.from_bytes(hashed[-4:], "big") * USUAL < len(encoded) << 32:
            yield len(waiting), b"".join(hashes), _joined(waiting)
            waiting, hashes, size = [], [], 0
    if waiting:
        yield len(waiting), b"".join(hashes), _joined(waiting)


def _joined(rows: list[bytes]) -> bytes:
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def rows_of(chunk: bytes, width: int, digest: Digest) -> tuple[list[list[Any]], bytes]:
    """The rows of a chunk, and their hashes; each row is added to the digest. Raises BackupDamaged for what is none."""
    try:
        encoded = _RAW.decode(chunk)
        hashes = b"".join([digest.add(row, len(memoryview(row))) for row in encoded])
        rows = [_ROW.decode(row) for row in encoded]
    except msgspec.DecodeError as fault:
        raise BackupDamaged(f"a chunk of the backup holds no rows: {fault}") from None
    for row in rows:
        if len(row) != width:
            raise BackupDamaged(f"a chunk of the backup has a row of {len(row)} values, expected: {width}")
    return rows, hashes
