"""When a job of maintenance is due: `every N seconds` or a cron text, both by UTC.

The times are the same for everybody who asks: multiples of the seconds since 1970, or the minutes that the text names.
"""

from __future__ import annotations

import bisect
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

OFF: Final = "off"
ALLOWED: Final = f'a cron text of five fields in UTC, such as "30 3 * * 1-5", @daily and the like, seconds, or "{OFF}"'
#: Shorter periods than this, in seconds, are no maintenance.
SHORTEST: Final = 0.1
#: Any day of a calendar with its weekday comes again within so many days; February 29 not always after four years.
_DAYS: Final = 366 * 40
_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_WEEKDAYS: Final = "sun mon tue wed thu fri sat".split()
#: Name, least, most and names of each field.
_FIELDS: Final[tuple[tuple[str, int, int, list[str]], ...]] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day", 1, 31, []),
    ("month", 1, 12, ["", *_MONTHS]),
    ("weekday", 0, 7, _WEEKDAYS),
)
_PART: Final = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?", re.ASCII)


class Schedule(Protocol):
    """Times in seconds since 1970."""

    def last(self, at: float) -> float:
        """The latest scheduled time that is not after `at`."""

    def following(self, at: float) -> float:
        """The first scheduled time after `at`."""


@dataclass(frozen=True, slots=True)
class Every:
    """Each multiple of so many seconds."""

    seconds: float

    def _number(self, at: float) -> int:
        """The greatest number of periods that `at` is not before, as they are multiplied."""
        number = math.floor(at / self.seconds) + 1
        while number * self.seconds > at:
            number -= 1
        return number

    def last(self, at: float) -> float:
        return self._number(at) * self.seconds

    def following(self, at: float) -> float:
        return (self._number(at) + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes that a cron text names. As in cron, where both day and weekday are given one of them is enough."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    def last(self, at: float) -> float:
        moment = datetime.fromtimestamp(at, UTC)
        minute = moment.hour * 60 + moment.minute
        for back in range(_DAYS):
            day = moment.date() - timedelta(days=back)
            if self._has(day):
                times = self._times()
                place = bisect.bisect_right(times, minute) if back == 0 else len(times)
                if place:
                    return _at(day, times[place - 1])
        raise ValueError("no time before")

    def following(self, at: float) -> float:
        moment = datetime.fromtimestamp(at, UTC)
        minute = moment.hour * 60 + moment.minute
        for ahead in range(_DAYS):
            day = moment.date() + timedelta(days=ahead)
            if self._has(day):
                times = self._times()
                place = bisect.bisect_right(times, minute) if ahead == 0 else 0
                if place < len(times):
                    return _at(day, times[place])
        raise ValueError("no time after")

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either else by_day and by_weekday

    def _times(self) -> list[int]:
        return [hour * 60 + minute for hour in self.hours for minute in self.minutes]


def _at(day: date, minute: int) -> float:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    return midnight + 60 * minute


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule | None:
    """The schedule that a text names, None for "off". Raises ValueError that says what is wrong."""
    text = text.strip().lower()
    if text == OFF:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return _cron(_NAMED.get(text, text))
    if not SHORTEST <= seconds < math.inf:
        raise ValueError(f"{text} s is not allowed; allowed: {SHORTEST:g} seconds or more")
    return Every(seconds)


def _cron(text: str) -> Cron:
    words = text.split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"{len(words)} fields where cron has {len(_FIELDS)} (minute hour day month weekday)")
    found = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = found
    either = not words[2].startswith("*") and not words[4].startswith("*")
    made = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        either,
    )
    try:
        made.following(0.0)
    except ValueError:
        raise ValueError("there is no such day in any year") from None
    return made


def _field(word: str, name: str, least: int, most: int, names: list[str]) -> set[int]:
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{name} {part!r:.40} is not allowed; allowed: *, a number, a-b, */n, and lists of them")
        first, last, step = match.groups()
        if first == "*":
            low, high = least, most
        else:
            low = _number(first, name, least, most, names)
            high = _number(last, name, least, most, names) if last else most if step else low
        if (first == "*" and last) or low > high or (step and int(step) == 0):
            raise ValueError(f"{name} {part!r:.40} is not allowed; allowed: {least} to {most}, the smaller one first")
        found.update(range(low, high + 1, int(step or 1)))
    return found


def _number(word: str, name: str, least: int, most: int, names: list[str]) -> int:
    number = names.index(word) if word in names else int(word) if word.isdigit() else -1
    if not least <= number <= most:
        raise ValueError(f"{name} {word!r:.40} is not allowed; allowed: {least} to {most}")
    return number


# -- the setting `maintenance` -----------------------------------------------------------------------------------------


def checked(table: Any, known: Iterable[str]) -> dict[str, str]:
    """Schedules by job as texts. Raises ValueError that names the job, what was found and what is allowed."""
    if not isinstance(table, Mapping):
        raise ValueError(f"a table of jobs is needed, found {table!r:.60}")
    names = list(known)
    found: dict[str, str] = {}
    for job, text in table.items():
        if job not in names:
            near = difflib.get_close_matches(str(job), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            raise ValueError(f"there is no job {str(job)!r:.60}; {hint}")
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            text = OFF if text is False else repr(text)
        try:
            parse(str(text))
        except ValueError as fault:
            raise ValueError(f"{job} = {text!r:.80} is not allowed ({fault}); allowed: {ALLOWED}") from None
        found[job] = str(text)
    return found


def merged(before: Mapping[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """A layer of settings whose schedules stand beside those of the layers before, not in their place."""
    own, others = layer.get("maintenance"), before.get("maintenance")
    if not isinstance(own, Mapping) or not isinstance(others, Mapping):
        return layer
    return {**layer, "maintenance": {**others, **own}}


def from_text(text: str) -> Any:
    """The table in a variable of the environment: `backup=0 4 * * *; sweep=off`. What is none is given as it is."""
    pairs = [part.partition("=") for part in text.split(";") if part.strip()]
    if not all(sign for _, sign, _ in pairs):
        return text
    return {job.strip(): schedule.strip() for job, _, schedule in pairs}
