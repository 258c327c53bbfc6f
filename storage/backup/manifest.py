"""What a backup consists of: the one file that makes a backup out of chunks that lie about."""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from ...errors import BackupDamaged

FORMAT: Final = 2
#: Of the blobs, and of keyed state and histories that live elsewhere than in the database, beside the names of tables.
BLOBS: Final = "blobs of rows"
STATE: Final = "state elsewhere"
HISTORIES: Final = "histories elsewhere"
ARCHIVES: Final = "files of archives"
ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9]{6}-[0-9a-f]{6}")


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Some rows of a part: the name of the object that holds them, how many, and their bytes before compression."""

    name: str
    rows: int
    size: int


class Part(msgspec.Struct, frozen=True):
    """A table's rows, in order."""

    name: str
    columns: tuple[str, ...]
    rows: int
    size: int
    chunks: tuple[Chunk, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A backup. `number` counts the backups of a folder, `previous` and `previous_hash` name the one before: a folder
    that was put back to an older time, or a manifest that was replaced, can be seen.

    `naming` is the key that names of objects are made with; secret where the backup is sealed, else empty. `key` is the
    id of the one key that all in it is sealed with, at whatever depth, where a rotation has seen to that, else empty;
    `whole`, that it left nothing plain.
    """

    format: int
    id: str
    number: int
    kind: str  # full: each object was written anew; incremental: those that were there were not
    previous: str | None
    previous_hash: str | None
    created_at: float
    label: str
    celeriac: str
    revision: str  # of the schema
    database: str  # sqlite, postgresql
    compression: str
    sealed: bool
    naming: bytes
    parts: tuple[Part, ...]
    written: int  # bytes that this backup added to the folder
    key: str = ""
    whole: bool = False

    @property
    def size(self) -> int:
        """Bytes of its content before compression, blobs included."""
        return sum(part.size for part in self.parts)

    def part(self, name: str) -> Part | None:
        """The part of that name."""
        return next((part for part in self.parts if part.name == name), None)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Manifest)


def number_of(backup_id: str) -> int:
    """The number in the id of a backup."""
    return int(backup_id.split("-")[1])


def encode(manifest: Manifest) -> bytes:
    """As it is kept."""
    return _ENCODER.encode(manifest)


def decode(data: bytes, backup_id: str) -> Manifest:
    """A manifest whose bytes are known to be whole. Raises BackupDamaged for one of another format."""
    try:
        found = _DECODER.decode(data)
    except msgspec.DecodeError as fault:
        raise BackupDamaged(f"{backup_id}: its manifest is of another format: {fault}") from None
    if found.format != FORMAT or found.id != backup_id:
        raise BackupDamaged(
            f"{backup_id}: its manifest is of format {found.format} and says {found.id!r}; "
            f"this Celeriac reads format {FORMAT}"
        )
    return found


def hash_of(stored: bytes) -> str:
    """The hash by which the next manifest knows this one: over its file."""
    return hashlib.blake2b(stored, digest_size=32, person=b"celeriac-chain").hexdigest()


def object_name(kind: str, content: bytes, naming: bytes) -> str:
    """The name of an object: a hash of what it holds, rows or a blob."""
    made = hashlib.blake2b(kind.encode() + b"\0", digest_size=32, key=naming, person=b"celeriac-object")
    made.update(content)
    return made.hexdigest()
