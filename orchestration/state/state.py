"""`State`: keyed values in scopes, with versions; checked, protected and sealed by their class, wherever they live."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from ...storage import serial, session_state
from ...storage.database import Transaction
from ...storage.session_state import Value
from ...storage.states.protocol import Backend, Capabilities, Entry, Origin, StateConflict, StateError, Write
from .classes import Rules, StateClass, Values, checked, class_of
from .places import Places
from .scopes import Scope, check_key, check_prefix


class Access(Protocol):
    """Asked before each operation; raises what says that it is refused. `action`: read or write."""

    def __call__(self, action: str, scope: Scope, keys: Sequence[str]) -> None: ...


class State:
    """Keyed JSON values in scopes. Scopes are text (`agent:analyzer`) or `Scope`; safe in threads and after forks.

    `backend` keeps them; `hot` keeps those of class ephemeral (None: the backend does, with a time to live). Reads may
    be up to 100 ms old where another process writes, unless they are `consistent`; one's own writes are always read.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        hot: Backend | None = None,
        values: Values | None = None,
        rules: Rules | None = None,
        ephemeral_seconds: float = 3600.0,
        copies: int = 10_000,
        access: Access | None = None,
    ) -> None:
        self.places = Places(backend, hot, copies)
        self.values = values or Values(1 << 24)
        self._rules = rules or Rules()
        self._ephemeral_seconds = ephemeral_seconds
        self._access = access
        self._prefix = ""
        self._bound = False
        self._here = threading.local()
        #: Told of each use of a session's own scope before it: the prefix of its tenant's scopes, and its name.
        self.awaken: Callable[[str, str], None] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the place can do in which values are kept."""
        return self.places.backend.capabilities

    def of_tenant(self, tenant: str) -> State:
        """The state of one tenant, which shows nothing of any other's; an empty name means the one without."""
        other = self._other()
        other._prefix = session_state.prefix_of(tenant)
        other.values = replace(self.values, tenant=tenant)
        return other

    def with_access(self, access: Access | None) -> State:
        """The same state behind a check that is asked before each operation."""
        other = self._other()
        other._access = access
        return other

    def bound(self) -> State:
        """The same state, from which none of another tenant or behind another check can be had."""
        other = self._other()
        other._bound = True
        return other

    def _other(self) -> State:
        if self._bound:
            raise StateError("this state belongs to its caller; another one's cannot be had from it")
        return copy.copy(self)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, scope: str | Scope, key: str, default: Any = None, *, consistent: bool = False) -> Any:
        """The value of a key, or `default`. With `consistent`, every write that was acknowledged anywhere is seen."""
        name = self.named("read", scope, (key,))
        entry = self.places.entry(self._prefix + name, key, consistent)
        return default if entry is None else self.values.value(name, key, entry)

    def get_versioned(self, scope: str | Scope, key: str, default: Any = None) -> tuple[Any, int]:
        """The present value and its version; `default` and 0 where there is none. Always consistent."""
        name = self.named("read", scope, (key,))
        entry = self.places.entry(self._prefix + name, key, True)
        return (default, 0) if entry is None else (self.values.value(name, key, entry), entry.version)

    def get_many(self, scope: str | Scope, keys: Sequence[str]) -> dict[str, Any]:
        """The present values of those of the keys that exist, as of one moment."""
        wanted = list(dict.fromkeys(keys))
        name = self.named("read", scope, wanted)
        found = self.places.entries(self._prefix + name, wanted)
        return {key: self.values.value(name, key, found[key]) for key in wanted if key in found}

    def exists(self, scope: str | Scope, key: str) -> bool:
        """Whether the key has a value now."""
        return self.places.entry(self._prefix + self.named("read", scope, (key,)), key, True) is not None

    def list_keys(
        self, scope: str | Scope, prefix: str = "", *, after: str = "", limit: int | None = None
    ) -> list[str]:
        """The keys of a scope that start with `prefix` and come after `after`, in the order of their code points."""
        name = self.named("read", scope, ())
        check_prefix(prefix)
        check_prefix(after)
        if limit is not None and not (isinstance(limit, int) and 0 <= limit < 2**62):
            raise StateError(f"limit is {limit!r:.60}; it must be a whole number of 0 or more")
        return self.places.keys(self._prefix + name, prefix, after, limit)

    # -- writing -----------------------------------------------------------------------------------------------------

    def set(
        self,
        scope: str | Scope,
        key: str,
        value: Any,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> int:
        """Set a key to a JSON value; gives its version. `ttl`: seconds until it is gone.

        Raises NotSerializable naming the path of what is no JSON, TooLarge, SchemaError, and StateError for a class
        that cannot be had; then nothing was written.
        """
        name = self.named("write", scope, (key,))
        class_ = self.class_for(name, key, state_class)
        write = self.write(name, key, value, class_, ttl)
        return self.places.put(self._prefix + name, [write], class_ == "ephemeral", origin)[0]

    def set_many(
        self,
        scope: str | Scope,
        values: Mapping[str, Any],
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Set several keys of a scope: all of them or none (those of class ephemeral apart from the others)."""
        name = self.named("write", scope, tuple(values))
        parts: dict[bool, list[Write]] = {False: [], True: []}
        for key, value in values.items():
            class_ = self.class_for(name, key, state_class)
            parts[class_ == "ephemeral"].append(self.write(name, key, value, class_, ttl))
        for ephemeral, writes in parts.items():
            if writes:
                self.places.put(self._prefix + name, writes, ephemeral, origin)

    def delete(self, scope: str | Scope, key: str, *, origin: Origin | None = None) -> bool:
        """Delete a key; whether it had a value."""
        return self.places.delete(self._prefix + self.named("write", scope, (key,)), key, origin)

    def clear_scope(self, scope: str | Scope, *, origin: Origin | None = None) -> int:
        """Delete all keys of a scope; gives how many there were."""
        return self.places.clear(self._prefix + self.named("write", scope, ()), origin)

    def update(
        self,
        scope: str | Scope,
        key: str,
        fn: Callable[[Any], Any],
        default: Any = None,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> Any:
        """Set a key to `fn(its present value, or default)`; gives the new value. No other write is lost by it.

        `fn` may be called several times, and must not write state. Without `state_class` or a rule, the value keeps its
        class. Raises StateConflict, after 30 s, where others change the key again and again.
        """
        name = self.named("write", scope, (key,))
        edit = self.updating(name, key, fn, default, state_class, ttl)
        ephemeral = self._is_ephemeral(name, key, state_class)
        self.places.change(self._prefix + name, key, edit, ephemeral, replace(origin or Origin(), operation="update"))
        return edit.value

    def compare_and_set(
        self,
        scope: str | Scope,
        key: str,
        expected_version: int,
        value: Any,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        origin: Origin | None = None,
    ) -> int:
        """Set a key if its version is still the expected one (0: it has no value); gives the new version, or 0 if it is
        not. No version comes twice, also when the key was deleted in between.
        """
        name = self.named("write", scope, (key,))
        present = self.places.entry(self._prefix + name, key, True)
        if (present.version if present is not None else 0) != expected_version:
            return 0
        class_ = self.class_for(name, key, state_class, present)
        write = replace(self.write(name, key, value, class_, ttl), expected=expected_version)
        try:
            return self.places.put(self._prefix + name, [write], class_ == "ephemeral", origin)[0]
        except StateConflict:
            return 0

    def clear_with(self, tx: Transaction, scope: str | Scope) -> None:
        """Delete all keys of a scope if an open transaction of the sessions' database is committed."""
        self.places.clear_with(tx, self._prefix + self.named("write", scope, (), awake=False), Origin())

    def put_back(self, tx: Transaction, scope: str | Scope, values: Mapping[str, Value], origin: Origin) -> int:
        """Put what a checkpoint kept in the place of all that a scope has, if an open transaction of the sessions'
        database is committed; gives how many keys that changes.
        """
        name = self.named("write", scope, (), awake=False)

        def bind(key: str, value: Value) -> Callable[[int], bytes] | None:
            return self.values.binding(name, key, value.body or b"", value.meta, value.version)

        return self.places.put_back(tx, self._prefix + name, values, origin, bind)

    def close(self) -> None:
        """Close what the backends have open. A use after that opens it again."""
        self.places.close()

    # -- parts of the above, for what writes later ---------------------------------------------------------------------

    def named(self, action: str, scope: str | Scope, keys: Sequence[str], awake: bool = True) -> str:
        """The canonical text of a scope. What is no scope or key, or is not allowed, is refused. `awake`: see to it
        that what a branch's session keeps is there, which is not done inside a transaction.
        """
        name = _canonical(scope)
        for key in keys:
            check_key(key)
        if action == "write" and getattr(self._here, "inside", False):
            raise StateError("state cannot be written from a function that `update` calls: return the new value")
        if self._access is not None:
            self._access(action, Scope.parse(name), keys)
        if awake and self.awaken is not None and name.startswith("session:"):
            self.awaken(self._prefix, name)
        return name

    def place_of(self, name: str) -> str:
        """How the backend calls a scope."""
        return self._prefix + name

    def class_for(self, name: str, key: str, given: StateClass | None, present: Entry | None = None) -> StateClass:
        """The class of a value: as given, else by the rules, else as it is now, else standard."""
        if given is not None:
            return checked(given)
        ruled = self._rules.of(name, key)
        if ruled is not None:
            return ruled
        return class_of(present) if present is not None else "standard"

    def _is_ephemeral(self, name: str, key: str, given: StateClass | None) -> bool | None:
        class_ = checked(given) if given is not None else self._rules.of(name, key)
        return None if class_ is None else class_ == "ephemeral"

    def write(self, name: str, key: str, value: Any, class_: StateClass, ttl: float | None) -> Write:
        """A value as it is written, checked and sealed."""
        if class_ == "ephemeral" and ttl is None:
            ttl = self._ephemeral_seconds
        if ttl is not None and not 0 < ttl < 1e10:
            raise StateError(f"ttl is {ttl!r}; it must be a number of seconds over 0")
        body, meta = self.values.packed(name, key, value, class_)
        return Write(key, body, meta, ttl=ttl, bind=self.values.binding(name, key, body, meta) if meta else None)

    def updating(
        self,
        name: str,
        key: str,
        fn: Callable[[Any], Any],
        default: Any,
        state_class: StateClass | None,
        ttl: float | None,
    ) -> Updating:
        """A change by a function, to be called with the entry that is there when it is written."""
        kept = serial.encode(default, what=f"default of {name} {key!r}")
        return Updating(self, name, key, fn, kept, state_class, ttl)


@dataclass
class Updating:
    """A change by a function: called with the present entry, gives what is written; `value` is the new value."""

    state: State
    name: str
    key: str
    fn: Callable[[Any], Any]
    default: bytes
    state_class: StateClass | None
    ttl: float | None
    value: Any = None

    def __call__(self, entry: Entry | None) -> Write:
        state = self.state
        present = serial.decode(self.default) if entry is None else state.values.value(self.name, self.key, entry)
        state._here.inside = True
        try:
            self.value = self.fn(present)
        finally:
            state._here.inside = False
        class_ = state.class_for(self.name, self.key, self.state_class, entry)
        return state.write(self.name, self.key, self.value, class_, self.ttl)


@lru_cache(maxsize=4096)
def _canonical(scope: str | Scope) -> str:
    return str(Scope.parse(scope))
