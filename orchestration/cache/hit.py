"""A result that was found in the cache, and what an entry may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ...errors import CacheError
from ...storage import serial
from ...storage.cache.entries import Entry
from ..agents import LONGEST_CACHED, AgentOutput
from . import packing
from .memory import Copy

#: Invalidations are remembered for so long, in seconds: a day longer than any entry is served.
REMEMBERED: Final = LONGEST_CACHED + 86_400.0


class Hit:
    """A result that was found; `origin` is `process` or `shared`."""

    __slots__ = ("_clock", "_copy", "origin")

    def __init__(self, copy: Copy, origin: str, clock: float) -> None:
        self._copy = copy
        self._clock = clock
        self.origin = origin

    @property
    def age(self) -> float:
        """Seconds since it was computed."""
        return max(self._clock - self._copy.entry.created_at, 0.0)

    @property
    def stale(self) -> bool:
        """Whether its time was over when it was found."""
        return self._clock >= self._copy.entry.expires_at

    @property
    def value(self) -> Any:
        """The result, decoded anew: it is the caller's own."""
        return serial.decode(self._copy.body)["data"]

    @property
    def output(self) -> AgentOutput:
        """The output of the agent: data, findings, confidence; it has cost nothing this time."""
        output = packing.output_of(self._copy.body)
        output.cost = None if output.cost is None else 0.0
        return output

    @property
    def where(self) -> dict[str, Any]:
        """Where it came from, as JSON-able data: the level, its key, its age in seconds, and what it has saved."""
        entry = self._copy.entry
        found = {"from": self.origin, "key": entry.key, "age": round(self.age, 3), "stale": self.stale}
        return {**found, "saved_seconds": round(entry.seconds, 3), "saved_cost": entry.cost}

    @property
    def entry(self) -> Entry:
        """What is known of it: agent, version, tags, content hash, times, seconds and cost of the run."""
        return self._copy.entry


def check_times(ttl: float | None, stale: float, tags: Sequence[str]) -> None:
    """Raise CacheError for times and tags that an entry cannot have."""
    if ttl is not None and not 0 < ttl <= LONGEST_CACHED:
        raise CacheError(f"a time to live must be over 0 and at most {LONGEST_CACHED:g} seconds, found {ttl!r}")
    if not 0 <= stale <= LONGEST_CACHED:
        raise CacheError(f"a result may be served stale for 0 to {LONGEST_CACHED:g} seconds, found {stale!r}")
    if isinstance(tags, str) or not all(isinstance(t, str) and t and serial.is_storable(t) for t in tags):
        raise CacheError(f"tags of a cached result are a list of words, found {tags!r:.200}")
