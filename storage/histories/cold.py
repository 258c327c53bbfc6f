"""Entries that were put away by a compaction: out of the history, compressed, in order, to be read and put back.

A compaction takes entries out of the rows of a history and leaves a summary in the place of the last of them; it is
named by that number. What it took lies here in parts of some hundred entries.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, insert, select

from ...errors import StorageError
from ..database import Query, Transaction, now
from .tables import cold_history

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Entries of one part, and bytes of their bodies.
_ENTRIES: Final = 500
_BYTES: Final = 1 << 20
_LEVEL: Final = 10
#: Most bytes that a part can unpack to: one entry may be as large as a blob, but such a one is not in here.
_MOST: Final = 1 << 28
#: What a sealed part is bound to, with its key.
BODY: Final = "cold_history.body"

_c = cold_history.c
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[tuple[int, float, int, bytes | None]]).decode


class Stored(NamedTuple):
    """An entry as its row had it: `body` is JSON, or None where `blob` holds it; `size` bytes."""

    number: int
    at: float
    mark: int
    body: bytes | None
    blob: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """Some entries next to each other of what a compaction took, packed."""

    first: int
    last: int
    entries: int
    size: int
    packed: bytes
    blob: str | None


def packed(entries: Iterable[Stored]) -> Iterator[Part]:
    """Entries as parts; one that a blob holds is a part of its own."""
    chunk: list[Stored] = []
    for entry in entries:
        if chunk and (entry.blob or len(chunk) == _ENTRIES or sum(one.size for one in chunk) + entry.size > _BYTES):
            yield _part(chunk)
            chunk = []
        chunk.append(entry)
        if entry.blob:
            yield _part(chunk)
            chunk = []
    if chunk:
        yield _part(chunk)


def _part(chunk: Sequence[Stored]) -> Part:
    listed = [(one.number, one.at, one.mark, one.body) for one in chunk]
    size = sum(one.size for one in chunk)
    return Part(chunk[0].number, chunk[-1].number, len(chunk), size, compressed(_pack(listed)), chunk[0].blob)


def compressed(data: bytes) -> bytes:
    """The body of a part."""
    return zstd.compress(data, _LEVEL)


def uncompressed(data: bytes) -> bytes:
    """What a body holds. Raises StorageError."""
    reader = zstd.ZstdDecompressor()
    try:
        found = reader.decompress(data, max_length=_MOST)
    except zstd.ZstdError as fault:
        raise StorageError(f"messages that were put away are damaged: {fault}") from fault
    if not reader.eof:
        raise StorageError(f"messages that were put away are damaged: they claim over {_MOST:,} bytes")
    return found


def texts(packed: bytes) -> list[str]:
    """The entries in a body, as JSON text. Raises StorageError."""
    return [body.decode() for *_, body in _unpack(uncompressed(packed)) if body is not None]


def rewritten(packed: bytes, change: Callable[[str], str]) -> bytes | None:
    """A body with each entry's JSON text as `change` has it; None where that changes nothing. Raises StorageError."""
    listed = _unpack(uncompressed(packed))
    new = [(*rest, None if body is None else change(body.decode()).encode()) for *rest, body in listed]
    return compressed(_pack(new)) if new != listed else None


_ADD = Query(
    insert(cold_history).values(
        {c: bindparam(f"new_{c}") for c in ("session_id", "compaction", "first", "last", "entries", "size", "body")}
        | {"blob": bindparam("new_blob"), "at": now()}
    )
)
_this = (_c.session_id == bindparam("session"),)
_of = (*_this, _c.compaction == bindparam("of"))
_PARTS = Query(
    select(_c.compaction, _c.first, _c.body, _c.blob, _c.size)
    .where(
        *_this,
        (_c.compaction > bindparam("after"))
        | ((_c.compaction == bindparam("after")) & (_c.first > bindparam("beyond"))),
    )
    .order_by(_c.compaction, _c.first)
    .limit(bindparam("most"))
)
_OF = Query(select(_c.first, _c.body, _c.blob, _c.size).where(*_of).order_by(_c.first))
_NEWEST = Query(select(_c.compaction).where(*_this).order_by(_c.compaction.desc()).limit(1))
_DROP = Query(delete(cold_history).where(*_of))
_BLOBS = Query(select(_c.blob).where(*_this, _c.blob.is_not(None)))


def add(tx: Transaction, session_id: str, compaction: int, part: Part) -> int:
    """Keep a part; gives the bytes that it takes."""
    body = tx.seal_bytes(part.packed, BODY, session_id, compaction, part.first)
    values: dict[str, Any] = {
        "session_id": session_id, "compaction": compaction, "first": part.first, "last": part.last,
        "entries": part.entries, "size": part.size, "body": body, "blob": part.blob,
    }  # fmt: skip
    tx.run(_ADD, **{f"new_{name}": value for name, value in values.items()})
    return len(body)


def load(
    tx: Transaction, session_id: str, after: tuple[int, int] = (0, 0), most: int = 1
) -> list[tuple[tuple[int, int], list[Stored]]]:
    """Parts after a place, in the order of compactions: (place, entries). Raises StorageError and what seals raise."""
    found = []
    for compaction, first, body, blob, size in tx.rows(
        _PARTS, session=session_id, after=after[0], beyond=after[1], most=most
    ):
        found.append(((compaction, first), _entries(tx, session_id, compaction, first, bytes(body), blob, size)))
    return found


def _entries(
    tx: Transaction, session_id: str, compaction: int, first: int, body: bytes, blob: str | None, size: int
) -> list[Stored]:
    data = uncompressed(tx.open_bytes(body, BODY, session_id, compaction, first))
    try:
        listed = _unpack(data)
    except msgspec.MsgspecError as fault:
        raise StorageError(f"messages of {session_id} that were put away are damaged: {fault}") from fault
    return [
        Stored(number, at, mark, text_, blob, size if text_ is None else len(text_))
        for number, at, mark, text_ in listed
    ]


def newest(tx: Transaction, session_id: str) -> int | None:
    """The last compaction of a session that anything is kept of."""
    found: int | None = tx.value(_NEWEST, session=session_id)
    return found


def of_compaction(tx: Transaction, session_id: str, compaction: int) -> list[list[Stored]]:
    """All parts of a compaction. Raises as `load`."""
    return [
        _entries(tx, session_id, compaction, first, bytes(body), blob, size)
        for first, body, blob, size in tx.rows(_OF, session=session_id, of=compaction)
    ]


def drop(tx: Transaction, session_id: str, compaction: int) -> None:
    """Delete what is kept of a compaction, but for its blobs."""
    tx.run(_DROP, session=session_id, of=compaction)


def blobs_of(tx: Transaction, session_id: str) -> list[str]:
    """Hashes of the blobs that hold entries of a session that were put away."""
    return [row[0] for row in tx.rows(_BLOBS, session=session_id)]


__all__ = [
    "Part",
    "Stored",
    "add",
    "blobs_of",
    "cold_history",
    "compressed",
    "drop",
    "load",
    "newest",
    "of_compaction",
    "packed",
    "rewritten",
    "texts",
]
