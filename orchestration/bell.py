"""Waking those in this process who wait for a session to change."""

from __future__ import annotations

import os
import threading
from collections import defaultdict

#: A session, and whether only what brings it to rest is listened for.
Heard = tuple[str, bool]


class Bell:
    """Counts rings for each session that somebody here waits for; nobody waiting, nothing kept."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._rings: dict[Heard, int] = {}
        self._waiting: dict[Heard, int] = defaultdict(int)

    def ring(self, session_id: str, at_rest: bool) -> None:
        """Wake those who wait for this session to change, and if it is now `at_rest` those who wait for that."""
        self._after_fork()
        for heard in ((session_id, False), (session_id, True)) if at_rest else ((session_id, False),):
            if heard in self._waiting:
                with self._changed:
                    self._rings[heard] = self._rings.get(heard, 0) + 1
                    self._changed.notify_all()

    def listen(self, session_id: str, at_rest: bool = False) -> Listening:
        """Start to listen for changes of a session, or only for those that bring it to rest (`at_rest`); rings from now
        on are not missed. Use it as a context manager.
        """
        self._after_fork()
        return Listening(self, (session_id, at_rest))

    def _after_fork(self) -> None:
        """Begin anew in a forked process: the lock may have been held when it was forked, and nobody waits here."""
        if self._pid != os.getpid():
            self._begin()


class Listening:
    """One listener. `wait` returns at once if there was a ring since the last `wait`."""

    def __init__(self, bell: Bell, heard: Heard) -> None:
        self._bell = bell
        self._id = heard
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
