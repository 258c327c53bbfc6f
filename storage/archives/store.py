"""The folder of archives: one file each, in one of 256 folders, with a lock for who makes, restores or deletes there.

    3f/<session id>-<random>.archive

A file appears whole or not at all: written under a hidden name, synced, renamed. Files that no row names are leftovers
of whoever was killed; they are deleted by the next who has the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ...errors import ArchiveError, StorageError
from .. import disk, tar
from ..disk import explained, sync_folder
from ..faults import point

#: What killed processes left may be deleted after so long, in seconds.
LEFT_SECONDS: Final = 3600.0
SUFFIX: Final = ".archive"
MANIFEST: Final = "manifest"
_FILE: Final = re.compile(r"([0-9a-f-]{36})-[0-9a-f]{8}\.archive")
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_TEMPORARY: Final = ".tmp-"
_COPY: Final = 1 << 20


class ArchiveStore:
    """Archives under one folder; safe for several processes and threads."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, file: str) -> Path:
        """Where the file of an archive is. Raises StorageError for what is no name of one."""
        found = _FILE.fullmatch(file)
        if found is None:
            raise StorageError(f"{file!r:.120} is not the name of an archive")
        return self._folder(found[1]) / file

    def _folder(self, session_id: str) -> Path:
        return self.root / session_id[-2:]

    @contextlib.contextmanager
    def holding(self, session_id: str) -> Iterator[None]:
        """Be the only one who makes, restores or deletes the archive of a session (and of some others)."""
        folder = self._folder(session_id)
        with self._held(folder):
            yield

    @contextlib.contextmanager
    def _held(self, folder: Path) -> Iterator[None]:
        with explained(f"the folder of archives {folder} cannot be used"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with explained(f"the folder of archives {folder} cannot be locked"):
                alone = disk.lock(handle, fcntl.LOCK_EX)
            if not alone:
                raise ArchiveError(f"{folder}: an archive is being made or restored; try again later")
            yield
        finally:
            os.close(handle)

    # -- only while `holding` ----------------------------------------------------------------------------------------

    def new(self, session_id: str) -> str:
        """A name for an archive of a session."""
        return f"{session_id}-{secrets.token_hex(4)}{SUFFIX}"

    def spool(self, session_id: str) -> BinaryIO:
        """A file without a name, which is gone with the process."""
        with explained(f"an archive of session {session_id} cannot be written"):
            return tempfile.TemporaryFile(dir=self._folder(session_id))

    def publish(self, file: str, manifest: bytes, spool: BinaryIO) -> int:
        """Make an archive of its manifest and what was put in the spool as a tar; gives its bytes."""
        path = self.path(file)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        with explained(f"the archive {file} cannot be written"):
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                    tar.write(out, MANIFEST, len(manifest), [manifest])
                    spool.seek(0)
                    shutil.copyfileobj(spool, out, _COPY)
                    tar.finish(out)
                    out.flush()
                    os.fsync(out.fileno())
                    size = out.tell()
                point("before-archive-rename")
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            for folder in (path.parent, self.root):
                sync_folder(folder)
        point("after-archive-rename")
        return size

    def put(self, file: str, pieces: Iterable[bytes]) -> None:
        """Write an archive as it was read."""
        path = self.path(file)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        with explained(f"the archive {file} cannot be written"):
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
                    for piece in pieces:
                        out.write(piece)
                    out.flush()
                    os.fsync(out.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)

    def remove(self, file: str) -> bool:
        """Delete an archive; False if it is not there."""
        path = self.path(file)
        with explained(f"the archive {file} cannot be deleted"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            sync_folder(path.parent)
        return True

    def clean(self, session_id: str, kept: str | None) -> None:
        """Delete what killed processes left of a session, but for the file that its row names."""
        folder = self._folder(session_id)
        for path in folder.glob(f"{session_id}-*{SUFFIX}"):
            if path.name != kept:
                self.remove(path.name)

    def temporary(self, session_id: str) -> Path:
        """A new folder for what is looked at."""
        folder = self._folder(session_id)
        with explained(f"the folder of archives {folder} cannot be used"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))

    # -- at any time -------------------------------------------------------------------------------------------------

    def sweep(self, named: Callable[[], set[str]], age: float) -> int:
        """Delete what killed processes left more than `age` seconds ago: archives that are not `named`, temporary files
        and folders; gives how many. What is young may be somebody's: a restored backup writes archives before rows.
        """
        count = 0
        newest = time.time() - age
        folders = [one for one in self.root.iterdir() if _FOLDER.fullmatch(one.name)] if self.root.is_dir() else []
        for folder in folders:
            with self._held(folder), explained(f"the folder of archives {folder} cannot be swept"):
                old = [one for one in os.scandir(folder) if one.stat(follow_symlinks=False).st_mtime <= newest]
                kept = named() if any(_FILE.fullmatch(one.name) for one in old) else set()
                for entry in old:
                    is_left = _FILE.fullmatch(entry.name) and entry.name not in kept
                    if is_left or entry.name.startswith(_TEMPORARY):
                        count += 1
                        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        return count
