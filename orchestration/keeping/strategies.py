"""How pruning chooses: of what may go, the items that do, each with why."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from ...errors import CeleriacError
from .likeness import Likeness

STRATEGIES: Final = ("lru", "lfu", "ttl", "size", "semantic")


@dataclass(frozen=True, slots=True)
class Item:
    """A session or a message that may go: when it was last used (seconds since 1970), how often, its bytes, and how
    many seconds after it was `born` it may go (None: never). What `stays` is only compared with others.
    """

    key: tuple[str, int]  # id of a session, number of a message (0: the session)
    used: float
    uses: int
    size: int
    ttl: float | None = None
    born: float = 0.0
    text: str = ""
    stays: bool = False
    changed: float = 0.0
    group: str = ""  # texts are compared within one


@dataclass(frozen=True, slots=True)
class Limits:
    """How many, and how many bytes, there are and may be."""

    count: int = 0
    most: int | None = None
    size: int = 0
    most_size: int | None = None
    similarity: float = 0.9


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller says of limits; None: as the settings have it."""

    keep: int | None = None
    max_bytes: int | None = None
    ttl: float | None = None
    similarity: float | None = None

    def check(self, strategy: str) -> None:
        """Raise CeleriacError for a limit that the strategy does not look at, and for a value that is not allowed."""
        for name, value in asdict(self).items():
            if value is None:
                continue
            if name != (reads := _READS.get(strategy)):
                looks = f"it looks at {reads}" if reads else "it takes no limits"
                raise CeleriacError(f"pruning by {strategy} does not look at {name}; {looks}")
            allowed, is_allowed = _ALLOWED[name]
            if not is_allowed(value):
                raise CeleriacError(f"{name} = {value!r:.40} is not allowed; allowed: {allowed}")


#: Which limit a strategy looks at.
_READS: Final = {"lru": "keep", "lfu": "keep", "size": "max_bytes", "ttl": "ttl", "semantic": "similarity"}
_ALLOWED: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "keep": ("a whole number >= 0", lambda value: value >= 0),
    "max_bytes": ("a whole number >= 0", lambda value: value >= 0),
    "ttl": ("seconds > 0", lambda value: value > 0),
    "similarity": ("a number > 0 and <= 1", lambda value: 0 < value <= 1),
}


def limit(given: int | None, setting: int) -> int | None:
    """A limit that was given, else that of the settings, where 0 means none."""
    return given if given is not None else setting or None


#: An item that goes, and why.
Choice = tuple[Item, str]


def choose(strategy: str, items: Iterable[Item], limits: Limits, now: float) -> Iterator[Choice]:
    """The items that go. Raises CeleriacError where the strategy needs a limit that is not given."""
    if strategy in ("lru", "lfu"):
        if limits.most is None:
            raise CeleriacError(f"pruning by {strategy} needs to know how many may stay (keep, or the settings)")
        return _least(strategy, items, max(limits.count - limits.most, 0))
    if strategy == "size":
        if limits.most_size is None:
            raise CeleriacError("pruning by size needs to know how many bytes may stay (max_bytes, or the settings)")
        return _largest(items, limits.size - limits.most_size)
    return _over(items, now) if strategy == "ttl" else _alike(items, limits.similarity)


def _least(strategy: str, items: Iterable[Item], excess: int) -> Iterator[Choice]:
    keys: dict[str, Callable[[Item], Any]] = {
        "lru": lambda one: (one.used, one.key),
        "lfu": lambda one: (one.uses, one.used, one.key),
    }
    for one in heapq.nsmallest(excess, items, keys[strategy]):
        yield one, "the longest unused" if strategy == "lru" else f"the least used ({one.uses} times)"


def _largest(items: Iterable[Item], excess: int) -> Iterator[Choice]:
    for one in sorted(items, key=lambda one: (-one.size, one.used, one.key)):
        if excess <= 0:
            return
        excess -= one.size
        yield one, "among the largest"


def _over(items: Iterable[Item], now: float) -> Iterator[Choice]:
    for one in items:
        if one.ttl is not None and one.born + one.ttl < now:
            yield one, f"{one.ttl:g} s are over"


def _alike(items: Iterable[Item], similarity: float) -> Iterator[Choice]:
    """Of items group by group, the newest first: those that an item before them says as well."""
    group, seen, known = None, Likeness(similarity), dict[int, Item]()
    for one in items:
        if one.group != group:
            group, seen, known = one.group, Likeness(similarity), {}
        other = None if one.stays else seen.seen(one.text)
        if other is None:
            known[seen.add(one.text)] = one
        else:
            session_id, number = known[other].key
            yield one, f"says what entry {number} says" if number else f"asks what {session_id} asks"
