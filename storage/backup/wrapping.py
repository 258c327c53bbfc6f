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
from typing import Final, Literal, get_args

from ...errors import BackupDamaged, KeyMissing, SealBroken
from ..keys.sealing import KeyRing, is_sealed, key_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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
    if is_sealed(stored):
        if keyring is None:
            raise KeyMissing(f"{place} is sealed with the key {key_of(stored, place)!r}, and none are set")
        try:
            packed = keyring.open(stored, place=place)
        except SealBroken as fault:
            raise BackupDamaged(str(fault)) from None
    else:
        start = len(_MARK) + _HASH
        packed = stored[start:]
        if not stored.startswith(_MARK) or not hmac.compare_digest(stored[len(_MARK) : start], _digest(place, packed)):
            raise BackupDamaged(f"{place} is damaged: its bytes do not have the hash that they begin with")
    return _expanded(packed, place, most)


def _digest(place: str, packed: bytes) -> bytes:
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


def _expanded(packed: bytes, place: str, most: int) -> bytes:
    """What was packed; never more bytes than it says itself, and than are allowed."""
    if len(packed) < _HEADER.size:
        raise BackupDamaged(f"{place} is damaged: it is cut")
    codec, size = _HEADER.unpack_from(packed)
    if codec >= len(COMPRESSIONS) or size > most:
        raise BackupDamaged(f"{place} claims {size:,} bytes in format {codec}; allowed: {most:,} bytes")
    body = memoryview(packed)[_HEADER.size :]
    if _is_bomb(size, len(body)):
        raise BackupDamaged(f"{place} claims {size:,} bytes out of {len(body):,}; allowed: {MOST_RATIO} times as many")
    try:
        if COMPRESSIONS[codec] == "zstd":
            options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
            data = zstd.ZstdDecompressor(options=options).decompress(body, max_length=size + 1)
        elif COMPRESSIONS[codec] == "gzip":
            data = zlib.decompressobj(wbits=31).decompress(body, size + 1)
        else:
            data = bytes(body)
    except (zstd.ZstdError, zlib.error) as fault:
        raise BackupDamaged(f"{place} is damaged: {fault}") from None
    if len(data) != size:
        raise BackupDamaged(f"{place} is damaged: it does not have the {size:,} bytes that it claims")
    return data
