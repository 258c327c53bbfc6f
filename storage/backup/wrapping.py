"""How a piece of a backup lies on the disk: compressed, then closed; a changed byte is seen before it is parsed.

Without keys, a piece begins with the BLAKE2b hash of its place and its bytes. With keys it is sealed with AES-256-GCM
under a data key of its own (`storage/keys/sealing.py`), bound to its place. A place is `object <name>` or `manifest
<id>`: pieces cannot be swapped, and since the manifest lists them in order, none can be left out, added or doubled.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Final, Literal, get_args

from ...errors import BackupDamaged, KeyMissing, SealBroken
from ..keys.sealing import KeyRing, is_sealed, key_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Bytes = bytes | memoryview
Compression = Literal["zstd", "gzip", "none"]
COMPRESSIONS: Final[tuple[str, ...]] = get_args(Compression)
#: Largest piece, in bytes: that of the largest blob, and room for what a row has around it.
MOST_BYTES: Final = (1 << 30) + (1 << 24)

#: A piece of more bytes than this is no larger than so many times what it was compressed to: bombs are refused before
#: they are unpacked, and what would look like one is not compressed.
FREE_BYTES: Final = 1 << 24
MOST_RATIO: Final = 100

_MARK: Final = b"CLK1"
_HASH: Final = 32
# how it is compressed; its length before that
_HEADER: Final = struct.Struct(">BQ")
_LEVEL: Final = 3
_WINDOW_LOG_MAX: Final = 23
_DEFLATE: Final = 6
#: So much is decompressed at a time.
_BIT: Final = 1 << 15


def wrap(data: bytes, compression: str, place: str, keyring: KeyRing | None) -> bytes:
    """The bytes to be written for a piece at a place."""
    packed = _packed(data, compression)
    if _is_bomb(len(data), len(packed) - _HEADER.size):
        packed = _packed(data, "none")
    if keyring is not None:
        return keyring.seal(packed, place=place)
    return _MARK + _digest(place, packed) + packed


def _packed(data: bytes, compression: str) -> bytes:
    return _HEADER.pack(COMPRESSIONS.index(compression), len(data)) + _compressed(data, compression)


def unwrap(stored: bytes, place: str, keyring: KeyRing | None, most: int = MOST_BYTES) -> bytes:
    """The piece of a place, of `most` bytes at most. Raises BackupDamaged, KeyMissing."""
    return b"".join(unwrapped(stored, place, keyring, most))


def unwrapped(stored: bytes, place: str, keyring: KeyRing | None, most: int = MOST_BYTES) -> Iterator[Bytes]:
    """The piece of a place, bit by bit, which takes less time than all at once: new memory is what costs most. Raises
    BackupDamaged, KeyMissing.
    """
    if is_sealed(stored):
        if keyring is None:
            raise KeyMissing(f"{place} is sealed with the key {key_of(stored, place)!r}, and none are set")
        try:
            packed = memoryview(keyring.open(stored, place=place))
        except SealBroken as fault:
            raise BackupDamaged(str(fault)) from None
    else:
        start = len(_MARK) + _HASH
        packed = memoryview(stored)[start:]
        if not stored.startswith(_MARK) or not hmac.compare_digest(stored[len(_MARK) : start], _digest(place, packed)):
            raise BackupDamaged(f"{place} is damaged: its bytes do not have the hash that they begin with")
    yield from _expanded(packed, place, most)


def _digest(place: str, packed: Bytes) -> bytes:
    made = hashlib.blake2b(place.encode(), digest_size=_HASH, person=b"celeriac-backup")
    made.update(packed)
    return made.digest()


def _compressed(data: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return zstd.compress(data, _LEVEL)
    if compression == "gzip":
        return zlib.compress(data, _DEFLATE, wbits=31)
    return data


def _is_bomb(size: int, packed: int) -> bool:
    return size > FREE_BYTES and size > MOST_RATIO * packed


def _expanded(packed: memoryview, place: str, most: int) -> Iterator[Bytes]:
    """What was packed; never more bytes than it says itself, and than are allowed."""
    if len(packed) < _HEADER.size:
        raise BackupDamaged(f"{place} is damaged: it is cut")
    codec, size = _HEADER.unpack_from(packed)
    if codec >= len(COMPRESSIONS) or size > most:
        raise BackupDamaged(f"{place} claims {size:,} bytes in format {codec}; allowed: {most:,} bytes")
    body = packed[_HEADER.size :]
    if _is_bomb(size, len(body)):
        raise BackupDamaged(f"{place} claims {size:,} bytes out of {len(body):,}; allowed: {MOST_RATIO} times as many")
    left: int = size
    try:
        for bit in _decompressed(COMPRESSIONS[codec], body, size):
            left -= len(bit)
            if left < 0:
                break
            yield bit
    except (zstd.ZstdError, zlib.error) as fault:
        raise BackupDamaged(f"{place} is damaged: {fault}") from None
    if left:
        raise BackupDamaged(f"{place} is damaged: it does not have the {size:,} bytes that it claims")


def _decompressed(compression: str, body: memoryview, size: int) -> Iterator[Bytes]:
    """What was compressed, to one byte more than its size."""
    if compression == "none":
        yield body
        return
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    is_zstd = compression == "zstd"
    machine: Any = zstd.ZstdDecompressor(options=options) if is_zstd else zlib.decompressobj(wbits=31)
    left = size + 1
    for start in range(0, len(body), _BIT):
        if machine.eof or not left:
            return
        bit = machine.decompress(body[start : start + _BIT], max_length=left)
        left -= len(bit)
        yield bit
