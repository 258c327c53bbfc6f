"""`ctx.state`: keyed state for one step. Where it lives in the database of the sessions, a step's writes are held and
go in with its result, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...storage.database import Transaction
from ...storage.states.protocol import Entry, Origin, StateConflict, StateError, Write
from ..turn import Turn
from ..work import Work
from .classes import StateClass
from .places import Edit, kept
from .scopes import Scope
from .state import State, Updating


class HeldFailed(StateError):
    """What a step wrote could not be recorded as things are now; the attempt has failed, nothing of it was recorded."""


class Held:
    """Writes of a step that wait for its result: for each key, in order, what becomes of the value then."""

    def __init__(self, state: State, origin: Origin, again: Callable[[Transaction, str], None] | None = None) -> None:
        self._state = state
        self._origin = origin
        self._again = again  # asked whether a scope may still be written, in the transaction that does it
        self._edits: dict[tuple[str, str], list[Write | Edit]] = {}

    def add(self, name: str, key: str, edit: Write | Edit) -> None:
        """Hold one more change of a key."""
        self._edits.setdefault((name, key), []).append(edit)

    def has(self, name: str, key: str) -> bool:
        """Whether a change of that key is held."""
        return (name, key) in self._edits

    def seen(self, name: str, key: str, entry: Entry | None) -> Entry | None:
        """The entry as the step sees it: with what is held done to it. Its version is that of the present entry."""
        for edit in self._edits.get((name, key), ()):
            write = edit if isinstance(edit, Write) else edit(entry)
            entry = kept(write, entry.version if entry is not None else 0)
        return entry

    def keys(self, name: str) -> list[str]:
        """The keys of a scope that are changed."""
        return [key for scope, key in self._edits if scope == name]

    def record(self, tx: Transaction) -> None:
        """Write all that is held, in the transaction that records the step's result; functions of `update` are applied
        to what is there now. Raises HeldFailed and AccessDenied; then the transaction must not be committed.
        """
        if self._again is not None:
            for name in sorted({name for name, _ in self._edits}):
                self._again(tx, name)
        for place in sorted(self._edits):  # one order, or the locks of two steps could cross
            name, key = place
            edits = self._edits[place]
            operation = "update" if any(isinstance(edit, Updating) for edit in edits) else ""
            origin = replace(self._origin, operation=operation)
            try:
                guarded = [edit if isinstance(edit, Write) else _guarded(edit, f"{name} {key!r}") for edit in edits]
                self._state.places.write_in(tx, self._state.place_of(name), key, guarded, origin)
            except StateConflict as fault:
                raise HeldFailed(f"another wrote it while the step ran: {fault}") from fault


def keep(turn: Turn, work: Work) -> None:
    """Write what a step wrote to keyed state, in the turn that records its result. Raises HeldFailed."""
    if work.held is not None:
        work.held.record(turn.tx)


def _guarded(edit: Edit, what: str) -> Edit:
    """The function of an `update`, whose faults are told from those of the database."""

    def guarded(entry: Entry | None) -> Write:
        try:
            return edit(entry)
        except Exception as fault:
            text = f"{type(fault).__name__}: {fault}"
            raise HeldFailed(f"{what} cannot be updated as it is now, when the step has ended: {text}") from fault

    return guarded


class StepState:
    """One scope of keyed state, as a step uses it: as `State`, without the scope.

    `with_step` of writes: None, they are recorded with the step's result where that can be, else at once; True, it must
    be so; False, at once. What is written at once is written again when the step runs again.
    """

    def __init__(self, state: State, scope: str | Scope, held: Held, origin: Origin) -> None:
        self._state = state
        self._scope = Scope.parse(scope)
        self._held = held
        self._origin = origin

    def of(self, scope: str | Scope) -> StepState:
        """Another scope, such as `workflow:demo`, for the same step."""
        return StepState(self._state, scope, self._held, self._origin)

    # -- reading: with the step's own writes ---------------------------------------------------------------------------

    def get(self, key: str, default: Any = None, *, consistent: bool = False) -> Any:
        """The value of a key, or `default`."""
        name = self._state.named("read", self._scope, (key,))
        if not self._held.has(name, key):
            return self._state.get(self._scope, key, default, consistent=consistent)
        entry = self._seen(name, key)
        return default if entry is None else self._state.values.value(name, key, entry)

    def get_versioned(self, key: str, default: Any = None) -> tuple[Any, int]:
        """The value and the version that it has, or had before this step changed it; `default` and 0 for none."""
        name = self._state.named("read", self._scope, (key,))
        entry = self._seen(name, key)
        return (default, 0) if entry is None else (self._state.values.value(name, key, entry), entry.version)

    def get_many(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values of those of the keys that exist."""
        name = self._state.named("read", self._scope, keys)
        others = [key for key in keys if not self._held.has(name, key)]
        found = self._state.get_many(self._scope, others)
        for key in keys:
            entry = self._seen(name, key) if self._held.has(name, key) else None
            if entry is not None:
                found[key] = self._state.values.value(name, key, entry)
        return {key: found[key] for key in keys if key in found}

    def exists(self, key: str) -> bool:
        """Whether the key has a value."""
        return self._seen(self._state.named("read", self._scope, (key,)), key) is not None

    def list_keys(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> list[str]:
        """The keys that start with `prefix` and come after `after`, in the order of their code points."""
        name = self._state.named("read", self._scope, ())
        own = {key: self._seen(name, key) is not None for key in self._held.keys(name)}
        own = {key: there for key, there in own.items() if key.startswith(prefix) and key > after}
        most = None if limit is None else limit + len(own)
        found = set(self._state.list_keys(self._scope, prefix, after=after, limit=most))
        for key, there in own.items():
            (found.add if there else found.discard)(key)
        return sorted(found)[:limit]

    def _seen(self, name: str, key: str) -> Entry | None:
        return self._held.seen(name, key, self._state.places.entry(self._state.place_of(name), key, True))

    # -- writing -------------------------------------------------------------------------------------------------------

    def set(
        self,
        key: str,
        value: Any,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        with_step: bool | None = None,
    ) -> None:
        """Set a key to a JSON value. Raises as `State.set`, at once."""
        self.set_many({key: value}, state_class=state_class, ttl=ttl, with_step=with_step)

    def set_many(
        self,
        values: Mapping[str, Any],
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        with_step: bool | None = None,
    ) -> None:
        """Set several keys, all or none."""
        state = self._state
        name = state.named("write", self._scope, tuple(values))
        writes: list[Write] = []
        at_once: dict[str, Any] = {}
        for key, value in values.items():
            class_ = state.class_for(name, key, state_class)
            if self._is_held(with_step, class_):
                writes.append(state.write(name, key, value, class_, ttl))
            else:
                at_once[key] = value
        if at_once:
            state.set_many(self._scope, at_once, state_class=state_class, ttl=ttl, origin=self._origin)
        for write in writes:
            self._held.add(name, write.key, write)

    def delete(self, key: str, *, with_step: bool | None = None) -> bool:
        """Delete a key; whether it had a value."""
        name = self._state.named("write", self._scope, (key,))
        if not self._is_held(with_step, self._state.class_for(name, key, None)):
            return self._state.delete(self._scope, key, origin=self._origin)
        was_there = self._seen(name, key) is not None
        self._held.add(name, key, Write(key, None))
        return was_there

    def clear(self, *, with_step: bool | None = None) -> int:
        """Delete the scope's keys; gives how many there were. Held, it means those that there are now."""
        if not self._is_held(with_step, "standard"):
            return self._state.clear_scope(self._scope, origin=self._origin)
        return sum(self.delete(key, with_step=with_step) for key in self.list_keys())

    def update(
        self,
        key: str,
        fn: Callable[[Any], Any],
        default: Any = None,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        with_step: bool | None = None,
    ) -> Any:
        """Set a key to `fn(its value, or default)`; gives the new value. Held, `fn` is applied again when the step is
        recorded, to the value that is there then, so that no other write is lost by it.
        """
        state = self._state
        name = state.named("write", self._scope, (key,))
        if not self._is_held(with_step, state.class_for(name, key, state_class)):
            return state.update(self._scope, key, fn, default, state_class=state_class, ttl=ttl, origin=self._origin)
        edit = state.updating(name, key, fn, default, state_class, ttl)
        edit(self._seen(name, key))  # what is wrong with it is wrong now, not when the step has ended
        value = edit.value
        self._held.add(name, key, edit)
        return value

    def compare_and_set(
        self,
        key: str,
        expected_version: int,
        value: Any,
        *,
        state_class: StateClass | None = None,
        ttl: float | None = None,
        with_step: bool | None = None,
    ) -> bool:
        """Set a key if its version is the expected one; whether it was. Held, it must still be so when the step is
        recorded; else this attempt has failed.
        """
        state = self._state
        name = state.named("write", self._scope, (key,))
        class_ = state.class_for(name, key, state_class)
        if not self._is_held(with_step, class_):
            version = state.compare_and_set(
                self._scope, key, expected_version, value, state_class=state_class, ttl=ttl, origin=self._origin
            )
            return bool(version)
        entry = self._seen(name, key)
        if (entry.version if entry is not None else 0) != expected_version:
            return False
        class_ = state.class_for(name, key, state_class, entry)
        write = state.write(name, key, value, class_, ttl)
        self._held.add(name, key, replace(write, expected=expected_version))
        return True

    def _is_held(self, with_step: bool | None, class_: StateClass) -> bool:
        can = self._state.capabilities.with_steps and class_ != "ephemeral"
        if with_step and not can:
            why = (
                "it is of class ephemeral" if class_ == "ephemeral" else "state_url is not the database of the sessions"
            )
            raise StateError(
                f"with_step=True: {self._scope} cannot be written with the result of a step, because {why}"
            )
        return can if with_step is None else with_step
