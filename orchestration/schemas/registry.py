"""`Schemas`: all schemas in all their versions, and which keys are bound to which."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import SchemaError
from ..state.scopes import Scope
from . import declared, routes
from .fields import kind_of
from .routes import Route
from .schema import Schema
from .versions import Version

#: The schemas of so many keys are remembered.
_REMEMBERED = 10_000


class Pattern:
    """Text in which each `*` stands for any characters, none too. Matching takes linear time."""

    def __init__(self, text: str | Scope) -> None:
        if not isinstance(text, str | Scope) or not str(text):
            raise SchemaError(f"a pattern of scopes or keys must be text, found {text!r}")
        self.text = str(text)
        # A Scope is meant as it is, whatever its ids hold.
        self._parts = re.split(r"\*+", self.text) if isinstance(text, str) else [self.text]

    @property
    def is_exact(self) -> bool:
        return len(self._parts) == 1

    @property
    def prefix(self) -> str:
        """What all that it matches begins with."""
        return self._parts[0]

    @property
    def closeness(self) -> tuple[bool, int]:
        """The higher, the closer to one text."""
        return self.is_exact, sum(map(len, self._parts))

    def matches(self, text: str) -> bool:
        """Whether it stands for the text."""
        first, *others = self._parts
        if not others:
            return text == first
        last = others.pop()
        if not (text.startswith(first) and text.endswith(last) and len(text) >= len(first) + len(last)):
            return False
        place, end = len(first), len(text) - len(last)
        for part in others:
            found = text.find(part, place, end)
            if found < 0:
                return False
            place = found + len(part)
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(tuple(self._parts))


@dataclass(frozen=True)
class Binding:
    """Keys that hold values of a schema: of one version, or (None) of the newest that is registered."""

    scope: Pattern
    key: Pattern
    schema: str
    version: Version | None = None

    def matches(self, scope: str, key: str) -> bool:
        return self.scope.matches(scope) and self.key.matches(key)

    @property
    def closeness(self) -> tuple[tuple[bool, int], tuple[bool, int]]:
        return self.scope.closeness, self.key.closeness


class Schemas:
    """Schemas by name and version, and the keys that are bound to them. Safe in threads."""

    def __init__(self) -> None:
        self._schemas: dict[str, dict[Version, Schema]] = {}
        self._bindings: list[Binding] = []
        self._bound: dict[tuple[str, str], Schema | None] = {}
        self._routes: dict[tuple[str, Version, Version], Route] = {}
        self._lock = threading.RLock()

    # -- schemas -----------------------------------------------------------------------------------------------------

    def add(self, schema: Schema) -> Schema:
        """Register a version of a schema. The same version again must say the same.

        Raises SchemaError, naming the field, where it breaks what it promises towards the version before it, or the
        version after it breaks what that one promises towards this.
        """
        with self._lock:
            versions = self._schemas.get(schema.name, {})
            known = versions.get(schema.version)
            if known is not None:
                if known.to_dict() != schema.to_dict():
                    raise SchemaError(f"schema {schema.text} is registered already, and says something else")
                return known
            lower = max((v for v in versions if v < schema.version), default=None)
            higher = min((v for v in versions if v > schema.version), default=None)
            if lower is not None:
                schema.check_after(versions[lower])
            if higher is not None:
                versions[higher].check_after(schema)
            self._schemas[schema.name] = {**versions, schema.version: schema}
            self._forget()
            return schema

    def _forget(self) -> None:
        self._bound, self._routes = {}, {}

    def load(self, names: Iterable[str]) -> None:
        """Register what files (.yaml, .yml, .json) say, and import modules, which register by themselves.

        Raises SchemaError naming the file.
        """
        for name in names:
            if name.endswith((".yaml", ".yml", ".json")):
                self._load_file(Path(name).expanduser())
            else:
                try:
                    import_module(name)
                except ImportError as fault:
                    raise SchemaError(
                        f"schemas names the module {name!r}, which cannot be imported: {fault}"
                    ) from fault

    def _load_file(self, file: Path) -> None:
        said = declared.read(file)
        try:
            for key in ("schemas", "bindings"):
                if not isinstance(said.get(key, []), list):
                    raise SchemaError(f"{key} must be a list, found {kind_of(said[key])}")
            made = [Schema.from_dict(one) for one in said.get("schemas", [])]
            for schema in sorted(made, key=lambda one: one.version):
                self.add(schema)
            for one in said.get("bindings", []):
                if not isinstance(one, Mapping) or not {"scope", "key", "schema"} <= one.keys() <= _BINDING_KEYS:
                    raise SchemaError("a binding is an object with scope, key and schema, and version if it is fixed")
                self.bind(**one)
        except SchemaError as fault:
            raise SchemaError(f"schemas file {file}: {fault}") from None

    def names(self) -> list[str]:
        """The names of all schemas, in order."""
        return sorted(self._schemas)

    def versions(self, name: str) -> list[Version]:
        """The versions of a schema, the oldest first. Raises SchemaError."""
        return sorted(self._of(name))

    def _of(self, name: str) -> dict[Version, Schema]:
        found = self._schemas.get(name)
        if found is None:
            raise SchemaError(f"no schema {name!r}; there are: {', '.join(self.names()) or 'none'}")
        return found

    def get(self, name: str, version: str | Version | None = None) -> Schema:
        """A schema of that version, or the newest. Raises SchemaError that lists the versions that there are."""
        versions = self._of(name)
        number = max(versions) if version is None else Version.parse(version)
        if number not in versions:
            raise SchemaError(
                f"schema {name!r} has no version {number}; it has: {', '.join(map(str, sorted(versions)))}"
            )
        return versions[number]

    def plan(self, name: str, start: str | Version, end: str | Version, through: Sequence[str] = ()) -> Route:
        """The shortest way from one version to another, to be shown or run. Raises SchemaError."""
        source, target = self.get(name, start).version, self.get(name, end).version
        stops = [self.get(name, stop).version for stop in through]
        if stops:
            return routes.find(self._of(name), source, target, stops)
        known = self._routes.get((name, source, target))
        if known is None:
            known = self._routes[name, source, target] = routes.find(self._of(name), source, target)
        return known

    # -- keys --------------------------------------------------------------------------------------------------------

    def bind(self, scope: str | Scope, key: str, schema: str, version: str | Version | None = None) -> None:
        """Say that keys hold values of a schema: `bind("agent:analyzer", "profile*", "profile")`.

        In `scope` and `key` a `*` stands for any characters. Where several bindings fit a key, that with the closest
        scope counts, then the closest key. Raises SchemaError for an unknown schema, or keys bound to another one.
        """
        number = self.get(schema, version).version if version is not None else None
        self._of(schema)
        one = Binding(Pattern(scope), Pattern(key), schema, number)
        with self._lock:
            for other in self._bindings:
                if (other.scope, other.key) == (one.scope, one.key) and other != one:
                    raise SchemaError(f"{one.scope.text} {one.key.text} is bound to schema {other.schema!r} already")
            if one not in self._bindings:
                self._bindings = sorted([*self._bindings, one], key=lambda b: b.closeness, reverse=True)
            self._forget()

    @property
    def bindings(self) -> list[Binding]:
        """All bindings, the closest first."""
        return list(self._bindings)

    def bound(self, scope: Scope | str, key: str) -> Schema | None:
        """The schema that a key is bound to, in the version to be written, or None."""
        if not self._bindings:
            return None
        text = str(scope)
        remembered = self._bound
        try:
            return remembered[text, key]
        except KeyError:
            pass
        one = next((b for b in self._bindings if b.matches(text, key)), None)
        found = self.get(one.schema, one.version) if one is not None else None
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered[text, key] = found
        return found

    def check(self, scope: Scope | str, key: str, value: Any, level: str = "strict") -> str:
        """Check a value that is to be written; gives `name@version` to be kept with it, `` where no schema is bound.

        Raises SchemaError naming the path; with level "strict" also where no schema is bound.
        """
        schema = self.bound(scope, key)
        if schema is None:
            if level == "strict":
                raise SchemaError(f"{scope} {key!r} is bound to no schema, and a strict check needs one")
            return ""
        schema.check(value, level, f"{scope} {key!r}")
        return schema.text

    def current(self, scope: Scope | str, key: str, value: Any, meta_schema: str = "") -> tuple[Any, str, bool]:
        """A value that was read, as its schema has it now: (value, `name@version`, whether it changed).

        `meta_schema` is what `check` gave when it was written; a value without is taken for the newest version that it
        strictly fits. Where no schema is bound, everything stays as it is. Raises SchemaError.
        """
        schema = self.bound(scope, key)
        if schema is None or schema.text == meta_schema:
            return value, meta_schema, False
        what = f"{scope} {key!r}"
        source = self.source_of(schema, value, meta_schema, what)
        if source.version == schema.version:
            return value, schema.text, False
        return self.plan(schema.name, source.version, schema.version).apply(value, "basic", what), schema.text, True

    def source_of(self, schema: Schema, value: Any, meta_schema: str, what: str = "value") -> Schema:
        """The version of `schema` in which a value was written. Raises SchemaError."""
        name, _, number = meta_schema.rpartition("@")
        if meta_schema:
            if name != schema.name:
                raise SchemaError(f"{what} was written with schema {meta_schema}, and is bound to {schema.name!r}")
            return self.get(name, number)
        versions = self._of(schema.name)
        likely = [schema, *(versions[v] for v in sorted(versions, reverse=True) if v < schema.version)]
        found = next((one for one in likely if one.fits(value)), None)
        if found is None:
            tried = ", ".join(str(one.version) for one in likely)
            raise SchemaError(f"{what} was written without a schema, and fits no version of {schema.name!r}: {tried}")
        return found


_BINDING_KEYS = frozenset({"scope", "key", "schema", "version"})

#: Where modules that the setting `schemas` names register theirs.
schemas = Schemas()
