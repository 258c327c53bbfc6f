"""Reading a backup: every piece is checked before anything is made of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...errors import BackupDamaged, BackupError, CeleriacError, StorageError
from ...storage import schema
from ...storage.backup import tables
from ...storage.backup.chunking import rows_of
from ...storage.backup.manifest import ARCHIVES, BLOBS, HISTORIES, STATE, Chunk, Manifest, Part, hash_of, object_name
from ...storage.backup.store import BackupStore
from ...storage.backup.transactions import alone
from ...storage.backup.wrapping import Bytes
from ...storage.database import Database
from .creating import BLOB_COLUMNS, blob_object

NOT_TABLES = (BLOBS, STATE, HISTORIES, ARCHIVES)
#: Chunks that are read, checked and unpacked, in a thread, while the one before is being used.
_AHEAD = 1
#: Rows of a staged database that are handed over at once.
_BATCH = 500


class Content(Protocol):
    """The rows of a backup, table by table."""

    def columns(self, table: str) -> tuple[str, ...] | None:
        """The columns of a table; None where the backup has no such table."""

    def rows(self, table: str) -> Iterator[list[Any]]:
        """The rows of a table, some at a time. Raises BackupDamaged."""


class Objects(Protocol):
    """Where the pieces of a backup lie, or of an archive."""

    def get(self, name: str, sealed: bool) -> bytes:
        """The content of a piece. Raises BackupDamaged, also if it is not `sealed` and should be; KeyMissing."""

    def bits(self, name: str, sealed: bool) -> Iterator[Bytes]:
        """The content of a piece, bit by bit. Raises as `get`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup as it lies there. An object's own hash or seal, bound to its name, is always checked; with `twice` also
    that its content has the hash that this name is.
    """

    store: Objects
    manifest: Manifest
    twice: bool = False

    def columns(self, table: str) -> tuple[str, ...] | None:
        """The columns of a table; None where the backup has no such table."""
        part = self.manifest.part(table)
        return part.columns if part is not None else None

    def rows(self, table: str) -> Iterator[list[Any]]:
        """The rows of a part, a chunk at a time. Raises BackupDamaged."""
        part = self.manifest.part(table)
        if part is None:
            return
        with ThreadPoolExecutor(1, "celeriac-backup") as reader:
            ahead: deque[Future[list[Any]]] = deque()
            for chunk in part.chunks:
                ahead.append(reader.submit(self.chunk, part, chunk))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def packed(self, table: str) -> Iterator[tuple[Chunk, Iterator[Bytes]]]:
        """The chunks of a part as they were packed, each bit by bit. Raises BackupDamaged."""
        part = self.manifest.part(table)
        if part is None:
            return
        for chunk in part.chunks:
            yield chunk, self._bits(part, chunk)

    def chunk(self, part: Part, chunk: Chunk) -> list[Any]:
        """The rows of a chunk of a part. Raises BackupDamaged, KeyMissing."""
        rows = rows_of(self._data(part, chunk), len(part.columns))
        if len(rows) != chunk.rows:
            what = f"{self.manifest.id}: a chunk of {part.name}"
            raise BackupDamaged(f"{what} has {len(rows)} rows, its manifest names {chunk.rows}")
        return rows

    def _data(self, part: Part, chunk: Chunk) -> bytes:
        data = b"".join(self._bits(part, chunk))
        if self.twice and object_name("rows", data, self.manifest.naming) != chunk.name:
            raise self._is_another(part)
        return data

    def _bits(self, part: Part, chunk: Chunk) -> Iterator[Bytes]:
        """As many bytes as the chunk should have."""
        left = chunk.size
        for bit in self.store.bits(chunk.name, self.manifest.sealed):
            left -= len(bit)
            if left < 0:
                break
            yield bit
        if left:
            raise self._is_another(part)

    def _is_another(self, part: Part) -> BackupDamaged:
        return BackupDamaged(f"{self.manifest.id}: a chunk of {part.name} is another one than its manifest names")

    def blobs(self) -> Iterator[tuple[str, str]]:
        """Name of every blob, and the id of the key that it is sealed with (or nothing)."""
        part = self.manifest.part(BLOBS)
        if part is None or part.columns != BLOB_COLUMNS:
            raise BackupDamaged(f"{self.manifest.id} has no list of blobs")
        for rows in self.rows(BLOBS):
            yield from ((name, key) for name, key, _ in rows)

    def objects(self) -> Iterator[str]:
        """The names of all objects that the backup needs."""
        for part in self.manifest.parts:
            yield from (chunk.name for chunk in part.chunks)
        for name, key in self.blobs():
            yield blob_object(self.manifest.naming, name, key)

    def blob(self, name: str, key: str) -> bytes:
        """A blob as it lay there. Raises BackupDamaged."""
        return self.store.get(blob_object(self.manifest.naming, name, key), self.manifest.sealed)


@dataclass(slots=True)
class Verified:
    """What a look at all of a backup found. `chain`: first, whole, or gone (the backup before it was deleted)."""

    id: str
    objects: int = 0
    size: int = 0
    chain: str = "first"
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the backup can be restored."""
        return not self.problems


def verify(store: BackupStore, backup_id: str) -> Verified:
    """Read and check all of a backup. Raises BackupNotFound, and KeyMissing where a key is not known."""
    found = Verified(backup_id)
    with store.reading():
        try:
            kept = Kept(store, store.manifest(backup_id), twice=True)
            found.chain = _chain(store, kept.manifest)
            read_all(kept, found)
        except (BackupDamaged, StorageError) as fault:
            found.problems.append(str(fault))
    return found


def read_all(kept: Kept, found: Verified) -> None:
    """Read and check all pieces. Raises BackupDamaged for the first that is damaged, KeyMissing."""
    for part in kept.manifest.parts:
        for rows in kept.rows(part.name):
            del rows
        found.objects += len(part.chunks)
        found.size += part.size
    for name, key in kept.blobs():
        found.size += len(kept.blob(name, key))
        found.objects += 1


def _chain(store: BackupStore, manifest: Manifest) -> str:
    if manifest.previous is None:
        return "first"
    if manifest.previous not in store.ids():
        return "gone"
    if hash_of(store.stored(manifest.previous)) != manifest.previous_hash:
        raise BackupDamaged(
            f"backup {manifest.id} was made after another {manifest.previous} than the one that is there: "
            "that one was replaced or damaged"
        )
    return "whole"


class Staged:
    """A backup or an archive, brought to the present schema in a database of its own, in a temporary folder."""

    def __init__(self, kept: Kept, folder: Path) -> None:
        self.folder = folder
        self.database = Database(f"sqlite:///{folder / 'staged.db'}")
        manifest = kept.manifest
        try:
            if manifest.revision == schema.HEAD:
                schema.ensure(self.database)
            else:
                schema.upgrade(self.database, manifest.revision)
        except CeleriacError as fault:
            raise BackupError(
                f"{manifest.id} is of schema revision {manifest.revision}, which this Celeriac (revision "
                f"{schema.HEAD}) does not know: {fault}"
            ) from None
        with alone(self.database, write=True) as connection:
            for part in kept.manifest.parts:
                if part.name not in NOT_TABLES:
                    for rows in kept.rows(part.name):
                        tables.insert(connection, self.database.dialect, part.name, part.columns, rows)
        if manifest.revision != schema.HEAD:
            schema.upgrade(self.database)
        self._tables = {table.name: table for table in tables.tables()}

    def columns(self, table: str) -> tuple[str, ...] | None:
        """The columns of a table; None where there is no such table."""
        return tables.columns(self._tables[table]) if table in self._tables else None

    def rows(self, table: str) -> Iterator[list[Any]]:
        """The rows of a table, some at a time."""
        batch: list[Any] = []
        with alone(self.database) as connection:
            for row in tables.stream(connection, self.database.dialect, self._tables[table]):
                batch.append(row)
                if len(batch) >= _BATCH:
                    yield batch
                    batch = []
        yield batch

    def close(self) -> None:
        """Close the database."""
        self.database.dispose()
