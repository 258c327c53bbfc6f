"""Keyed state as migrations handle it: entries of one version brought to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ...errors import CeleriacError, SchemaError
from ...storage import serial, session_state
from ...storage.migration_runs import Old
from ...storage.states.protocol import Entry, Listing, Origin, Write
from ..state.scopes import Scope
from .fields import kind_of
from .registry import Pattern, Schemas
from .routes import MigrationFailed, shortened
from .schema import Schema

if TYPE_CHECKING:
    from ..state.state import State

#: Keys are listed so many at a time.
_LISTED: Final = 1000
#: A message kept with a key that failed has at most so many characters.
_LONGEST_ERROR: Final = 1000


@dataclass(frozen=True)
class Aim:
    """What a run brings where: values of keys in scopes to a version of their schema."""

    target: Schema
    through: tuple[str, ...]
    scope: Pattern
    key: Pattern
    level: str


@dataclass(frozen=True)
class Change:
    """What is to be done with one key: what it was, and (None: it failed) what is written."""

    old: Old
    write: Write | None
    before: Any = None
    after: Any = None


class KeyedValues:
    """The values of a State that a run is about: one place for reading, changing and showing them."""

    def __init__(self, state: State, schemas: Schemas, run_id: str = "") -> None:
        self._state = state
        self._schemas = schemas
        self._values = replace(state.values, schemas=None)  # as they lie, without migrating them on reading
        self.run_id = run_id

    def keys(self, aim: Aim, at_scope: str = "", at_key: str = "") -> Iterator[tuple[str, list[str]]]:
        """Scopes with keys that the aim fits, in order, all after a place, at most 1000 keys at a time."""
        for scope in self._scopes(aim.scope, at_scope):
            after = at_key if scope == at_scope else ""
            while True:
                found = self._state.list_keys(scope, aim.key.prefix, after=after, limit=_LISTED)
                fitting = [key for key in found if aim.key.matches(key)]
                if fitting:
                    yield scope, fitting
                if len(found) < _LISTED:
                    break
                after = found[-1]

    def _scopes(self, pattern: Pattern, start: str) -> list[str]:
        if pattern.is_exact:
            return [str(Scope.parse(pattern.text))]
        backend, prefix = self._state.places.backend, self._state.place_of("")
        if not isinstance(backend, Listing):
            raise SchemaError(
                f"{type(backend).__name__} cannot list its scopes, so {pattern.text!r} cannot be had: name one"
            )
        own = (name for name in backend.scopes() if name.startswith(prefix or session_state.TENANT) == bool(prefix))
        scopes = (name.removeprefix(prefix) for name in own)
        return [scope for scope in scopes if scope >= start and pattern.matches(scope)]

    def entries(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        """The present entries of keys."""
        return self._state.places.backend.get(self._state.place_of(self._state.named("read", scope, keys)), keys)

    def write(self, scope: str, writes: Sequence[Write]) -> list[int]:
        """Change entries, all or none; gives their versions. Raises StateConflict."""
        name = self._state.named("write", scope, [write.key for write in writes])
        origin = Origin("migrate", self.run_id)
        return self._state.places.put(self._state.place_of(name), writes, False, origin)

    def is_of_run(self, entry: Entry | None) -> bool:
        """Whether an entry is what this run wrote."""
        return entry is not None and _about(entry.meta).get("run") == self.run_id

    def changed(self, aim: Aim, scope: str, key: str, entry: Entry) -> Change | None:
        """What is to be done with a key; None where it is not of the schema, or is of the target version already."""
        about = _about(entry.meta)
        written = str(about.get("schema", ""))
        if entry.passing or not self._is_meant(aim, scope, key, written):
            return None
        old = Old(scope, key, "pending", written, entry.body, entry.meta, entry.version)
        what = f"{scope} {key!r}"
        value: Any = None
        try:
            value = self._values.value(scope, key, entry)
            source = self._schemas.source_of(aim.target, value, written, what)
            if source.version == aim.target.version:
                return None
            old.source = str(source.version)
            route = self._schemas.plan(aim.target.name, source.version, aim.target.version, aim.through)
            after = route.apply(value, aim.level, what)
            return Change(old, self._write(key, scope, after, about, aim.target, entry.version), value, after)
        except CeleriacError as fault:
            told = fault.told(self.shown(old)) if isinstance(fault, MigrationFailed) else str(fault)
            old.status, old.body, old.error = "failed", None, serial.storable(told[:_LONGEST_ERROR])
            return Change(old, None, value)

    def _is_meant(self, aim: Aim, scope: str, key: str, written: str) -> bool:
        if written:
            return written.rpartition("@")[0] == aim.target.name
        bound = self._schemas.bound(scope, key)
        return bound.name == aim.target.name if bound is not None else aim.key.is_exact

    def _write(self, key: str, scope: str, value: Any, about: dict[str, Any], target: Schema, version: int) -> Write:
        body, _ = self._values.packed(scope, key, value, "sensitive" if about.get("sealed") else "standard")
        meta = {**about, "schema": target.text, "run": self.run_id, **({"sealed": True} if self._values.all else {})}
        text = serial.encode(meta).decode()
        return Write(key, body, text, expected=version, bind=self._values.binding(scope, key, body, text))

    def back(self, old: Old) -> Write:
        """What puts an old value back: as it was, but sealed for its new version."""
        bind = self._values.binding(old.scope, old.key, old.body or b"", old.meta, old.version)
        return Write(old.key, old.body, old.meta, expected=old.new_version, bind=bind)

    def is_back(self, old: Old, entry: Entry | None) -> bool:
        """Whether an entry holds the old value, and says the same of it."""
        if entry is None or entry.meta != old.meta or old.body is None:
            return False
        before = Entry(old.body, old.version, old.meta)
        return self._values.plain(old.scope, old.key, entry) == self._values.plain(old.scope, old.key, before)

    def shown(self, old: Old) -> Callable[[Any], str]:
        """How values within a key may be shown: of what is sealed only the kind, of others what the guard lets."""
        if _about(old.meta).get("sealed"):
            return kind_of
        policy = self._values.policy

        def shown(value: Any) -> str:
            if policy is not None and policy.active:
                value = policy.apply(value, f"{old.scope} {old.key}")
            return shortened(value)

        return shown


def _about(meta: str) -> dict[str, Any]:
    found: dict[str, Any] = serial.decode(meta) if meta else {}
    return found
