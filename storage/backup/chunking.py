"""Rows cut into chunks whose borders depend on the rows alone, so that a changed row changes one chunk and no other.

Every chunk is kept once, under the hash of its bytes. So each backup is whole by itself, and costs what has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final
from zlib import crc32

import msgspec

from ...errors import BackupDamaged

#: Bytes of a chunk on the average, and at most (but for one row that is larger).
USUAL: Final = 1 << 20
MOST: Final = 4 << 20
#: Bytes of a row that its border depends on: more than any key has, and no more than can be looked at in a microsecond.
_LOOKED_AT: Final = 2048
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[list[Any]])
_SUMMED: Final = 16


def cut(rows: Iterable[Any]) -> Iterator[tuple[int, bytes]]:
    """Chunks of the rows: how many rows, and their bytes."""
    waiting: list[bytes] = []
    size = 0
    encode = _ENCODER.encode
    for row in rows:
        encoded = encode(row)
        waiting.append(encoded)
        length = len(encoded)
        size += length
        # The larger a row, the likelier a border behind it: so that chunks have the same size in all tables.
        if crc32(encoded[:_LOOKED_AT]) * USUAL < length << 32 or size >= MOST:
            yield len(waiting), _joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield len(waiting), _joined(waiting)


def _joined(rows: list[bytes]) -> bytes:
    return b"\xdd" + len(rows).to_bytes(4, "big") + b"".join(rows)


def rows_of(chunk: bytes | memoryview, width: int) -> list[list[Any]]:
    """The rows of a chunk, of so many values each. Raises BackupDamaged for what is none."""
    try:
        rows = _DECODER.decode(chunk)
    except msgspec.DecodeError as fault:
        raise BackupDamaged(f"a chunk holds no rows: {fault}") from None
    for found in set(map(len, rows)) - {width}:
        raise BackupDamaged(f"a chunk has a row of {found} values, expected: {width}")
    return rows


def digest_of(rows: Iterable[Any]) -> tuple[int, str]:
    """How many rows there are, and the sum of their hashes: equal for equal rows in whatever order they come."""
    count = total = 0
    for row in rows:
        hashed = hashlib.blake2b(_ENCODER.encode(row), digest_size=_SUMMED).digest()
        total += int.from_bytes(hashed, "big")
        count += 1
    return count, f"{total % (1 << 8 * _SUMMED):0{2 * _SUMMED}x}"
