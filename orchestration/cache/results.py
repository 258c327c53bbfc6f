"""The result cache: copies in this process, in Redis where there is one, and the database, which all share."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ...config import Settings
from ...errors import CacheError, StorageError
from ...storage import serial
from ...storage.cache import counters, cutoffs, entries, flights
from ...storage.cache.cutoffs import Cutoff
from ...storage.cache.entries import Entry
from ...storage.cache.fast import FastCopies
from ...storage.database import Database, Transaction
from ..agents import LONGEST_CACHED, AgentOutput
from . import figures, pruning
from .counting import Counting
from .hit import REMEMBERED, Hit, check_times
from .keys import Key, key_of
from .memory import Copy, Memory, hits
from .packing import Packing, content_of
from .watch import Watch

logger = logging.getLogger("celeriac.cache")

#: This process keeps at most so many copies.
MEMORY_ENTRIES: Final = 10_000
#: Whether the database holds too much is looked at after so many new entries, or as soon as this process alone has
#: filled the room that was left.
LOOK_EVERY: Final = 64
KINDS: Final = ("key", "agent", "content_hash", "tag", "everything")


class ResultCache:
    """Results by key, for all processes that share the database. Safe in threads and across forks.

    `get` looks in this process, then in Redis, then in the database. What was invalidated is served nowhere after at
    most 50 ms, not even by a Redis that did not hear of it.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._memory = Memory(MEMORY_ENTRIES, settings.cache_memory_bytes)
        self._watch = Watch(database, self._invalidated)
        self._counting = Counting(database)
        self._copies: FastCopies | None = None
        self._packing = Packing(settings)
        self._room = (0, 0, 0)
        _all.add(self)

    def _start_again(self) -> None:
        for part in (self._memory, self._watch, self._counting):
            part.start()
        self._copies = None

    @property
    def _fast(self) -> FastCopies | None:
        """Redis, if there is one. Its copies are kept under a name that the database gives."""
        settings = self._settings
        if self._copies is None and settings.redis_url:
            name = self._database.read(cutoffs.name) or self._database.write(cutoffs.give_name)
            self._copies = FastCopies(settings.redis_url, settings.redis_timeout, str(name))
        return self._copies

    def _invalidated(self, new: list[Cutoff]) -> None:
        self._memory.apply(new)

    # -- looking up ----------------------------------------------------------------------------------------------------

    def key(self, agent: str, request: Any, *, permissions: Iterable[str], version: str = "1", tenant: str = "") -> Key:
        """The key of what an agent answers to a request under these permissions. Raises CacheError, NotSerializable."""
        return key_of(agent, request, version=version, permissions=permissions, tenant=tenant)

    def get(self, key: Key) -> Hit | None:
        """The result of a key, or None: not there, too old, invalidated, or of another scope than the key's.

        A stale one is given for as long as it was stored to be served. A database or a Redis that does not answer is a
        miss.
        """
        try:
            clock = self._watch.look()
        except StorageError as fault:
            logger.warning("the cache is not used, because the database does not answer: %s", fault)
            return None
        copy = self._memory.get(key.hash)
        if copy is not None and copy.scope == key.scope and clock < copy.entry.expires_at:
            self._counting.count("process", key=key.hash, tenant=key.scope[0])
            return Hit(copy, "process", clock)
        try:
            found = self._shared(key, clock)
        except StorageError as fault:
            logger.warning("the cache is not used, because the database does not answer: %s", fault)
            return None
        if found is None:
            self._counting.count("misses", tenant=key.scope[0])
            return None
        self._counting.count("shared", key=key.hash, tenant=key.scope[0])
        return Hit(found, "shared", clock)

    def _shared(self, key: Key, clock: float) -> Copy | None:
        entry = self._fast.get(key.hash) if self._fast is not None else None
        if entry is not None and clock < entry.expires_at:  # a stale one may have been made anew
            copy = self._checked(entry, key, clock)
            if copy is not None:
                return copy
        entry = self._database.read(lambda tx: entries.get(tx, key.hash))
        copy = self._checked(entry, key, clock) if entry is not None else None
        if copy is not None and entry is not None and self._fast is not None:
            self._fast.put(entry, entry.stale_until - clock)
        return copy

    def _checked(self, entry: Entry, key: Key, clock: float) -> Copy | None:
        """A copy of an entry that was read, if it may be served for that key; it is kept at hand."""
        if entry.scope != key.scope or entry.key != key.hash:
            logger.error("a cached result of another scope was found for the key %s; it is not served", key.hash)
            return None
        if clock >= entry.stale_until or not self._watch.counts(entry):
            return None
        body = self._packing.unpack(entry)
        if body is None:
            return None
        return self._remember(entry, body)

    def _remember(self, entry: Entry, body: bytes) -> Copy:
        copy = Copy(msgspec.structs.replace(entry, body=b""), body, entry.scope)
        before = self._memory.evicted
        self._memory.put(copy)
        if self._memory.evicted != before:
            self._counting.count("evicted_process", self._memory.evicted - before)
        if not self._watch.counts(entry):  # invalidated while it was put there
            self._memory.remove([entry.key])
        return copy

    def find(self, tx: Transaction, key: Key) -> Hit | None:
        """As `get`, in the database alone and in a transaction of the caller's; nothing is counted."""
        entry = entries.get(tx, key.hash)
        if entry is None or entry.scope != key.scope:
            return None
        if any(hits(cutoff, entry) for cutoff in cutoffs.since(tx, entry.generation)):
            return None
        body = self._packing.unpack(entry)
        return None if body is None else Hit(Copy(entry, body, entry.scope), "shared", tx.now())

    # -- storing -------------------------------------------------------------------------------------------------------

    def generation(self) -> int:
        """The number of the last invalidation. What is computed after this was asked, and put with it, is stored only
        if nothing that means it was invalidated in between.
        """
        self._watch.look(at_once=True)
        return self._watch.generation

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
        check_times(ttl, stale, tags)
        generation = self.generation() if generation is None else generation
        output = AgentOutput(value, cost=cost)
        made = self.make(key, output, ttl=ttl, stale=stale, tags=tags, seconds=seconds, generation=generation)
        if made is None or not self._database.write(lambda tx: self.write(tx, made)):
            return False
        self.stored(made)
        return True

    def make(
        self,
        key: Key,
        output: AgentOutput,
        *,
        ttl: float | None,
        stale: float,
        tags: Sequence[str],
        seconds: float,
        generation: int,
    ) -> Entry | None:
        """The entry of an agent's output; None if it is too large. Raises NotSerializable."""
        packed, encoding, size = self._packing.pack(output, key)
        if len(packed) > self._settings.cache_entry_bytes:
            self._counting.count("refused", tenant=key.scope[0])
            return None
        clock = self._watch.look()
        ends = clock + min(self._settings.cache_default_ttl if ttl is None else ttl, LONGEST_CACHED)
        return Entry(
            key.hash,
            *key.scope,
            tags=tuple(dict.fromkeys(tags)),
            content=content_of(output.data),
            body=packed,
            encoding=encoding,
            size=size,
            generation=generation,
            created_at=clock,
            expires_at=ends,
            stale_until=min(ends + stale, clock + LONGEST_CACHED),
            seconds=seconds,
            cost=output.cost,
        )

    def write(self, tx: Transaction, entry: Entry) -> bool:
        """Write an entry to the database in a transaction of the caller's; False if it was invalidated meanwhile."""
        if any(hits(cutoff, entry) for cutoff in cutoffs.since(tx, entry.generation)):
            return False
        entries.put(tx, entry)
        room_entries, room_bytes, puts = self._room
        self._room = (room_entries - 1, room_bytes - len(entry.body), puts - 1)
        if min(self._room) < 0:
            self._make_room(tx)
        return True

    def stored(self, entry: Entry) -> None:
        """After the commit that wrote an entry: keep copies of it at hand."""
        self._counting.count("stored", tenant=entry.tenant)
        body = self._packing.unpack(entry)
        if body is not None:
            self._remember(entry, body)
        if self._fast is not None:
            self._fast.put(entry, entry.stale_until - entry.created_at)

    def _make_room(self, tx: Transaction) -> None:
        settings = self._settings
        gone = entries.over(tx, settings.cache_entries, settings.cache_bytes)
        if gone:
            entries.remove(tx, gone)
            counters.add(tx, {"evicted_shared": len(gone)})
            tx.after_commit.append(lambda: self._remove_copies(gone))
        count, stored = entries.held(tx)
        self._room = (settings.cache_entries - count, settings.cache_bytes - stored, LOOK_EVERY)

    # -- taking back ---------------------------------------------------------------------------------------------------

    def invalidate(
        self,
        *,
        key: Key | str | None = None,
        agent: str | None = None,
        content_hash: str | None = None,
        tag: str | None = None,
        everything: bool = False,
        tenant: str = "",
    ) -> int:
        """Let no process serve these results of a tenant any more, nor store what is being computed for them now; gives
        how many entries were deleted. Other processes know it within 50 ms. Exactly one of the other arguments is
        given.
        """
        given = {"key": key, "agent": agent, "content_hash": content_hash, "tag": tag}
        wanted = [(kind, str(value)) for kind, value in given.items() if value is not None]
        if everything:
            wanted.append(("everything", ""))
        if len(wanted) != 1:
            raise CacheError(f"invalidate takes exactly one of {', '.join(KINDS)}; found {len(wanted)}")
        kind, value = wanted[0]
        if not serial.is_storable(value) or (kind != "everything" and not value):
            raise CacheError(f"{kind} to invalidate must be text that is not empty, found {value!r:.80}")
        kind = "content" if kind == "content_hash" else kind
        generation = self._database.write(lambda tx: cutoffs.cut(tx, kind, value, tenant))
        self._watch.look(at_once=True)
        keys = self._database.read(lambda tx: entries.matching(tx, kind, value, generation, tenant))
        self._remove(keys)
        self._counting.count("invalidated", len(keys), tenant=tenant)
        return len(keys)

    def _remove(self, keys: Sequence[str]) -> None:
        """Delete entries in bounded transactions, and then their copies as far as they can be reached."""
        for start in range(0, len(keys), entries.BATCH):
            batch = keys[start : start + entries.BATCH]
            self._database.write(lambda tx, batch=batch: entries.remove(tx, batch))  # type: ignore[misc]
        self._remove_copies(keys)

    def _remove_copies(self, keys: Sequence[str]) -> None:
        self._memory.remove(keys)
        if self._fast is not None:
            self._fast.remove(keys)

    def cleanup_expired(self, most: int | None = None, tenant: str | None = None) -> int:
        """Delete what may not be served any more (None: of all tenants), at most so many entries; gives how many."""
        count = pruning.expired(self._database, self._remove, most, tenant)
        self._counting.count("expired", count, tenant=tenant or "")
        return count

    def prune(
        self,
        *,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        min_accesses: int | None = None,
        tenant: str | None = None,
    ) -> int:
        """Delete entries (None: of all tenants) that were used less than `min_accesses` times, then those whose use is
        longest ago until there are at most `max_entries` of at most `max_bytes` (as stored); gives how many. At least
        one of the limits is given.
        """
        limits = {"max_bytes": max_bytes, "max_entries": max_entries, "min_accesses": min_accesses}
        if all(limit is None for limit in limits.values()):
            raise CacheError(f"prune takes at least one of {', '.join(limits)}")
        for name, limit in limits.items():
            if limit is not None and limit < 0:
                raise CacheError(f"{name} must be at least 0, found {limit}")
        self.flush()
        count = pruning.little_used(self._database, self._remove, min_accesses, tenant) if min_accesses else 0
        count += pruning.over(self._database, self._remove, max_entries, max_bytes, tenant)
        self._counting.count("pruned", count, tenant=tenant or "")
        return count

    def tidy(self) -> int:
        """What the sweeper does now and then, in bounded steps: delete expired entries, too many of them, invalidations
        and flights that mean nothing any more. Gives how many entries had expired.
        """
        count = self.cleanup_expired(most=4 * entries.BATCH)
        self._database.write(self._make_room)
        self._database.write(lambda tx: cutoffs.forget(tx, REMEMBERED))
        self._database.write(flights.forget)
        return count

    # -- looking at it -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Add what this process has counted to the sums."""
        self._counting.flush()

    def count(self, tenant: str, **values: float) -> None:
        """Count something that belongs to the cache, by name."""
        for name, value in values.items():
            self._counting.count(name, value, tenant=tenant)

    def stats(self, tenant: str = "") -> dict[str, Any]:
        """What the cache holds for a tenant and what it was good for, over all processes, as JSON-able data.

        Sums of other processes are up to five seconds old, and lack what a killed process had not handed over.
        """
        self.flush()
        totals, by_agent, sums = self._database.read(
            lambda tx: (entries.totals(tx, tenant), entries.by_agent(tx, tenant), counters.totals(tx, tenant))
        )
        here = self._memory.figures(tenant)
        return figures.shown(totals, by_agent, sums, here)

    def close(self) -> None:
        """Hand over what was counted, and close the connections."""
        self.flush()
        if self._copies is not None:
            self._copies.close()


_all: weakref.WeakSet[ResultCache] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for one in list(_all):
        one._start_again()


os.register_at_fork(after_in_child=_after_fork_in_child)
