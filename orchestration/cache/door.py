"""The cache as its callers have it: results of their own tenant, each operation checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import CacheError
from ..guard.access import CACHE, Access, Caller, Right, needs
from .hit import Hit
from .keys import Key
from .results import ResultCache


class CallersCache:
    """Cached results of the caller's tenant. Where access is on, `get` and `stats` need read on `cache`, what changes
    something needs write.

    Results of all permissions can be read through it: agents are given those of their own only.
    """

    def __init__(self, cache: ResultCache, access: Access, caller: Caller) -> None:
        self._cache = cache
        self._access = access
        self._caller = caller

    def _require(self, right: Right) -> None:
        self._access.require(self._caller, right, CACHE)

    @needs("read")
    def key(self, agent: str, request: Any, *, permissions: Iterable[str], version: str = "1") -> Key:
        """The key of what an agent answers to a request under these permissions. Raises CacheError, NotSerializable."""
        return self._cache.key(agent, request, permissions=permissions, version=version, tenant=self._caller.tenant)

    @needs("read")
    def get(self, key: Key) -> Hit | None:
        """The result of a key, or None: not there, too old, invalidated, or of another scope than the key's.

        A stale one is given for as long as it was stored to be served. A database or a Redis that does not answer is a
        miss.
        """
        return self._cache.get(self._own(key))

    def _own(self, key: Key) -> Key:
        if key.scope[0] != self._caller.tenant:
            raise CacheError(f"the key {key.hash} is not of this tenant; make it with this cache's `key`")
        return key

    @needs("read")
    def generation(self) -> int:
        """The number of the last invalidation. What is computed after this was asked, and put with it, is stored only
        if nothing that means it was invalidated in between.
        """
        return self._cache.generation()

    @needs("write")
    def put(
        self,
        key: Key,
        value: Any,
        *,
        ttl: float | None = None,
        stale: float = 0.0,
        tags: Sequence[str] = (),
        seconds: float = 0.0,
        cost: float | None = None,
        generation: int | None = None,
    ) -> bool:
        """Store a result (JSON-able) for `ttl` seconds (None: `cache_default_ttl`), and for `stale` seconds more to be
        served as a stale one. `seconds` and `cost` are what computing it took.

        False if it is too large, or was invalidated since `generation`. Raises CacheError, NotSerializable.
        """
        known: dict[str, Any] = {"seconds": seconds, "cost": cost, "generation": generation}
        return self._cache.put(self._own(key), value, ttl=ttl, stale=stale, tags=tags, **known)

    @needs("write")
    def invalidate(
        self,
        *,
        key: Key | str | None = None,
        agent: str | None = None,
        content_hash: str | None = None,
        tag: str | None = None,
        everything: bool = False,
    ) -> int:
        """Let no process serve these results any more, nor store what is being computed for them now; gives how many
        entries were deleted. Other processes know it within 50 ms. Exactly one of the arguments is given.
        """
        given: dict[str, Any] = {"key": key, "agent": agent, "content_hash": content_hash, "tag": tag}
        return self._cache.invalidate(**given, everything=everything, tenant=self._caller.tenant)

    @needs("write")
    def cleanup_expired(self, most: int | None = None) -> int:
        """Delete what may not be served any more, at most so many entries; gives how many."""
        return self._cache.cleanup_expired(most, self._caller.tenant)

    @needs("write")
    def prune(
        self, *, max_bytes: int | None = None, max_entries: int | None = None, min_accesses: int | None = None
    ) -> int:
        """Delete entries that were used less than `min_accesses` times, then those whose use is longest ago until there
        are at most `max_entries` of at most `max_bytes` (as stored); gives how many. At least one of them is given.
        """
        limits = {"max_bytes": max_bytes, "max_entries": max_entries, "min_accesses": min_accesses}
        return self._cache.prune(**limits, tenant=self._caller.tenant)

    @needs("read")
    def stats(self) -> dict[str, Any]:
        """What the cache holds and what it was good for, over all processes, as JSON-able data.

        Sums of other processes are up to five seconds old, and lack what a killed process had not handed over.
        """
        return self._cache.stats(self._caller.tenant)
