"""Who is alive on this machine: every process holds a lock on a file of its own for as long as it lives.

The kernel lets go of the lock when a process dies, however it dies. So a claim whose owner's lock can be taken is a
dead process's claim, and its steps can be run again at once, without waiting for the lease to end.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import socket
import threading
import weakref
from pathlib import Path

_all: weakref.WeakSet[Presence] = weakref.WeakSet()


class Presence:
    """This process's identity and its lock; and whether another's lock still stands. Follows forks by itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._nonce = ""
        self._token = ""
        self._file = -1
        self._counter = itertools.count(1)
        self._entering = threading.Lock()
        _all.add(self)

    @property
    def token(self) -> str:
        """`host:pid:nonce` of this process."""
        if self._pid != os.getpid():
            with self._entering:
                if self._pid != os.getpid():
                    self._enter()
        return self._token

    def claim(self) -> str:
        """A name for one claim, never given twice: `host:pid:nonce#n`."""
        return f"{self.token}#{next(self._counter)}"

    def _enter(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            nonce = secrets.token_hex(8)
            file = os.open(self._path(nonce), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                break
            os.close(file)  # swept away before it was locked
        self._nonce, self._file = nonce, file
        self._counter = itertools.count(1)
        self._token = f"{socket.gethostname()}:{os.getpid()}:{self._nonce}"
        self._pid = os.getpid()

    def forget(self) -> None:
        """In a forked process: let go of the parent's lock, which must not outlive the parent, and of its identity."""
        self._entering = threading.Lock()
        if self._file >= 0:
            os.close(self._file)
        self._file, self._pid, self._nonce = -1, 0, ""

    def leave(self) -> None:
        """Give the identity up at an orderly end."""
        if self._pid == os.getpid():
            self._path(self._nonce).unlink(missing_ok=True)
            os.close(self._file)
            self._file, self._pid = -1, 0

    def _path(self, nonce: str) -> Path:
        return self._folder / f"{nonce}.lock"

    def is_dead(self, claim: str) -> bool:
        """Whether the process that made a claim has died here. False also where that cannot be told (another
        machine).
        """
        host, _, nonce = claim.partition("#")[0].rsplit(":", 2) if claim.count(":") >= 2 else ("", "", "")
        # Of another host's process a lock on a shared folder says nothing: not every file system carries it over.
        return host == socket.gethostname() and self._is_free(nonce)

    def _is_free(self, nonce: str) -> bool:
        """Whether the lock of that process is there, and nobody holds it."""
        if nonce == self._nonce or not nonce.isalnum():
            return False
        try:
            file = os.open(self._path(nonce), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def sweep(self) -> None:
        """Remove the lock files of processes that are gone. Call it when none of their claims is left."""
        for path in self._folder.glob("*.lock"):
            if self._is_free(path.stem):
                path.unlink(missing_ok=True)


def _after_fork_in_child() -> None:
    for one in list(_all):
        one.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
