"""Making a backup: one snapshot, read once, in pieces of some megabytes."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, Final, Protocol

from ...errors import BackupError, BlobNotFound, KeyMissing
from ...storage import schema
from ...storage.archives.tables import archives
from ...storage.backup import tables
from ...storage.backup.chunking import cut
from ...storage.backup.manifest import (
    ARCHIVES,
    BLOBS,
    FORMAT,
    HISTORIES,
    STATE,
    Chunk,
    Manifest,
    Part,
    hash_of,
    number_of,
    object_name,
)
from ...storage.backup.store import BackupStore
from ...storage.backup.transactions import alone
from ...storage.blobs import BlobStore
from . import archived, conversations
from .source import STATE_COLUMNS, Source, state_rows

#: A blob that a row of the snapshot names may be deleted before it is read: then a new snapshot is taken, so often.
_SNAPSHOTS: Final = 3
#: Objects that are compressed and written at once, and that may wait for it. Most of the time they wait for the disk,
#: which syncs several at once.
_THREADS: Final = 6
_WAITING: Final = 12
#: Name, the id of the key that it is sealed with (or nothing), bytes of its content.
BLOB_COLUMNS: Final = ("hash", "key", "bytes")


def create(source: Source, store: BackupStore, compression: str, full: bool, label: str) -> Manifest:
    """Make a backup; gives its manifest. Nothing of it can be seen if anything is raised."""
    with store.writing():
        previous, previous_hash, number = _before(store)
        naming = _naming(store)
        started = time.time()
        backup_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started))}-{number:06d}-{secrets.token_hex(3)}"
        writer = Writer(store, compression, naming, full)
        try:
            parts = _parts(source, writer)
        finally:
            writer.close()
        manifest = Manifest(
            format=FORMAT,
            id=backup_id,
            number=number,
            kind="full" if full or previous is None else "incremental",
            previous=previous,
            previous_hash=previous_hash,
            created_at=started,
            label=label,
            celeriac=version("celeriac"),
            revision=schema.HEAD,
            database=source.kind,
            compression=compression,
            sealed=store.keyring is not None,
            naming=naming,
            parts=tuple(parts),
            written=writer.written,
        )
        store.publish(manifest)
        return manifest


def _before(store: BackupStore) -> tuple[str | None, str | None, int]:
    """Id of the newest backup, the hash of its manifest's file, and the number of the next; whether it opens or not."""
    ids = store.ids()
    if not ids:
        return None, None, 1
    return ids[-1], hash_of(store.stored(ids[-1])), number_of(ids[-1]) + 1


def _naming(store: BackupStore) -> bytes:
    """The key to name objects with: that of the newest backup that opens and is sealed as the next one will be, so that
    what it has need not be written again.
    """
    sealed = store.keyring is not None
    for backup_id in reversed(store.ids()):
        with contextlib.suppress(BackupError, KeyMissing):
            found = store.manifest(backup_id)
            if found.sealed == sealed:
                return found.naming
    return secrets.token_bytes(32) if sealed else b""


class Writer:
    """Puts objects that are not there yet, in threads of its own: compression and the disk wait for each other."""

    def __init__(self, store: BackupStore, compression: str, naming: bytes, full: bool) -> None:
        self.store, self.compression, self.naming, self.full = store, compression, naming, full
        self.written = 0
        self._threads = ThreadPoolExecutor(_THREADS, "celeriac-backup")
        self._waiting: deque[Future[int]] = deque()
        self._put: set[str] = set()

    def rows(self, data: bytes) -> str:
        """Put a chunk of rows; gives its name."""
        name = object_name("rows", data, self.naming)
        if name not in self._put and (self.full or not self.store.has(name)):
            self._put.add(name)
            self._later(name, data, self.compression)
        return name

    def blob(self, blobs: BlobStore, name: str, key: str) -> None:
        """Put a blob as it lies there unless it is there already. Raises BlobNotFound."""
        found = blob_object(self.naming, name, key)
        if self.full or not self.store.has(found):
            self._later(found, blobs.stored(name), "none")  # it is compressed, and maybe sealed

    def _later(self, name: str, data: bytes, compression: str) -> None:
        self._waiting.append(self._threads.submit(self.store.put, name, data, compression))
        while len(self._waiting) > _WAITING:
            self.written += self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait until all is written. Raises StorageError."""
        while self._waiting:
            self.written += self._waiting.popleft().result()

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(cancel_futures=True)


def _parts(source: Source, writer: Writer) -> list[Part]:
    for last in (False,) * (_SNAPSHOTS - 1) + (True,):
        try:
            parts = _of_snapshot(source, writer)
            break
        except BlobNotFound as fault:
            if last:
                raise BackupError(f"a row refers to a blob that is not there: {fault}") from fault
    if source.backend is not None:
        parts.append(part_of(STATE, STATE_COLUMNS, state_rows(source.backend), writer))
    place = conversations.elsewhere(source.histories) if source.histories is not None else None
    if place is not None:
        parts.append(part_of(HISTORIES, conversations.COLUMNS, conversations.entry_rows(place), writer))
    writer.finish()
    return parts


def _of_snapshot(source: Source, writer: Writer) -> list[Part]:
    dialect = source.database.dialect
    with alone(source.database) as connection:
        # Blobs first: what a row of the snapshot names may be deleted meanwhile.
        parts = [part_of(BLOBS, BLOB_COLUMNS, _blobs(source, connection, writer), writer)]
        for table in tables.tables():
            rows = tables.stream(connection, dialect, table)
            parts.append(part_of(str(table.name), tables.columns(table), rows, writer))
        if source.archives is not None:
            files = [row[1] for row in tables.stream(connection, dialect, archives)]
            parts.append(part_of(ARCHIVES, archived.COLUMNS, archived.file_rows(source.archives, files), writer))
    return parts


def _blobs(source: Source, connection: Any, writer: Writer) -> Iterator[tuple[str, str, int]]:
    for name, needed in tables.referred_blobs(connection, source.database.dialect):
        try:
            key = source.blobs.key_of(name) or ""
            writer.blob(source.blobs, name, key)
            yield name, key, source.blobs.size(name)
        except BlobNotFound:
            if needed:
                raise


class PutsRows(Protocol):
    """Where chunks of rows go."""

    def rows(self, data: bytes) -> str:
        """Put a chunk of rows; gives its name."""


def part_of(name: str, columns: tuple[str, ...], rows: Iterable[Any], writer: PutsRows) -> Part:
    """Rows as a part of a manifest, put in chunks."""
    try:
        chunks = tuple(Chunk(writer.rows(data), count, len(data)) for count, data in cut(rows))
    finally:
        if isinstance(rows, Generator):
            rows.close()  # while its connection is open: let go of later, it would complain of a closed one
    return Part(name, columns, sum(one.rows for one in chunks), sum(one.size for one in chunks), chunks)


def blob_object(naming: bytes, name: str, key: str) -> str:
    """The name of the object that holds a blob: another one when it was sealed anew under another key."""
    return object_name("blob", f"{name} {key}".encode(), naming)
