"""Of a long text the stretches that speak to a question: where its words stand close together, and around it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque

#: Texts up to so many characters are read whole.
READ_WHOLE = 60_000
#: How far apart two of the question's words may stand, in characters, and what is read around them, in lines.
_APART, _BEFORE, _AFTER = 1200, 40, 25


def numbered_lines(text: str, wanted: list[list[str]] | None, least: int) -> list[tuple[int, str]]:
    """The lines of a text as (number, line); of a long one those near a place that holds strings of `least` groups."""
    lines = text.split("\n")
    if wanted is None or len(text) <= READ_WHOLE:
        return list(enumerate(lines, 1))
    offsets = [0]
    for line in lines[:-1]:
        offsets.append(offsets[-1] + len(line) + 1)
    kept: list[tuple[int, str]] = []
    last = 0
    for place in _places(text.lower(), wanted, least):
        at = bisect_right(offsets, place) - 1
        first, end = max(last, at - _BEFORE), min(len(lines), at + _AFTER)
        kept += [(number + 1, lines[number]) for number in range(first, end)]
        last = max(last, end)
    return kept


def _places(lower: str, wanted: list[list[str]], least: int) -> list[int]:
    """Where in a lower case text strings of at least `least` groups stand together, in order."""
    group_of = {part: number for number, group in enumerate(wanted) for part in group}
    pattern = re.compile("|".join(re.escape(part) for part in sorted(group_of, key=lambda part: (-len(part), part))))
    recent: deque[tuple[int, int]] = deque()
    places: list[int] = []
    for match in pattern.finditer(lower):
        recent.append((match.start(), group_of[match.group()]))
        while match.start() - recent[0][0] > _APART:
            recent.popleft()
        if len({group for _, group in recent}) >= least and (not places or match.start() > places[-1] + 200):
            places.append(match.start())
    return places
