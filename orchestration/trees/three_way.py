"""Three-way merging of keyed values: what two sides have made of a common base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


class _Absent:
    """Stands for a key that has no value."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Merge:
    """What a merge comes to: keys that `ours` has to take on from the other side (ABSENT: the key goes), and keys that
    both have changed, each to something else.
    """

    taken: dict[str, Any] = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def merge(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Merge:
    """What theirs has changed since base, as far as ours has not. Keys are merged whole, each by itself."""
    found = Merge()
    for key in sorted({*base, *theirs}):
        was, our, their = (side.get(key, ABSENT) for side in (base, ours, theirs))
        if same(their, was) or same(their, our):
            continue
        if same(our, was):
            found.taken[key] = their
        else:
            found.conflicts.append(key)
    return found


def merged(ours: Mapping[str, Any], found: Merge) -> dict[str, Any]:
    """Ours with what it takes on; keys in conflict stay as they are."""
    both = {**ours, **found.taken}
    return {key: value for key, value in both.items() if value is not ABSENT}


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; 1, 1.0 and true are three."""
    if one is ABSENT or other is ABSENT:
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
