"""Three-way merging of JSON values that two have changed."""

from __future__ import annotations

from typing import Any, Final

from ...storage import serial


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


#: In place of a value that is not there.
MISSING: Final = _Missing()


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values (or MISSING) are equal, types and all: 1 is not 1.0, and not true."""
    if one is MISSING or other is MISSING:
        return one is other
    return serial.canonical(one) == serial.canonical(other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def merged(before: Any, current: Any, mine: Any, sums: bool = False) -> Any:
    """`current` with what went from `before` to `mine`: MISSING, or a value.

    Objects are merged key by key; what both appended to a list is appended; with `sums`, numbers are counters, whose
    differences are added up. A change wins over a removal. Else `mine` wins.
    """
    if same(mine, before):
        return current
    if same(current, before):
        return mine
    if mine is MISSING or current is MISSING:
        return current if mine is MISSING else mine
    if isinstance(mine, dict) and isinstance(current, dict):
        base = before if isinstance(before, dict) else {}
        return _merged_object(base, current, mine, sums)
    if isinstance(mine, list) and isinstance(current, list):
        base_list = before if isinstance(before, list) else []
        size = len(base_list)
        if same(mine[:size], base_list) and same(current[:size], base_list):
            return current + mine[size:]
    if sums and _is_number(mine) and _is_number(current):
        return current + mine - (before if _is_number(before) else 0)
    return mine


def _merged_object(before: dict[str, Any], current: dict[str, Any], mine: dict[str, Any], sums: bool) -> dict[str, Any]:
    found = {}
    for key in [*current, *(key for key in mine if key not in current)]:
        value = merged(before.get(key, MISSING), current.get(key, MISSING), mine.get(key, MISSING), sums)
        if value is not MISSING:
            found[key] = value
    return found
