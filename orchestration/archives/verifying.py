"""Opening archives, and reading them through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...errors import ArchiveDamaged, BackupDamaged, StorageError
from ...storage.archives import tables as rows
from ...storage.archives.file import ArchiveFile
from ...storage.archives.store import ArchiveStore
from ...storage.archives.tables import Row
from ...storage.tar import TarRefused
from ..backups.content import Kept, Verified, read_all
from ..engine import Engine


@contextlib.contextmanager
def opened(engine: Engine, store: ArchiveStore, row: Row) -> Iterator[ArchiveFile]:
    """An archive for the length of the `with` block. Raises ArchiveDamaged, KeyMissing."""
    archive = ArchiveFile(store.path(row.file), row, engine.keyring)
    try:
        yield archive
    finally:
        archive.close()


@contextlib.contextmanager
def opened_now(engine: Engine, store: ArchiveStore, row: Row) -> Iterator[ArchiveFile]:
    """As `opened`, for who does not hold the archive: a rotation of keys may bring it into another file meanwhile."""
    archive = _of_now(engine, store, row)
    try:
        yield archive
    finally:
        archive.close()


def _of_now(engine: Engine, store: ArchiveStore, row: Row) -> ArchiveFile:
    try:
        return ArchiveFile(store.path(row.file), row, engine.keyring)
    except ArchiveDamaged:
        found = engine.database.read(lambda tx: rows.get(tx, row.session_id))
        if found is None or found.file == row.file:
            raise
        return _of_now(engine, store, found)


def read_back(archive: ArchiveFile) -> Verified:
    """Read and check all of an archive. Raises KeyMissing."""
    found = Verified(archive.id)
    try:
        kept = Kept(archive, archive.manifest)
        read_all(kept, found)
        if unknown := archive.names - set(kept.objects()):
            raise BackupDamaged(f"it has {len(unknown)} pieces that its manifest does not name")
    except (BackupDamaged, ArchiveDamaged, TarRefused, StorageError) as fault:
        found.problems.append(f"the archive {archive.id} is damaged: {fault}")
    return found
