"""Typed fields: what a value may be.

Two levels of checking. `basic`: required fields are there, and all that is known has its type. `strict`: lengths,
ranges, patterns and times hold too, and nothing unknown is there, unless its object says `extra=True`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic_core import SchemaError as PatternFault
from pydantic_core import SchemaValidator, ValidationError, core_schema

from ...errors import SchemaError

Level = Literal["basic", "strict"]
LEVELS: tuple[Level, ...] = ("basic", "strict")
#: Seconds since 1970 of the first and the last moment that ISO 8601 writes with four digits of the year.
EARLIEST, LATEST = -62135596800, 253402300799
#: A pattern may have so many characters, and is tried on texts of at most so many.
LONGEST_PATTERN = 1000
LONGEST_MATCHED = 100_000

#: Path and what is wrong there, without the value.
Fault = tuple[str, str]


def kind_of(value: Any) -> str:
    """A JSON value's kind, in words that give nothing of it away."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} items"
    return type(value).__name__


@dataclass(frozen=True, kw_only=True)
class Field:
    """What all fields have: `required` (else it may be missing) and `nullable` (null is allowed)."""

    type: ClassVar[str] = ""
    required: bool = True
    nullable: bool = False
    description: str = field(default="", compare=False)

    def faults(self, value: Any, strict: bool, path: str = "") -> Iterator[Fault]:
        """What is wrong with a value and where."""
        if value is None:
            if not self.nullable:
                yield path, f"must be {self.wanted}, found null"
        elif not self.has_type(value):
            yield path, f"must be {self.wanted}, found {kind_of(value)}"
        else:
            yield from self.faults_inside(value, strict, path)

    def has_type(self, value: Any) -> bool:
        """Whether a value that is not null is of this type."""
        raise NotImplementedError

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        """What is wrong with a value that has the type."""
        return iter(())

    @property
    def wanted(self) -> str:
        """The type in words."""
        return f"a {self.type}"

    def to_dict(self) -> dict[str, Any]:
        """As a file declares it; options that are as by default are left out."""
        told: dict[str, Any] = {"type": self.type}
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Field):
                told[one.name] = value.to_dict()
            elif isinstance(value, Mapping):
                told[one.name] = {name: inner.to_dict() for name, inner in value.items()}
            elif value != one.default:
                told[one.name] = value
        return told


@dataclass(frozen=True, kw_only=True)
class Anything(Field):
    """Any JSON value."""

    type: ClassVar[str] = "anything"

    def faults(self, value: Any, strict: bool, path: str = "") -> Iterator[Fault]:
        return iter(())


def _bounds(what: str, low: float | None, high: float | None, least: float | None = None) -> None:
    for name, bound in (("min", low), ("max", high)):
        if bound is None:
            continue
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise SchemaError(f"{name} of a {what} must be a number, found {bound!r}")
        if least is not None and (bound < least or bound != int(bound)):
            raise SchemaError(f"{name} of a {what} must be a whole number of at least {least}, found {bound!r}")
    if low is not None and high is not None and low > high:
        raise SchemaError(f"a {what} with min {low} and max {high} allows nothing")


@dataclass(frozen=True, kw_only=True)
class String(Field):
    """Text. `min` and `max` count characters; `pattern` must match all of it, in linear time (Rust's regex syntax)."""

    type: ClassVar[str] = "string"
    min: int = 0
    max: int | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        _bounds("string", self.min, self.max, 0)
        if self.pattern is not None:
            if not isinstance(self.pattern, str) or len(self.pattern) > LONGEST_PATTERN:
                raise SchemaError(f"a pattern must be text of at most {LONGEST_PATTERN} characters")
            try:
                _ = self._matcher
            except PatternFault as fault:
                why = str(fault).strip().splitlines()[-1].removeprefix("error: ")
                raise SchemaError(f"pattern {self.pattern!r} cannot be used: {why}") from None

    @cached_property
    def _matcher(self) -> SchemaValidator:
        # Rust's engine: no backtracking, so no text makes it slow, and too large a pattern is refused.
        form = core_schema.str_schema(pattern=rf"\A(?:{self.pattern})\z", regex_engine="rust-regex")
        return SchemaValidator(form)

    def has_type(self, value: Any) -> bool:
        return isinstance(value, str)

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        if not strict:
            return
        size = len(value)
        if size < self.min or (self.max is not None and size > self.max):
            yield path, f"must have {_span(self.min, self.max)} characters, found {size}"
        elif self.pattern is not None:
            if size > LONGEST_MATCHED:
                yield path, f"has {size} characters; a pattern is tried on at most {LONGEST_MATCHED}"
            elif not self._matches(value):
                yield path, f"must match the pattern {self.pattern}"

    def _matches(self, value: str) -> bool:
        try:
            self._matcher.validate_python(value)
        except ValidationError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Number(Field):
    """A finite number, with bounds that belong to it; `integer`: a whole one."""

    type: ClassVar[str] = "number"
    min: float | None = None
    max: float | None = None
    integer: bool = False

    def __post_init__(self) -> None:
        _bounds("number", self.min, self.max)

    @property
    def wanted(self) -> str:
        return "a whole number" if self.integer else "a number"

    def has_type(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and (not self.integer or value == int(value))

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        low, high = self.min, self.max
        if strict and ((low is not None and value < low) or (high is not None and value > high)):
            yield path, f"must be {_span(low, high)}"


@dataclass(frozen=True, kw_only=True)
class Boolean(Field):
    """True or false."""

    type: ClassVar[str] = "boolean"

    def has_type(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Timestamp(Field):
    """A moment: ISO 8601 text with its offset from UTC (`iso`), seconds since 1970 (`epoch`), or either (`any`)."""

    type: ClassVar[str] = "timestamp"
    form: Literal["any", "iso", "epoch"] = "any"

    def __post_init__(self) -> None:
        if self.form not in ("any", "iso", "epoch"):
            raise SchemaError(f"form {self.form!r} of a timestamp is not allowed; allowed: any, iso, epoch")

    def has_type(self, value: Any) -> bool:
        if isinstance(value, str):
            return self.form != "epoch"
        return self.form != "iso" and isinstance(value, int | float) and not isinstance(value, bool)

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        if not strict:
            return
        if isinstance(value, str):
            if moment_of(value) is None:
                yield path, "must be a moment in ISO 8601 with its offset from UTC, as 2026-01-31T12:00:00Z"
        elif not EARLIEST <= value <= LATEST:
            yield path, "must be seconds since 1970 of a moment in the years 1 to 9999"


def moment_of(text: str) -> datetime | None:
    """The moment that an ISO 8601 text with an offset names, or None."""
    if len(text) > 64:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


@dataclass(frozen=True, kw_only=True)
class Object(Field):
    """An object with these fields; `extra`: others are allowed too."""

    type: ClassVar[str] = "object"
    fields: Mapping[str, Field] = field(default_factory=dict)
    extra: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(fields_of(self.fields)))

    @property
    def wanted(self) -> str:
        return "an object"

    def has_type(self, value: Any) -> bool:
        return isinstance(value, Mapping)

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        for name, inner in self.fields.items():
            if name in value:
                yield from inner.faults(value[name], strict, below(path, name))
            elif inner.required:
                yield below(path, name), "is missing"
        if strict and not self.extra:
            for name in value:
                if name not in self.fields:
                    yield below(path, name), f"is not known; known: {', '.join(self.fields) or 'none'}"


@dataclass(frozen=True, kw_only=True)
class List(Field):
    """A list of `items`, from `min` to `max` of them."""

    type: ClassVar[str] = "list"
    items: Field = field(default_factory=Anything)
    min: int = 0
    max: int | None = None

    def __post_init__(self) -> None:
        _bounds("list", self.min, self.max, 0)
        object.__setattr__(self, "items", field_of(self.items, "items"))

    def has_type(self, value: Any) -> bool:
        return isinstance(value, list | tuple)

    def faults_inside(self, value: Any, strict: bool, path: str) -> Iterator[Fault]:
        if strict and (len(value) < self.min or (self.max is not None and len(value) > self.max)):
            yield path, f"must have {_span(self.min, self.max)} items, found {len(value)}"
            return
        for place, item in enumerate(value):
            yield from self.items.faults(item, strict, f"{path}[{place}]")


def _span(low: float | None, high: float | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def below(path: str, name: str) -> str:
    """The path of a field inside the object at `path`."""
    shown = name[:60] if name.isidentifier() else ascii(name[:60])
    return f"{path}.{shown}" if path else shown


TYPES: dict[str, type[Field]] = {
    kind.type: kind for kind in (String, Number, Boolean, Timestamp, Object, List, Anything)
}


def field_of(declared: Any, name: str) -> Field:
    """A field from what declares it: a Field, the name of a type, or an object with `type` and options.

    Raises SchemaError naming the field.
    """
    if isinstance(declared, Field):
        return declared
    if isinstance(declared, str):
        declared = {"type": declared}
    if not isinstance(declared, Mapping) or declared.get("type") not in TYPES:
        found = declared.get("type") if isinstance(declared, Mapping) else declared
        raise SchemaError(f"field {name!r}: type {found!r} is not allowed; allowed: {', '.join(TYPES)}")
    kind = TYPES[declared["type"]]
    options = {key: value for key, value in declared.items() if key != "type"}
    allowed = [one.name for one in dataclasses.fields(kind)]
    for key, value in options.items():
        if key not in allowed:
            raise SchemaError(f"field {name!r}: a {kind.type} has no option {key!r}; allowed: {', '.join(allowed)}")
        if key in ("required", "nullable", "extra", "integer") and not isinstance(value, bool):
            raise SchemaError(f"field {name!r}: {key} must be true or false, found {value!r}")
    try:
        return kind(**options)
    except SchemaError as fault:
        raise SchemaError(f"field {name!r}: {fault}") from None


def fields_of(declared: Any) -> dict[str, Field]:
    """Fields by name. Raises SchemaError naming the one that is wrong."""
    if not isinstance(declared, Mapping):
        raise SchemaError(f"fields must be an object of names and types, found {kind_of(declared)}")
    for name in declared:
        if not isinstance(name, str) or not name:
            raise SchemaError(f"a field's name must be text, found {name!r}")
    return {name: field_of(one, name) for name, one in declared.items()}
