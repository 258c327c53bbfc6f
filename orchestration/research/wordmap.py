"""A text as lower case words with the line of every word, for finding phrases whatever their line breaks and signs."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable


class Words:
    """Lines as words: `text` holds them with single blanks between; only letters and digits stay."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        parts: list[str] = []
        self._offsets: list[int] = []
        self._lines: list[int] = []
        offset = 0
        for number, line in lines:
            words = plain(line)
            if words:
                self._offsets.append(offset)
                self._lines.append(number)
                parts.append(words)
                offset += len(words) + 1
        self.text = " ".join(parts)

    def line_at(self, offset: int) -> int:
        """The line on which the word at `offset` of `text` stands; 1 in an empty text."""
        return self._lines[max(0, bisect_right(self._offsets, offset) - 1)] if self._lines else 1

    def find(self, phrase: str) -> tuple[int, int] | None:
        """The first and last line of a phrase (whole words), or None where it is not in the text."""
        wanted = plain(phrase)
        if not wanted:
            return None
        at = f" {self.text} ".find(f" {wanted} ")
        return None if at < 0 else (self.line_at(at), self.line_at(at + len(wanted) - 1))


def plain(text: str) -> str:
    """Lower case words and numbers of a text with single blanks between."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
