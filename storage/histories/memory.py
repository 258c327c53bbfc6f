"""Conversations in this process's memory: gone with it, and not seen by others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from .protocol import Capabilities, Item, Kept, chosen, grown, named

#: Entries with their marks.
Talk = list[tuple[Kept, int]]


class MemoryPlace:
    """Conversations as lists, under one lock."""

    capabilities = Capabilities(durable=False, shared=False)

    def __init__(self) -> None:
        self._talks: dict[str, Talk] = {}
        self._lock = threading.Lock()

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        return self._append(conversation, items, None)

    def append_after(self, conversation: str, items: Iterable[Item], expected: int) -> tuple[int, int]:
        return self._append(conversation, items, expected)

    def _append(self, conversation: str, items: Iterable[Item], expected: int | None) -> tuple[int, int]:
        given = list(items)
        with self._lock:
            talk = self._talks.get(named(conversation), [])
            if expected is not None and len(talk) != expected:
                raise grown(conversation, expected, len(talk))
            moment, start = time.time(), len(talk) + 1
            for number, item in enumerate(given, start):
                talk.append((Kept(number, moment if item.at is None else item.at, item.body), item.mark))
            if talk:
                self._talks[conversation] = talk
            return start, len(talk)

    def load(
        self,
        conversation: str,
        first: int = 1,
        last: int | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        mark: int | None = None,
    ) -> list[Kept]:
        with self._lock:
            talk = self._talks.get(named(conversation), [])
            if mark is None:
                wanted = chosen(len(talk), first, last, limit, newest)
                return [kept for kept, _ in talk[wanted.start - 1 : wanted.stop - 1]]
            within = chosen(len(talk), first, last, None, newest)
            found = [kept for kept, its in talk[within.start - 1 : within.stop - 1] if its == mark]
        if limit is None:
            return found
        return found[max(len(found) - limit, 0) :] if newest else found[:limit]

    def count(self, conversation: str) -> int:
        with self._lock:
            return len(self._talks.get(named(conversation), ()))

    def delete(self, conversation: str, expected: int | None = None) -> int:
        with self._lock:
            found = len(self._talks.get(named(conversation), ()))
            if expected is not None and found != expected:
                raise grown(conversation, expected, found)
            self._talks.pop(conversation, None)
            return found

    def conversations(self) -> Iterator[str]:
        with self._lock:
            return iter(sorted(self._talks))

    def close(self) -> None:
        """Nothing is open."""
