"""Windows: what a model is shown of a history. What a window leaves out stays where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ...storage.histories.protocol import HistoryError, Place
from .entries import IMPORTANT, PROMPT, has_passed, shown, whole
from .tokens import Tokens

#: Entries that are read at once.
_PAGE: Final = 100


class Window(list[dict[str, Any]]):
    """Entries in order, the `tokens` that they take, and `counted_by`, which names the tokenizer or the estimate."""

    def __init__(self, entries: list[dict[str, Any]], tokens: int, counted_by: str) -> None:
        super().__init__(entries)
        self.tokens = tokens
        self.counted_by = counted_by


@dataclass
class _Budget:
    """What still fits."""

    entries: int | None
    tokens: int | None
    counter: Tokens
    taken: dict[int, tuple[dict[str, Any], int]] = field(default_factory=dict)
    used: int = 0

    def take(self, entry: dict[str, Any], always: bool = False) -> bool:
        """Take an entry in if it fits (or `always`); gives whether it is in."""
        number = entry["number"]
        if number in self.taken:
            return True
        size = self.counter.of(entry)
        if not always and self._is_over(size):
            return False
        self.taken[number] = entry, size
        self.used += size
        return True

    def _is_over(self, size: int) -> bool:
        if self.entries is not None and len(self.taken) >= self.entries:
            return True
        return self.tokens is not None and self.used + size > self.tokens

    def drop(self, number: int) -> None:
        """Take an entry out again."""
        self.used -= self.taken.pop(number)[1]


@dataclass(frozen=True)
class Limits:
    """What a window may hold. `pruned`: unimportant entries up to this number are left out. `until`: the number of the
    last entry that it may hold.
    """

    max_entries: int | None = None
    max_tokens: int | None = None
    since: datetime | None = None
    pruned: int = 0
    until: int | None = None

    def check(self) -> None:
        """Raises HistoryError for a limit that is not allowed."""
        for name, value, least in (
            ("max_entries", self.max_entries, 1),
            ("max_tokens", self.max_tokens, 1),
            ("until", self.until, 0),
        ):
            if value is not None:
                whole(f"{name} of a window", value, least)
        if self.since is not None and (not isinstance(self.since, datetime) or self.since.tzinfo is None):
            raise HistoryError(f"since of a window is {str(self.since)!r:.100}; allowed: a datetime with a time zone")


def window(place: Place, conversation: str, limits: Limits, counter: Tokens) -> Window:
    """The newest entries that fit, in order.

    The newest system prompt is always in, whatever its size, and the only one; then the newest entry, then important
    ones, the newest first, then the others, back to the first that does not fit. Left out are entries whose `ttl` is
    over, those before `since`, those that were pruned, and results of tools whose call is not in the window.
    """
    limits.check()
    budget = _Budget(limits.max_entries, limits.max_tokens, counter)
    for prompt in place.load(conversation, last=limits.until, limit=1, newest=True, mark=PROMPT):
        budget.take(shown(prompt), always=True)
    for newest in _back(place, conversation, limits):
        budget.take(newest)
        break
    for mark in (IMPORTANT, None):
        for entry in _back(place, conversation, limits, mark):
            if not budget.take(entry):
                break
    _drop_orphans(budget)
    entries = [budget.taken[number][0] for number in sorted(budget.taken)]
    return Window(entries, budget.used, counter.how)


def _back(place: Place, conversation: str, limits: Limits, mark: int | None = None) -> Iterator[dict[str, Any]]:
    """The entries that may be shown, from the newest back."""
    moment = datetime.now(UTC)
    first = 1 if mark is not None else limits.pruned + 1
    last = limits.until
    while page := place.load(conversation, first, last, limit=_PAGE, newest=True, mark=mark):
        for entry in map(shown, reversed(page)):
            if limits.since is not None and datetime.fromisoformat(entry["timestamp"]) < limits.since:
                return
            if entry.get("role") != "system" and not has_passed(entry, moment):
                yield entry
        last = page[0].number - 1


def _drop_orphans(budget: _Budget) -> None:
    """No model takes a tool's result whose call it does not see."""
    entries = [entry for entry, _ in budget.taken.values()]
    calls = {call.get("id") for entry in entries for call in entry.get("tool_calls") or ()}
    for entry in entries:
        if entry.get("role") == "tool" and entry.get("tool_call_id") not in calls | {None}:
            budget.drop(entry["number"])
