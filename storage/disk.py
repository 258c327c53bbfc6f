"""What all folders of files have in common: locks with patience, synced folders, faults of the disk in words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import StorageError

#: How long `lock` tries, in seconds.
PATIENCE: Final = 60.0
_PAUSE: Final = 0.02


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Let faults of the disk be StorageError, which begins with `what`."""
    try:
        yield
    except OSError as fault:
        code = errno.errorcode.get(fault.errno or 0, "unknown error")
        raise StorageError(f"{what}: {fault.strerror or fault} ({code})") from fault


def sync_folder(folder: Path) -> None:
    """Make sure that what was made, renamed or deleted in a folder stays so when the power goes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(handle: int, kind: int) -> bool:
    """Lock an open file, `kind` is `LOCK_EX` or `LOCK_SH`. False: others had it all the time, for PATIENCE seconds."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
        time.sleep(_PAUSE)
