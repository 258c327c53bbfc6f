"""Semantic versions (semver.org 2.0.0), without build metadata: two versions that differ in it would be equal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, total_ordering
from typing import Any

from ...errors import SchemaError

_LONGEST = 100
_NUMBER = "(0|[1-9][0-9]*)"
_WORD = "(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_FORM = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_WORD}(?:\.{_WORD})*))?")


@total_ordering
@dataclass(frozen=True)
class Version:
    """MAJOR.MINOR.PATCH, with an optional `-prerelease`; ordered as semver says."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @classmethod
    def parse(cls, text: str | Version) -> Version:
        """The version that a text names. Raises SchemaError."""
        if isinstance(text, Version):
            return text
        match = _FORM.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if match is None:
            shown = repr(text)[:60]
            raise SchemaError(f"{shown} is no version; allowed: MAJOR.MINOR.PATCH as 1.2.0, or 2.0.0-rc.1 (semver.org)")
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "")

    @cached_property
    def _key(self) -> tuple[Any, ...]:
        words = self.pre.split(".") if self.pre else []
        order = [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in words]
        return (self.major, self.minor, self.patch, not words, order)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return bool(self._key < other._key)

    def allows_breaking(self, before: Version) -> bool:
        """Whether a change from `before` to this one may break what was: a new major version, or minor before 1.0.0."""
        return self.major > before.major or (self.major == before.major == 0 and self.minor > before.minor)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")
