"""Paths into JSON values: `a.b[].c` is the field `c` of each item of the list `b` of `a`; `"x.y"` quotes a name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import SchemaError
from .fields import below, kind_of

_LONGEST = 1000
_DEEPEST = 50
_PART = re.compile(r'(?P<name>[^.\[\]"]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"')

#: A part of a path: the name of a field, or None for each item of a list.
Part = str | None


class Misfit(Exception):
    """A value does not have the shape that a path goes through: where, what is wrong, and the value itself."""

    def __init__(self, path: str, why: str, value: Any) -> None:
        super().__init__(f"{path or 'the value'} {why}")
        self.path = path
        self.why = why
        self.value = value


@dataclass(frozen=True)
class Path:
    """A parsed path."""

    text: str
    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, text: str | Path) -> Path:
        """Raises SchemaError that says what a path looks like."""
        if isinstance(text, Path):
            return text
        parts = _parts(text) if isinstance(text, str) and 0 < len(text) <= _LONGEST else None
        if not parts or len(parts) > _DEEPEST or parts[0] is None:
            raise SchemaError(f"{text!r} is no path; allowed: names joined as a.b[].c, a name with a dot in quotes")
        return cls(text, tuple(parts))

    @property
    def each(self) -> tuple[Part, ...]:
        """The path up to and with its last `[]`."""
        places = [place for place, part in enumerate(self.parts) if part is None]
        return self.parts[: places[-1] + 1] if places else ()

    @property
    def rest(self) -> tuple[str, ...]:
        """What follows its last `[]`: names only."""
        return tuple(part for part in self.parts[len(self.each) :] if part is not None)

    def __str__(self) -> str:
        return self.text


def _parts(text: str) -> list[Part] | None:
    parts: list[Part] = []
    place = 0
    while place < len(text):
        match = _PART.match(text, place)
        if match is None:
            return None
        try:
            name = match["name"] if match["name"] is not None else json.loads(match[0])
        except ValueError:
            return None
        parts.append(name)
        place = match.end()
        while text.startswith("[]", place):
            parts.append(None)
            place += 2
        if place < len(text):
            if text[place] != "." or place + 1 == len(text):
                return None
            place += 1
    return parts


def reach(value: Any, parts: tuple[Part, ...], shown: str = "") -> Iterator[tuple[Any, str]]:
    """What lies at a path in a value, and where: nothing where something on the way is missing or null."""
    if not parts:
        yield value, shown
        return
    if value is None:
        return
    part, *others = parts
    if part is None:
        if not isinstance(value, list):
            raise Misfit(shown, f"must be a list, found {kind_of(value)}", value)
        for place, item in enumerate(value):
            yield from reach(item, tuple(others), f"{shown}[{place}]")
    else:
        if not isinstance(value, dict):
            raise Misfit(shown, f"must be an object, found {kind_of(value)}", value)
        if part in value:
            yield from reach(value[part], tuple(others), below(shown, part))


def owner(inside: Any, names: tuple[str, ...], shown: str, make: bool = False) -> tuple[dict[str, Any], str] | None:
    """The object that holds the last of `names`, and where it is; None where it is missing, unless `make`s it."""
    for name in names[:-1]:
        if not isinstance(inside, dict):
            raise Misfit(shown, f"must be an object, found {kind_of(inside)}", inside)
        if inside.get(name) is None:
            if not make:
                return None
            inside[name] = {}
        inside, shown = inside[name], below(shown, name)
    if not isinstance(inside, dict):
        raise Misfit(shown, f"must be an object, found {kind_of(inside)}", inside)
    return inside, shown
