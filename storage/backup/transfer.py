"""A backup as one file, to be carried elsewhere: a tar of its manifest and its objects, as they lie in the folder.

What comes in is taken for hostile (`storage/tar.py`): only files of the names that a backup has are read, into a folder
of their own, and nothing is taken over before all of it has been checked.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from ...errors import BackupDamaged, BackupError, StorageError
from .. import tar
from . import wrapping
from .manifest import ID
from .store import AROUND, IMPORTING, MOST_MANIFEST, BackupStore

_OBJECT: Final = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_BACKUP: Final = ".backup"
_COPY: Final = 1 << 20
#: Objects that a backup may have to be read from a file.
_MOST_OBJECTS: Final = 1_000_000


def write(store: BackupStore, backup_id: str, names: Iterator[str], file: Path) -> int:
    """Write a backup with its objects to a new file, whole or not at all; gives its bytes."""
    if file.exists():
        raise BackupError(f"{file} is there already; nothing was written")
    temporary = file.with_name(f".{file.name}-{secrets.token_hex(6)}")
    try:
        with open(temporary, "xb") as stream:
            os.chmod(temporary, 0o600)
            _add(stream, store.root, backup_id + _BACKUP)
            for name in dict.fromkeys(names):
                _add(stream, store.root, f"objects/{name[:2]}/{name}")
            tar.finish(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as fault:
        raise StorageError(f"the backup cannot be written to {file}: {fault.strerror or fault}") from fault
    finally:
        temporary.unlink(missing_ok=True)
    return file.stat().st_size


def _add(stream: BinaryIO, root: Path, name: str) -> None:
    with open(root / name, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        tar.write(stream, name, size, iter(lambda: source.read(_COPY), b""))


@contextmanager
def unpacked(store: BackupStore, file: Path) -> Iterator[tuple[BackupStore, str]]:
    """A backup from a file, in a folder of its own below that of the store, for the length of the `with` block; and its
    id. Raises BackupDamaged for a file with anything else in it.
    """
    store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = store.root / f"{IMPORTING}{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    try:
        yield BackupStore(folder, store.keyring), _extracted(file, folder)
    except (OSError, tar.TarRefused) as fault:
        raise BackupDamaged(f"{file} is no exported backup: {fault}") from fault
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extracted(file: Path, folder: Path) -> str:
    name = ""
    with open(file, "rb") as source:
        for _ in _members(source):  # all of it is looked through before anything is written
            pass
        for member in _members(source):
            name = name or member.name
            path = folder / member.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "xb") as stream:
                for piece in tar.pieces(source, member, _COPY):
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
    if not name:
        raise BackupDamaged(f"{file} is no exported backup: it is empty")
    return name.removesuffix(_BACKUP)


def _members(source: BinaryIO) -> Iterator[tar.Member]:
    """The manifest of a backup, then its objects. Raises TarRefused for anything else."""
    begun = False

    def most(name: str) -> int:
        if begun:
            return wrapping.MOST_BYTES + AROUND if _OBJECT.fullmatch(name) else 0
        is_manifest = name.endswith(_BACKUP) and ID.fullmatch(name.removesuffix(_BACKUP))
        return MOST_MANIFEST if is_manifest else 0

    for member in tar.members(source, most, _MOST_OBJECTS):
        begun = True
        yield member


def take_over(store: BackupStore, staged: BackupStore, backup_id: str) -> None:
    """Move what was unpacked and checked into the folder, the manifest last. Only while `writing`."""
    manifest = backup_id + _BACKUP
    if (store.root / manifest).exists():
        raise BackupError(f"backup {backup_id} is in {store.root} already")
    for path in sorted((staged.root / "objects").glob("*/*")):
        store.adopt(path)
    store.settle()
    os.replace(staged.root / manifest, store.root / manifest)
    store.settle_root()
