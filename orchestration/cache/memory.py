"""The copies of cached results in this process: the least recently used go first; bounded in number and bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import msgspec
from cachetools import LRUCache

from ...storage.cache.cutoffs import Cutoff
from ...storage.cache.entries import Entry

#: What an entry takes beside its JSON, about, in bytes.
_OVERHEAD = 600


class Copy(msgspec.Struct, frozen=True):
    """An entry (without its stored body) with its result as JSON, neither compressed nor sealed."""

    entry: Entry
    body: bytes
    scope: tuple[str, str, str, tuple[str, ...]]


class Memory:
    """Copies by key. Safe in threads."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.start()

    def start(self) -> None:
        """Forget everything; with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._kept: LRUCache[str, Copy] = LRUCache(self._max_bytes, getsizeof=_size)
        #: How many copies have gone because there was no room.
        self.evicted = 0

    def get(self, key: str) -> Copy | None:
        """The copy of that key, fresh or not."""
        with self._lock:
            return self._kept.get(key)

    def put(self, copy: Copy) -> None:
        """Keep a copy, unless it alone is larger than all that may be kept."""
        if _size(copy) > self._max_bytes:
            return
        with self._lock:
            kept, key = self._kept, copy.entry.key
            kept.pop(key, None)
            before = len(kept)
            kept[key] = copy
            self.evicted += before + 1 - len(kept)
            while len(kept) > self._max_entries:
                kept.popitem()
                self.evicted += 1

    def remove(self, keys: Iterable[str]) -> None:
        """Forget these keys."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)

    def apply(self, cutoffs: Iterable[Cutoff]) -> None:
        """Forget what was invalidated."""
        cutoffs = list(cutoffs)
        with self._lock:
            gone = [key for key, copy in self._kept.items() if any(hits(c, copy.entry) for c in cutoffs)]
            for key in gone:
                del self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()

    def figures(self, tenant: str = "") -> tuple[int, int]:
        """How many copies of a tenant's there are, and their bytes."""
        with self._lock:
            sizes = [_size(copy) for copy in self._kept.values() if copy.entry.tenant == tenant]
        return len(sizes), sum(sizes)


def hits(cutoff: Cutoff, entry: Entry) -> bool:
    """Whether an invalidation means an entry."""
    if cutoff.generation <= entry.generation or cutoff.tenant not in (entry.tenant, None):
        return False
    kind, value = cutoff.kind, cutoff.value
    return (
        kind == "everything"
        or (kind == "key" and value == entry.key)
        or (kind == "agent" and value == entry.agent)
        or (kind == "content" and value == entry.content)
        or (kind == "tag" and value in entry.tags)
    )


def _size(copy: Copy) -> int:
    return len(copy.body) + _OVERHEAD
