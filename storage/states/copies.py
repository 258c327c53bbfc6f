"""Copies of values in this process, so that reading what has not changed asks nobody.

A copy is believed for 50 ms after it was read, or after the backend's watch last said that it has not changed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Final

from .protocol import Backend, Entry, Watch

#: How long a copy is believed, in seconds. With the time that asking takes it stays below the promised 100 ms.
SECONDS: Final = 0.05
#: Larger values are not copied, in bytes.
LARGEST: Final = 1 << 16
#: Entry (None: it is known that there is none), version, when the reading or writing began, when it was done.
Copy = tuple[Entry | None, int, float, float]
#: What is noted before a value is read or written: how often copies were dropped so far, and when.
Mark = tuple[int, float]


class Copies:
    """The copies of one backend's values: at most `most`, the ones kept longest ago go first."""

    def __init__(self, backend: Backend, most: int) -> None:
        self._backend = backend
        self._most = most
        self._known: OrderedDict[tuple[str, str], Copy] = OrderedDict()
        self._watch: Watch | None = None
        self._asked = False
        self._lock = threading.Lock()
        #: Up to when (monotonic) every copy is believed.
        self._believed = 0.0
        #: Rises when copies are dropped: what was read before that may be old, and is not kept.
        self._generation = 0
        _all.add(self)

    def find(self, scope: str, key: str) -> Copy | None:
        """The copy (entry or None, version, when it was read); None if there is none to be believed."""
        place = (scope, key)
        known = self._known.get(place)
        if known is None:
            return None
        moment = monotonic()
        if moment < known[2] + SECONDS or moment < self._believed:
            return known
        if not self._asked or self._watch is not None:
            self._look()
            return self._known.get(place) if monotonic() < self._believed else None
        return None

    def mark(self) -> Mark:
        """To be taken before a write, for `written`."""
        return self._generation, monotonic()

    def read(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        """Read from the backend, and keep copies."""
        generation, began = self.mark()
        found = self._backend.get(scope, keys)
        with self._lock:
            for key in keys if generation == self._generation else ():
                entry = found.get(key)
                known = self._known.get((scope, key))
                version = entry.version if entry is not None else 0
                if known is None or (began >= known[2] and (version >= known[1] or began >= known[3])):
                    self._keep((scope, key), (entry, version, began, began))
        return found

    def written(self, scope: str, key: str, entry: Entry | None, version: int, mark: Mark) -> None:
        """Keep what this process has just written, so that it reads its own writes; None: it was deleted."""
        generation, began = mark
        place = (scope, key)
        with self._lock:
            known = self._known.get(place)
            if generation != self._generation:  # the write may have been told of, and outdone, before this
                self._known.pop(place, None)
            elif known is None or version >= known[1]:
                self._keep(place, (entry, version, began, monotonic()))

    def forget(self, places: Iterable[tuple[str, str]]) -> None:
        """Drop copies of values that this process has changed."""
        with self._lock:
            self._generation += 1
            for place in places:
                self._known.pop(place, None)

    def forget_scope(self, scope: str) -> None:
        """Drop all copies of a scope that this process has cleared."""
        self.forget([place for place in list(self._known) if place[0] == scope])

    def _keep(self, place: tuple[str, str], copy: Copy) -> None:
        entry = copy[0]
        if entry is not None and (entry.passing or len(entry.body) > LARGEST):
            self._known.pop(place, None)
            return
        self._known[place] = copy
        self._known.move_to_end(place)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _look(self) -> None:
        """Ask the watch what has changed, and drop that."""
        with self._lock:
            began = monotonic()
            if began < self._believed:  # another thread has just asked
                return
            if not self._asked:
                self._watch, self._asked = self._backend.watch(), True
            if self._watch is None:
                return
            try:
                changed = self._watch.look()
            except Exception:  # it is away: whoever reads next is told so
                changed = None
            if changed is None:
                self._known.clear()
            for place in changed or ():
                self._known.pop(place, None)
            if changed is None or changed:
                self._generation += 1
            self._believed = began + SECONDS

    def close(self) -> None:
        """Drop all copies, and the watch."""
        with self._lock:
            watch, self._watch, self._asked = self._watch, None, False
            self._known.clear()
            self._generation += 1
        if watch is not None:
            watch.close()

    def after_fork(self) -> None:
        """In a child: locks of the parent may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._watch, self._asked = None, False
        self._known.clear()
        self._generation += 1


_all: weakref.WeakSet[Copies] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_all):
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork)
