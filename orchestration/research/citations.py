"""Numbered sources: each place is numbered when it is first cited and keeps its number."""

from __future__ import annotations

import re

from ..reports.model import Source


def inline(text: str) -> str:
    """Plain text as inline Markdown: what is not between backticks means itself."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") and len(p) > 1 else re.sub(r"([\\*_\[\]<>~`])", r"\\\1", p) for p in parts)


class Citations:
    """Hands out the numbers `[1]`, `[2]`, ... of a report; `sources` holds what they stand for, in order."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self._numbers: dict[tuple[str, int, int | None], int] = {}

    def number(
        self, path: str, line_start: int, line_end: int, quote: str = "", title: str = "", page: int | None = None
    ) -> int:
        """The number of a place; lines count from 1 (within the page where `page` is given)."""
        key = (path, line_start, page)
        if key not in self._numbers:
            self._numbers[key] = len(self.sources) + 1
            self.sources.append(Source(self._numbers[key], path, line_start, line_end, quote, title, page))
        return self._numbers[key]

    def marks(self, places: list[tuple[str, int, int, str]]) -> str:
        """`[1][4]` for some places given as (path, first line, last line, quote)."""
        return "".join(f"[{number}]" for number in dict.fromkeys(self.number(*place) for place in places))
