"""A backup as one file, to be carried elsewhere: a tar of its manifest and its objects, as they lie in the folder.

What comes in is taken for hostile: only regular files of the names that a backup has are read, into a folder of their
own, and nothing is taken over before all of it has been checked.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ...errors import BackupDamaged, BackupError, StorageError
from .manifest import ID
from .store import IMPORTING, BackupStore

_MEMBER: Final = re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_BACKUP: Final = ".backup"
_COPY: Final = 1 << 20


def write(store: BackupStore, backup_id: str, names: Iterator[str], file: Path) -> int:
    """Write a backup with its objects to a new file, whole or not at all; gives its bytes."""
    if file.exists():
        raise BackupError(f"{file} is there already; nothing was written")
    temporary = file.with_name(f".{file.name}-{secrets.token_hex(6)}")
    try:
        with open(temporary, "xb") as stream:
            os.chmod(temporary, 0o600)
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                tar.add(store.root / (backup_id + _BACKUP), backup_id + _BACKUP, recursive=False)
                for name in dict.fromkeys(names):
                    inside = f"objects/{name[:2]}/{name}"
                    tar.add(store.root / inside, inside, recursive=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as fault:
        raise StorageError(f"the backup cannot be written to {file}: {fault.strerror or fault}") from fault
    finally:
        temporary.unlink(missing_ok=True)
    return file.stat().st_size


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
    except (OSError, tarfile.TarError) as fault:
        raise BackupDamaged(f"{file} is no exported backup: {fault}") from fault
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _extracted(file: Path, folder: Path) -> str:
    found = ""
    with tarfile.open(file, mode="r|") as tar:
        for member in tar:
            backup_id = member.name.removesuffix(_BACKUP)
            if not found and ID.fullmatch(backup_id) and member.name.endswith(_BACKUP):
                found = backup_id
            elif not found or not _MEMBER.fullmatch(member.name):
                raise BackupDamaged(f"{file} is no exported backup: it has a member {member.name!r:.100}")
            if not member.isreg():
                raise BackupDamaged(f"{file}: {member.name} is no regular file")
            source = tar.extractfile(member)
            path = folder / member.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "xb") as stream:
                while source is not None and (piece := source.read(_COPY)):
                    stream.write(piece)
                stream.flush()
                os.fsync(stream.fileno())
    if not found:
        raise BackupDamaged(f"{file} is no exported backup: it is empty")
    return found


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
