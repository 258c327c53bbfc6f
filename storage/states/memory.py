"""State in this process's memory: gone with it, and not seen by others."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from .protocol import Capabilities, Entry, Origin, Watch, Write, beyond, conflict

#: After so many writes with a time to live, those whose time is over are looked for.
_SWEEP_EVERY = 1000

Values = dict[str, tuple[Entry, float]]


class MemoryBackend:
    """Values in dictionaries, under one lock. Those past their time to live are dropped when they are met."""

    capabilities = Capabilities(durable=False, shared=False)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._scopes: dict[str, Values] = {}
        #: Keys of a scope in order; made when they are asked for, dropped when a key comes or goes.
        self._ordered: dict[str, list[str]] = {}
        #: Scopes in which something has a time to live, and how many such writes there were since the last sweep.
        self._passing: set[str] = set()
        self._unswept = 0
        self._lock = threading.Lock()
        self._clock = clock
        # From the clock: no version of a backend that was here before is given again.
        self._version = time.time_ns() // 1000

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        with self._lock:
            values = self._scopes.get(scope)
            if not values:
                return {}
            kept = ((key, self._kept(values, key)) for key in keys)
            return {key: entry for key, entry in kept if entry is not None}

    def _kept(self, values: Values, key: str) -> Entry | None:
        kept = values.get(key)
        if kept is None or kept[0].passing and kept[1] <= self._clock():
            return None
        return kept[0]

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        with self._lock:
            values = self._scopes.setdefault(scope, {})
            known = [self._kept(values, write.key) for write in writes]
            for write, entry in zip(writes, known, strict=True):
                found = entry.version if entry is not None else 0
                if write.expected is not None and write.expected != found:
                    raise conflict(scope, write.key, write.expected, found)
            versions = [self._write(scope, values, *one) for one in zip(writes, known, strict=True)]
            if self._unswept >= _SWEEP_EVERY:
                self._sweep()
            return versions

    def _write(self, scope: str, values: Values, write: Write, known: Entry | None) -> int:
        if (write.key in values) != (write.body is not None):
            self._ordered.pop(scope, None)
        if write.body is None:
            values.pop(write.key, None)
            if known is None:
                return 0
            self._version += 1
            return self._version
        until = 0.0
        if write.ttl is not None:
            until = self._clock() + write.ttl
            self._passing.add(scope)
            self._unswept += 1
        self._version += 1
        values[write.key] = (Entry(write.body, self._version, write.meta, write.ttl is not None), until)
        return self._version

    def _sweep(self) -> None:
        self._unswept = 0
        for scope in list(self._passing):
            self._drop_past(scope)

    def _drop_past(self, scope: str) -> None:
        values, moment = self._scopes.get(scope, {}), self._clock()
        passing = [(key, until) for key, (entry, until) in values.items() if entry.passing]
        past = [key for key, until in passing if until <= moment]
        for key in past:
            del values[key]
        if past:
            self._ordered.pop(scope, None)
        if len(past) == len(passing):
            self._passing.discard(scope)

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        with self._lock:
            if scope in self._passing:
                self._drop_past(scope)
            values = self._scopes.get(scope)
            if not values:
                return []
            ordered = self._ordered.get(scope)
            if ordered is None:
                ordered = self._ordered[scope] = sorted(values)
            start = max(bisect_left(ordered, prefix), bisect_right(ordered, after) if after else 0)
            top = beyond(prefix)
            end = bisect_left(ordered, top) if top is not None else len(ordered)
            return ordered[start : end if limit is None else min(end, start + limit)]

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        with self._lock:
            values, moment = self._scopes.get(scope, {}), self._clock()
            found = {key: values[key] for key in keys if key in values}
            return {key: until - moment for key, (entry, until) in found.items() if entry.passing and until > moment}

    def scopes(self) -> list[str]:
        with self._lock:
            return sorted(scope for scope, values in self._scopes.items() if values)

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        with self._lock:
            self._drop_past(scope)
            self._passing.discard(scope)
            self._ordered.pop(scope, None)
            return len(self._scopes.pop(scope, ()))

    def watch(self) -> Watch | None:
        return None

    def close(self) -> None:
        """Nothing is open."""
