"""Alarms: telling workers of steps at the moment that they become due, instead of at the next sweep.

They are in memory only. Those of a process that dies are lost, and the sweeper finds the steps.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

#: More steps than this are left to the sweeper.
MOST = 10_000


class Alarms:
    """Rings once for each (session, queue) with the number of its steps that have become due. Safe in threads."""

    def __init__(self, ring: Callable[[dict[tuple[str, str], int]], None]) -> None:
        self._ring = ring
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._due: list[tuple[float, str, str]] = []
        self._timer: threading.Timer | None = None
        self._timed: float | None = None
        self._lock = threading.Lock()

    def set(self, session_id: str, queue: str, delay: float) -> None:
        """Ring for a step in `delay` seconds."""
        if self._pid != os.getpid():  # the timer's thread has not come along
            self._forget()
        with self._lock:
            if len(self._due) < MOST:
                heapq.heappush(self._due, (time.monotonic() + delay, session_id, queue))
                self._wind()

    def _wind(self) -> None:
        """Have a timer for what is due first, and none for nothing."""
        first = self._due[0][0] if self._due else None
        if self._timer is not None:
            if first == self._timed:
                return
            self._timer.cancel()
        self._timer, self._timed = None, first
        if first is not None:
            self._timer = threading.Timer(max(first - time.monotonic(), 0), self._went_off)
            self._timer.daemon = True
            self._timer.start()

    def _went_off(self) -> None:
        due: Counter[tuple[str, str]] = Counter()
        with self._lock:
            self._timer = None
            while self._due and self._due[0][0] <= time.monotonic():
                due[self._due[0][1:]] += 1
                heapq.heappop(self._due)
            self._wind()
        if due:
            self._ring(due)

    def close(self) -> None:
        """Forget all that is not due yet."""
        with self._lock:
            self._due.clear()
            self._wind()
