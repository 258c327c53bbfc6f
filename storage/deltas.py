"""States of a growing document as differences: cost and size follow the change, not the whole.

A delta keeps how much of the old state's start and end stays, and the new middle, raw or as a zstd frame whose
dictionary is the old middle and a little before it, so that changes in several places cost only themselves.
A snapshot is a whole state. Both begin with a version byte and carry the digest of the state they give, and a
delta that of the state it starts from: what is damaged or out of order is refused, never restored.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from typing import Final

from ..errors import CheckpointDamaged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DIGEST_SIZE: Final = 16
_VERSION: Final = 1
_RAW, _ZSTD, _WHOLE_RAW, _WHOLE_ZSTD = range(4)
# version, form, digest of the new state, its length in bytes
_SNAPSHOT: Final = struct.Struct(f">BB{DIGEST_SIZE}sQ")
# version, form, digest of the new state, digest of the old one, bytes kept at the start, at the end, new middle
_DELTA: Final = struct.Struct(f">BB{DIGEST_SIZE}s{DIGEST_SIZE}sQQQ")
_STEP: Final = 65536
_CONTEXT: Final = 2048
_WORTH_COMPRESSING: Final = 48
_MIN_DICTIONARY: Final = 8
_LONG: Final = 1 << 19
_WINDOW_LOG_MIN: Final = 10
_WINDOW_LOG_MAX: Final = 27


def digest(state: bytes) -> bytes:
    """The first 16 bytes of the state's SHA-256."""
    return hashlib.sha256(state).digest()[:DIGEST_SIZE]


def digest_after(form: bytes) -> bytes:
    """The digest, as a delta or snapshot records it, of the state that it gives. Raises CheckpointDamaged."""
    if len(form) < _SNAPSHOT.size or form[0] != _VERSION:
        raise CheckpointDamaged(f"not a delta or snapshot of version {_VERSION}: {len(form):,} bytes")
    return form[2 : 2 + DIGEST_SIZE]


def diff(old: bytes, new: bytes, old_digest: bytes | None = None) -> bytes:
    """The delta that turns `old` into `new`.

    `old_digest`, when the caller has it (`digest_after` of the delta or snapshot that gave `old`), saves hashing
    `old` again.
    """
    start = _common_start(old, new)
    end = _common_end(old, new, min(len(old), len(new)) - start)
    middle = new[start : len(new) - end]
    form, body = _RAW, middle
    if len(middle) >= _WORTH_COMPRESSING:
        packed = _pack(middle, _context(old, start, end))
        if len(packed) < len(middle):
            form, body = _ZSTD, packed
    before = digest(old) if old_digest is None else old_digest
    return _DELTA.pack(_VERSION, form, digest(new), before, start, end, len(middle)) + body


def apply(old: bytes, delta: bytes) -> bytes:
    """The state that `delta` makes of `old`. Raises CheckpointDamaged when either is not what it was."""
    if len(delta) < _DELTA.size:
        raise CheckpointDamaged(f"a delta has at least {_DELTA.size} bytes; this one has {len(delta)}")
    version, form, after, before, start, end, size = _DELTA.unpack_from(delta)
    if version != _VERSION or form not in (_RAW, _ZSTD):
        raise CheckpointDamaged(f"not a delta of version {_VERSION}: version {version}, form {form}")
    if digest(old) != before:
        raise CheckpointDamaged("the delta starts from another state than the one given (digests differ)")
    if start + end > len(old):
        raise CheckpointDamaged(f"the delta keeps {start + end:,} bytes of a state of {len(old):,}")
    body = delta[_DELTA.size :]
    middle = body if form == _RAW else _unpack(body, _context(old, start, end), size)
    kept = memoryview(old)
    return _sound(b"".join((kept[:start], middle, kept[len(old) - end :])), after, len(middle) == size)


def snapshot(new: bytes) -> bytes:
    """The whole state in a form of its own, compressed where that helps."""
    packed = zstd.compress(new, 3)
    form, body = (_WHOLE_ZSTD, packed) if len(packed) < len(new) else (_WHOLE_RAW, new)
    return _SNAPSHOT.pack(_VERSION, form, digest(new), len(new)) + body


def restore(form: bytes) -> bytes:
    """The state that a snapshot holds. Raises CheckpointDamaged."""
    if len(form) < _SNAPSHOT.size:
        raise CheckpointDamaged(f"a snapshot has at least {_SNAPSHOT.size} bytes; this one has {len(form)}")
    version, kind, after, size = _SNAPSHOT.unpack_from(form)
    if version != _VERSION or kind not in (_WHOLE_RAW, _WHOLE_ZSTD):
        raise CheckpointDamaged(f"not a snapshot of version {_VERSION}: version {version}, form {kind}")
    body = form[_SNAPSHOT.size :]
    state = body if kind == _WHOLE_RAW else _unpack(body, None, size)
    return _sound(state, after, len(state) == size)


def _sound(state: bytes, expected: bytes, right_size: bool) -> bytes:
    if not right_size or digest(state) != expected:
        raise CheckpointDamaged("the restored state does not match its digest; nothing was restored")
    return state


def _common_start(old: bytes, new: bytes) -> int:
    """How many bytes at the start are equal: whole steps first, then halving inside the step that differs.

    Slices of bytes are compared by memcmp; comparing memoryviews would go byte by byte.
    """
    most = min(len(old), len(new))
    low = 0
    while low < most and old[low : low + _STEP] == new[low : low + _STEP]:
        low += _STEP
    if low >= most:
        return most
    high = min(low + _STEP, most)
    while low < high:
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(old: bytes, new: bytes, most: int) -> int:
    """How many bytes at the end are equal, at most `most`."""
    a, b = len(old), len(new)
    low = 0
    while low + _STEP <= most and old[a - low - _STEP : a - low] == new[b - low - _STEP : b - low]:
        low += _STEP
    high = min(low + _STEP, most)
    while low < high:
        middle = (low + high + 1) // 2
        if old[a - middle : a - low] == new[b - middle : b - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _context(old: bytes, start: int, end: int) -> zstd.ZstdDict | None:
    """What the new middle resembles: the middle that it replaces, and what stands just before."""
    text = old[max(0, start - _CONTEXT) : len(old) - end]
    return zstd.ZstdDict(text, is_raw=True) if len(text) >= _MIN_DICTIONARY else None


def _pack(middle: bytes, context: zstd.ZstdDict | None) -> bytes:
    if context is None:
        return zstd.compress(middle, 3)
    # The window has to reach back over the dictionary, which by default it does not.
    reach = len(middle) + len(context)
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: 1,
        parameter.window_log: min(max(reach.bit_length(), _WINDOW_LOG_MIN), _WINDOW_LOG_MAX),
        parameter.enable_long_distance_matching: int(reach > _LONG),
    }
    return zstd.compress(middle, options=options, zstd_dict=context.as_prefix)


def _unpack(body: bytes, context: zstd.ZstdDict | None, size: int) -> bytes:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
    reader = zstd.ZstdDecompressor(zstd_dict=context and context.as_prefix, options=options)
    try:
        # Never more than was recorded, whatever a damaged frame promises.
        state = reader.decompress(body, max_length=min(size, sys.maxsize))
    except (zstd.ZstdError, MemoryError) as error:
        raise CheckpointDamaged(f"the compressed part cannot be read: {error}") from error
    if size and not reader.eof or reader.unused_data:
        raise CheckpointDamaged(f"the compressed part does not end after the {size:,} bytes recorded")
    return state
