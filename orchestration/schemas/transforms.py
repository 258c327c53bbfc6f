"""Transforms: what brings a value from one version of its schema to another.

Each is a small object that changes a value of its own in place and gives it back. What is missing (or below null) is
passed over, since fields may be optional; nothing that is there is ever overwritten, unless `replace` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from ...errors import CeleriacError, SchemaError
from .conversions import CONVERSIONS, TARGETS, kind
from .fields import below, kind_of
from .paths import Misfit, Path, owner, reach


class Transform:
    """One transform. `apply` changes the value and gives it back; `str()` says what it does. Raises Misfit."""

    def apply(self, value: Any) -> Any:
        raise NotImplementedError


def _paired(source: Path, *targets: Path) -> None:
    """Both ends of a transform must lie in the items of the same lists."""
    for target in targets:
        if source.each != target.each:
            raise SchemaError(
                f"{source} and {target} do not lie in the same lists: what stands before their last [] must be equal"
            )


def _put(inside: Any, target: Path, shown: str, value: Any, replace: bool) -> None:
    found = owner(inside, target.rest, shown, make=True)
    assert found is not None
    holder, where = found
    name = target.rest[-1]
    if name in holder and not replace:
        raise Misfit(below(where, name), "is there already; say replace=True to overwrite it", holder[name])
    holder[name] = value


def _named(path: Path) -> Path:
    if not path.rest:
        raise SchemaError(f"{path} names the items of a list; a field's name must follow")
    return path


@dataclass(frozen=True)
class Move(Transform):
    """Move or copy a field within its object, or between objects of one list item."""

    source: Path
    target: Path
    keep: bool = False
    replace: bool = False

    def apply(self, value: Any) -> Any:
        for inside, shown in reach(value, self.source.each):
            found = owner(inside, self.source.rest, shown) if inside is not None else None
            name = self.source.rest[-1]
            if found is None or name not in found[0]:
                continue
            moved = deepcopy(found[0][name]) if self.keep else found[0].pop(name)
            _put(inside, self.target, shown, moved, self.replace)
        return value

    def __str__(self) -> str:
        return f"{'copy' if self.keep else 'move'} {self.source} to {self.target}"


@dataclass(frozen=True)
class Default(Transform):
    """Give a field that is missing a value."""

    path: Path
    value: Any

    def apply(self, value: Any) -> Any:
        for inside, shown in reach(value, self.path.each):
            found = owner(inside, self.path.rest, shown, make=True) if inside is not None else None
            if found is not None and self.path.rest[-1] not in found[0]:
                found[0][self.path.rest[-1]] = deepcopy(self.value)
        return value

    def __str__(self) -> str:
        return f"default of {self.path}"


@dataclass(frozen=True)
class Remove(Transform):
    """Remove a field."""

    path: Path

    def apply(self, value: Any) -> Any:
        for inside, shown in reach(value, self.path.each):
            found = owner(inside, self.path.rest, shown) if inside is not None else None
            if found is not None:
                found[0].pop(self.path.rest[-1], None)
        return value

    def __str__(self) -> str:
        return f"remove {self.path}"


def _places(value: Any, path: Path) -> Iterator[tuple[Any, Any, str]]:
    """(container, key, where) of everything that a path leads to."""
    last = path.parts[-1]
    for holder, shown in reach(value, path.parts[:-1]):
        if holder is None:
            continue
        if last is None:
            if not isinstance(holder, list):
                raise Misfit(shown, f"must be a list, found {kind_of(holder)}", holder)
            for place in range(len(holder)):
                yield holder, place, f"{shown}[{place}]"
        else:
            if not isinstance(holder, dict):
                raise Misfit(shown, f"must be an object, found {kind_of(holder)}", holder)
            if last in holder:
                yield holder, last, below(shown, last)


@dataclass(frozen=True)
class Convert(Transform):
    """Make another kind of value of a field, by the table of conversions; null stays null."""

    path: Path
    to: str

    def apply(self, value: Any) -> Any:
        for holder, key, shown in _places(value, self.path):
            if holder[key] is not None:
                holder[key] = self._converted(holder[key], shown)
        return value

    def _converted(self, found: Any, shown: str) -> Any:
        conversion = CONVERSIONS.get((kind(found), self.to))
        if conversion is None:
            raise Misfit(shown, f"is {kind_of(found)}, which cannot be converted to {self.to}", found)
        try:
            return conversion(found)
        except (ValueError, OverflowError) as fault:
            why = str(fault) if str(fault).startswith("is ") else "cannot be read as one"
            raise Misfit(shown, f"cannot be converted to {self.to}: {why}", found) from None
        except CeleriacError:
            raise Misfit(shown, f"cannot be converted to {self.to}: it is not valid", found) from None

    def __str__(self) -> str:
        return f"convert {self.path} to {self.to}"


@dataclass(frozen=True)
class Split(Transform):
    """Make several fields of one: of text at a separator (the last takes what is left), or of a list's items."""

    source: Path
    into: tuple[Path, ...]
    separator: str
    replace: bool = False

    def apply(self, value: Any) -> Any:
        for inside, shown in reach(value, self.source.each):
            found = owner(inside, self.source.rest, shown) if inside is not None else None
            name = self.source.rest[-1]
            if found is None or found[0].get(name) is None:
                continue
            parts = self._parts(found[0].pop(name), below(found[1], name))
            for target, part in zip(self.into, parts, strict=False):
                _put(inside, target, shown, part, self.replace)
        return value

    def _parts(self, found: Any, shown: str) -> list[Any]:
        if isinstance(found, str):
            return list(found.split(self.separator, len(self.into) - 1))
        if isinstance(found, list) and len(found) <= len(self.into):
            return list(found)
        raise Misfit(shown, f"must be text, or a list of at most {len(self.into)}, found {kind_of(found)}", found)

    def __str__(self) -> str:
        return f"split {self.source} into {', '.join(map(str, self.into))}"


@dataclass(frozen=True)
class Merge(Transform):
    """Make one field of several: text joined by a separator, or a list of them where there is none."""

    sources: tuple[Path, ...]
    into: Path
    separator: str | None
    replace: bool = False

    def apply(self, value: Any) -> Any:
        for inside, shown in reach(value, self.into.each):
            parts = list(self._taken(inside, shown)) if inside is not None else []
            if parts:
                merged = parts if self.separator is None else self.separator.join(parts)
                _put(inside, self.into, shown, merged, self.replace)
        return value

    def _taken(self, inside: Any, shown: str) -> Iterator[Any]:
        for source in self.sources:
            found = owner(inside, source.rest, shown)
            if found is None or found[0].get(source.rest[-1]) is None:
                continue
            part = found[0].pop(source.rest[-1])
            if self.separator is not None and not isinstance(part, str):
                raise Misfit(below(found[1], source.rest[-1]), f"must be text, found {kind_of(part)}", part)
            yield part

    def __str__(self) -> str:
        return f"merge {', '.join(map(str, self.sources))} into {self.into}"


@dataclass(frozen=True)
class Own(Transform):
    """A function of one's own, on the whole value or on what lies at a path. It gives the new value."""

    function: Callable[[Any], Any]
    path: Path | None = None

    def apply(self, value: Any) -> Any:
        if self.path is None:
            return self._called(value, "")
        for holder, key, shown in _places(value, self.path):
            holder[key] = self._called(holder[key], shown)
        return value

    def _called(self, value: Any, shown: str) -> Any:
        try:
            return self.function(value)
        except Exception as fault:  # its text may hold the value, so only its class is told
            raise Misfit(shown, f"made {self.name} raise {type(fault).__name__}", value) from fault

    @property
    def name(self) -> str:
        """The function's module and name."""
        module = getattr(self.function, "__module__", None) or type(self.function).__module__
        return f"{module}:{getattr(self.function, '__qualname__', type(self.function).__name__)}"

    def __str__(self) -> str:
        return f"call {self.name}" + (f" on {self.path}" if self.path else "")


# -- as users write them -----------------------------------------------------------------------------------------------


def move(source: str, target: str, *, replace: bool = False) -> Transform:
    """Move `source` to `target`, as `a.b` to `c` or `items[].a` to `items[].b`. Objects on the way are made."""
    return _move(source, target, False, replace)


def copy(source: str, target: str, *, replace: bool = False) -> Transform:
    """Copy `source` to `target`."""
    return _move(source, target, True, replace)


def _move(source: str, target: str, keep: bool, replace: bool) -> Move:
    one, other = _named(Path.parse(source)), _named(Path.parse(target))
    _paired(one, other)
    if one == other:
        raise SchemaError(f"{source} cannot be moved to itself")
    return Move(one, other, keep, replace)


rename = move


def default(path: str, value: Any) -> Transform:
    """Where `path` is missing, put `value` there."""
    return Default(_named(Path.parse(path)), value)


def remove(path: str) -> Transform:
    """Remove what is at `path`."""
    return Remove(_named(Path.parse(path)))


def convert(path: str, to: str) -> Transform:
    """Make a string, number, integer, boolean, timestamp (ISO 8601 in UTC), epoch, json or list of what is there."""
    if to not in TARGETS:
        raise SchemaError(f"nothing can be converted to {to!r}; allowed: {', '.join(TARGETS)}")
    return Convert(Path.parse(path), to)


def split(source: str, into: Sequence[str], *, separator: str = " ", replace: bool = False) -> Transform:
    """Split text at `separator` (or a list) into the fields `into`; parts that it does not have stay missing."""
    if not isinstance(separator, str) or not separator:
        raise SchemaError(f"split needs a separator, found {separator!r}")
    if isinstance(into, str) or len(into) < 2:
        raise SchemaError(f"split {source} needs two fields or more to go into, found {into!r}")
    one, targets = _named(Path.parse(source)), tuple(_named(Path.parse(path)) for path in into)
    _paired(one, *targets)
    return Split(one, targets, separator, replace)


def merge(sources: Sequence[str], into: str, *, separator: str | None = None, replace: bool = False) -> Transform:
    """Join the texts of `sources` with `separator` in the field `into`; without one, make a list of them."""
    if isinstance(sources, str) or len(sources) < 2:
        raise SchemaError(f"merge into {into} needs two fields or more, found {sources!r}")
    target, ones = _named(Path.parse(into)), tuple(_named(Path.parse(path)) for path in sources)
    _paired(target, *ones)
    return Merge(ones, target, separator, replace)


def own(function: Callable[[Any], Any], path: str | None = None) -> Transform:
    """Give the whole value, or what is at `path`, to a function, and take what it gives in its place."""
    if not callable(function):
        raise SchemaError(f"own needs a function, found {function!r}")
    return Own(function, None if path is None else Path.parse(path))
