"""The folder of backups: objects that backups share, a manifest for each backup, locks between those who use it.

    objects/ab/ab12...      a chunk of rows, or a blob
    <id>.backup             the manifest; what has none is no backup
    <id>.kept               an empty file: the backup is marked, and stays

Each file appears whole or not at all: written under a hidden name, synced, renamed; the manifest last. So a process
that dies leaves objects that no manifest names, which `sweep` deletes. Whoever reads holds `.objects` shared, whoever
deletes holds it alone; whoever writes a backup holds `.writer`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ...errors import BackupDamaged, BackupError, BackupNotFound
from .. import disk
from ..disk import explained, sync_folder
from ..keys.sealing import KeyRing, is_sealed, key_of
from . import wrapping
from .manifest import ID, Manifest, decode, encode, hash_of, number_of
from .wrapping import Bytes

#: Largest manifest, in bytes: that of some terabytes.
MOST_MANIFEST: Final = 1 << 28
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_TEMPORARY: Final = ".tmp-"
#: Folders in which what comes in is unpacked.
IMPORTING: Final = ".import-"
_BACKUP: Final = ".backup"
_KEPT: Final = ".kept"
_FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC
#: What sealing and compression add to a piece at most.
AROUND: Final = 1 << 20
#: Bytes in which the name of the key stands.
_START: Final = 512


class BackupStore:
    """Backups under one folder; safe for several processes and threads."""

    def __init__(self, root: Path, keyring: KeyRing | None = None) -> None:
        self.root = root
        self.keyring = keyring
        self._objects = root / "objects"
        self._dirty: set[Path] = set()
        self._noting = threading.Lock()

    # -- locks -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes a backup, while nobody deletes."""
        self._make(self.root)
        with self._locked(".writer", fcntl.LOCK_EX, "a backup is being written"), self.reading():
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep others from deleting objects."""
        with self._locked(".objects", fcntl.LOCK_SH, "backups are being deleted"):
            yield

    @contextlib.contextmanager
    def deleting(self) -> Iterator[None]:
        """Be the only one at the objects."""
        with self._locked(".objects", fcntl.LOCK_EX, "a backup is being written or read"):
            yield

    @contextlib.contextmanager
    def _locked(self, name: str, kind: int, busy: str) -> Iterator[None]:
        if not self.root.is_dir():
            yield
            return
        with explained(f"the lock {name} of {self.root}"):
            handle = self._lock_file(name, kind)
        if handle is None:
            yield
            return
        try:
            with explained(f"the lock {name} of {self.root}"):
                locked = disk.lock(handle, kind)
            if not locked:
                raise BackupError(f"{self.root}: {busy}, for over {disk.PATIENCE:g} s; try again later")
            yield
        finally:
            os.close(handle)

    def _lock_file(self, name: str, kind: int) -> int | None:
        """The file of a lock, open. It can be shared where nothing can be written, and need not be there: None."""
        path = self.root / name
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as fault:
            if kind != fcntl.LOCK_SH or fault.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | _FLAGS)
        return None

    # -- objects -----------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether there is an object of that name; its content is not checked."""
        with contextlib.suppress(FileNotFoundError):
            return self._path(name).stat().st_size > 0
        return False

    def put(self, name: str, content: bytes, compression: str) -> int:
        """Write an object; gives the bytes that it takes. `settle` makes sure that the folders know of it."""
        stored = wrapping.wrap(content, compression, f"object {name}", self.keyring)
        path = self._path(name)
        with explained(f"the object {name} of a backup cannot be written"):
            self._make(path.parent)
            _write(path, stored)
        with self._noting:
            self._dirty.add(path.parent)
        return len(stored)

    def get(self, name: str, sealed: bool) -> bytes:
        """The content of an object. Raises BackupDamaged, also if it is not `sealed` and should be; KeyMissing."""
        return b"".join(self.bits(name, sealed))

    def bits(self, name: str, sealed: bool) -> Iterator[Bytes]:
        """The content of an object, bit by bit. Raises as `get`."""
        what = f"object {name}"
        stored = _read(self._path(name), what, wrapping.MOST_BYTES + AROUND)
        if sealed and not is_sealed(stored):
            raise BackupDamaged(f"{what} of the backup is not sealed, but its backup is")
        yield from wrapping.unwrapped(stored, what, self.keyring)

    def key_of(self, name: str) -> str | None:
        """The id of the key that an object is sealed with; None for one that is not. Raises BackupDamaged."""
        what = f"object {name}"
        with explained(f"the {what} of a backup cannot be read"):
            try:
                with open(os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK | _FLAGS), "rb") as file:
                    start = file.read(_START)
            except FileNotFoundError:
                raise BackupDamaged(f"{what} of the backup is missing") from None
        return key_of(start, what) if is_sealed(start) else None

    def adopt(self, path: Path) -> None:
        """Take an object over that lies elsewhere on this disk under its name, and is known to be sound."""
        place = self._path(path.name)
        with explained(f"the object {path.name} of a backup cannot be taken over"):
            self._make(place.parent)
            os.replace(path, place)
        with self._noting:
            self._dirty.add(place.parent)

    def settle_root(self) -> None:
        """Sync the folder of the manifests."""
        sync_folder(self.root)

    def settle(self) -> None:
        """Sync the folders of all objects that were put."""
        with self._noting:
            folders, self._dirty = self._dirty, set()
        for folder in folders:
            sync_folder(folder)
        if folders:
            sync_folder(self._objects)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise BackupDamaged(f"{name!r:.80} is not the name of an object")
        return self._objects / name[:2] / name

    def _make(self, folder: Path) -> None:
        with explained(f"the folder {folder} cannot be made"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    # -- manifests ---------------------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The ids of all backups, the oldest first."""
        if not self.root.is_dir():
            return []
        with explained(f"the folder of backups {self.root} cannot be read"):
            names = [path.name.removesuffix(_BACKUP) for path in self.root.iterdir() if path.name.endswith(_BACKUP)]
        return sorted((name for name in names if ID.fullmatch(name)), key=_place)

    def publish(self, manifest: Manifest) -> str:
        """Make a backup of what was put; gives the hash of its manifest."""
        self.settle()
        stored = wrapping.wrap(encode(manifest), "zstd", f"manifest {manifest.id}", self.keyring)
        with explained(f"backup {manifest.id} cannot be written"):
            _write(self.root / (manifest.id + _BACKUP), stored)
            sync_folder(self.root)
        return hash_of(stored)

    def stored(self, backup_id: str) -> bytes:
        """A manifest as it lies there. Raises BackupNotFound."""
        path = self.root / (backup_id + _BACKUP)
        if not ID.fullmatch(backup_id) or not path.is_file():
            raise BackupNotFound(
                f"no backup {backup_id!r} in {self.root}; `celeriac backup list` shows those there are"
            )
        return _read(path, f"manifest {backup_id}", MOST_MANIFEST)

    def manifest(self, backup_id: str) -> Manifest:
        """The manifest of a backup. Raises BackupNotFound, BackupDamaged, KeyMissing."""
        return self.opened(self.stored(backup_id), backup_id)

    def opened(self, stored: bytes, backup_id: str) -> Manifest:
        """A manifest whose file has these bytes."""
        found = decode(wrapping.unwrap(stored, f"manifest {backup_id}", self.keyring, MOST_MANIFEST), backup_id)
        if found.sealed != is_sealed(stored):
            raise BackupDamaged(f"backup {backup_id} says of itself that it is {'' if found.sealed else 'not '}sealed")
        return found

    def marked(self, backup_id: str) -> bool:
        """Whether a backup stays whatever its age."""
        return (self.root / (backup_id + _KEPT)).exists()

    def mark(self, backup_id: str, kept: bool) -> None:
        """Let a backup stay whatever its age, or not. Raises BackupNotFound."""
        self.stored(backup_id)
        path = self.root / (backup_id + _KEPT)
        if kept:
            path.touch(mode=0o600)
        else:
            path.unlink(missing_ok=True)

    def delete(self, backup_id: str) -> None:
        """Strike a backup off. Its objects go with `sweep`. Raises BackupNotFound."""
        self.stored(backup_id)
        with explained(f"backup {backup_id} cannot be deleted"):
            (self.root / (backup_id + _BACKUP)).unlink()
            (self.root / (backup_id + _KEPT)).unlink(missing_ok=True)
            sync_folder(self.root)

    def sweep(self, needed: Iterable[str], dry_run: bool = False) -> tuple[int, int]:
        """Delete objects that are not needed, and what killed writers left; gives how many, and their bytes. Only while
        `deleting`.
        """
        names = set(needed)
        count = size = 0
        folders = (
            [path for path in self._objects.iterdir() if _FOLDER.fullmatch(path.name)] if self._objects.is_dir() else []
        )
        for folder in (self.root, *folders) if self.root.is_dir() else ():
            for entry in list(os.scandir(folder)):
                if entry.name.startswith(IMPORTING):
                    if not dry_run:
                        shutil.rmtree(entry.path)
                    continue
                is_object = folder is not self.root and _NAME.fullmatch(entry.name)
                if entry.name.startswith(_TEMPORARY) or (is_object and entry.name not in names):
                    size += entry.stat(follow_symlinks=False).st_size
                    count += 1
                    if not dry_run:
                        os.unlink(entry.path)
        return count, size


def _place(backup_id: str) -> tuple[int, str]:
    return number_of(backup_id), backup_id


def _read(path: Path, what: str, most: int) -> bytes:
    """A regular file of `most` bytes at most."""
    with explained(f"{what} of the backup cannot be read"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
        except FileNotFoundError:
            raise BackupDamaged(f"{what} of the backup is missing: {path}") from None
        with open(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > most:
                raise BackupDamaged(f"{what} of the backup is no file of at most {most:,} bytes: {path}")
            return file.read(found.st_size)


def _write(path: Path, stored: bytes) -> None:
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    try:
        with open(handle, "wb") as file:
            file.write(stored)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
