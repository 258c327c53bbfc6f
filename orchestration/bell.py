"""Waking those in this process who wait for a session to change."""

from __future__ import annotations

import os
import threading
from collections import defaultdict


class Bell:
    """Counts rings for each session that somebody here waits for; nobody waiting, nothing kept."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._rings: dict[str, int] = {}
        self._waiting: dict[str, int] = defaultdict(int)

    def ring(self, session_id: str) -> None:
        """Wake those who wait for this session."""
        self._after_fork()
        if session_id in self._waiting:
            with self._changed:
                self._rings[session_id] = self._rings.get(session_id, 0) + 1
                self._changed.notify_all()

    def listen(self, session_id: str) -> Listening:
        """Start to listen; rings from now on are not missed. Use it as a context manager."""
        self._after_fork()
        return Listening(self, session_id)

    def _after_fork(self) -> None:
        """Begin anew in a forked process: the lock may have been held when it was forked, and nobody waits here."""
        if self._pid != os.getpid():
            self._begin()


class Listening:
    """One listener. `wait` returns at once if there was a ring since the last `wait`."""

    def __init__(self, bell: Bell, session_id: str) -> None:
        self._bell = bell
        self._id = session_id
        self._heard = 0

    def __enter__(self) -> Listening:
        with self._bell._changed:
            self._bell._waiting[self._id] += 1
            self._heard = self._bell._rings.get(self._id, 0)
        return self

    def __exit__(self, *_: object) -> None:
        bell = self._bell
        with bell._changed:
            bell._waiting[self._id] -= 1
            if not bell._waiting[self._id]:
                del bell._waiting[self._id]
                bell._rings.pop(self._id, None)

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; True if there was one."""
        bell = self._bell
        with bell._changed:
            rung = bell._changed.wait_for(lambda: bell._rings.get(self._id, 0) != self._heard, seconds)
            self._heard = bell._rings.get(self._id, 0)
            return rung
