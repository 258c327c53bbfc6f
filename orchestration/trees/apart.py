"""Keyed state of a session of a tree where it lives outside of the database of the sessions.

Beside a session's own scope, in the same place, is one for what trees keep there: what a branch's state was when it
began or was merged last (`base:KEY`), what a merge is about to do (`next:KEY`), and the sides of conflicts (`side:ID`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ...storage import migration_runs, serial, session_state
from ...storage.states.protocol import Entry, Lasting, Origin, Write
from ..state.classes import class_of
from ..state.copying import Plain
from ..state.scopes import Scope

if TYPE_CHECKING:
    from ...storage.database import Transaction
    from ..engine import Engine

#: Keys that are listed at once.
_PAGE: Final = 500
#: Values that are read at once first and at most, and their bytes, about.
_FIRST: Final = 20
_MOST: Final = 200
_BYTES: Final = 2_000_000
BASE: Final = "base:"
NEXT: Final = "next:"
SIDE: Final = "side:"


@dataclass(frozen=True, slots=True)
class Values:
    """Entries of some keys; their values in the clear; and keys of values that end at a time that nobody can tell."""

    entries: dict[str, Entry]
    plain: dict[str, Plain] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        """The bytes of all values."""
        return sum(len(entry.body) for entry in self.entries.values())

    def version(self, key: str) -> int:
        """The version that a key has; 0 where it has no value."""
        return self.entries[key].version if key in self.entries else 0


class Own:
    """A session's own keyed state, and what its tree keeps beside it."""

    def __init__(self, engine: Engine, session_id: str, tenant: str) -> None:
        self.session_id = session_id
        self.tenant = tenant
        self._state = engine.state.of_tenant(tenant)
        self._backend = self._state.places.backend
        self._scope = str(Scope.session(session_id))
        self._beside = session_state.beside(self._scope)

    # -- its values ----------------------------------------------------------------------------------------------------

    def names(self) -> Iterator[str]:
        """The keys that have a value there, in order."""
        return self._keys(self._scope, "")

    def _keys(self, scope: str, prefix: str) -> Iterator[str]:
        place, after = self._state.place_of(scope), ""
        while keys := self._backend.keys(place, prefix, after, _PAGE):
            yield from keys
            after = keys[-1]

    def parts(self, keys: Iterable[str]) -> Iterator[tuple[list[str], Values]]:
        """Keys, as many at once as have values that fit into memory together, with what is there of them."""
        keys, most = iter(keys), _FIRST
        while part := list(islice(keys, most)):
            found = self.read(part)
            most = min(max(_BYTES * len(part) // max(found.size, 1), 1), _MOST)
            yield part, found

    def read(self, keys: Sequence[str]) -> Values:
        """What is there of those keys. Values of class ephemeral count as none."""
        entries = self._backend.get(self._state.place_of(self._scope), keys)
        left = self._left(self._scope, entries)
        found = Values(entries)
        for key, entry in entries.items():
            class_ = class_of(entry)
            if class_ == "ephemeral":
                continue
            if entry.passing and key not in left:
                found.unknown.add(key)
                continue
            found.plain[key] = Plain(self._state.values.value(self._scope, key, entry), class_, left.get(key))
        return found

    def _left(self, scope: str, entries: Mapping[str, Entry]) -> dict[str, float]:
        """The seconds that those have left that end by themselves."""
        passing = [key for key, entry in entries.items() if entry.passing]
        if not passing or not isinstance(self._backend, Lasting):
            return {}
        return self._backend.left(self._state.place_of(scope), passing)

    def write(self, key: str, plain: Plain | None) -> Write:
        """A value as it is written there (None: the key goes), checked and sealed."""
        if plain is None:
            return Write(key, None)
        return self._state.write(self._scope, key, plain.value, plain.class_, plain.ttl)

    def put(self, writes: Sequence[Write], why: str) -> None:
        """Make all these changes of its values or none. Raises StateConflict."""
        origin = Origin(why, session_id=self.session_id)
        self._state.places.put(self._state.place_of(self._scope), writes, False, origin)

    # -- what is kept beside them --------------------------------------------------------------------------------------

    def kept_keys(self, kind: str) -> Iterator[str]:
        """The keys of which something of that kind is kept, in order."""
        return (key[len(kind) :] for key in self._keys(self._beside, kind))

    def kept_entries(self, kind: str, keys: Sequence[str]) -> dict[str, Entry]:
        """What is kept of those keys."""
        found = self._backend.get(self._state.place_of(self._beside), [kind + key for key in keys])
        return {name[len(kind) :]: entry for name, entry in found.items()}

    def kept(self, kind: str, keys: Sequence[str]) -> dict[str, Plain]:
        """What is kept of those keys, in the clear."""
        return self.kept_opened(kind, self.kept_entries(kind, keys))

    def kept_opened(self, kind: str, entries: Mapping[str, Entry]) -> dict[str, Plain]:
        """What was kept, in the clear, but for what stands for no value."""
        left = self._left(self._beside, {kind + key: entry for key, entry in entries.items()})
        schemas, found = self._state.values.schemas, {}
        values = replace(self._state.values, schemas=None)
        for key, entry in entries.items():
            about = serial.decode(entry.meta)
            if about.get("gone") or (entry.passing and kind + key not in left):
                continue
            value = values.value(self._beside, kind + key, entry)
            if schemas is not None and about["as"] != "trusted":
                value = schemas.current(self._scope, about["of"], value, about.get("schema", ""))[0]
            found[key] = Plain(value, about["as"], left.get(kind + key))
        return found

    def keep(self, kind: str, key: str, plain: Plain | None, of: str = "", **more: Any) -> Write:
        """A value as it is kept (None: that there is none), sealed where it would be; `of` what key it is, if that is
        another one, `more` what is said of it.
        """
        name, of = kind + key, of or key
        if plain is None:
            return Write(name, b"null", serial.encode({"gone": True, **more}).decode())
        sealed: Any = "sensitive" if plain.class_ == "sensitive" else "trusted"
        values, schemas = replace(self._state.values, schemas=None), self._state.values.schemas
        body, meta = values.packed(self._beside, name, plain.value, sealed)
        about = {**serial.decode(meta), "as": plain.class_, "of": of, **more}
        bound = schemas.bound(self._scope, of) if schemas is not None and plain.class_ != "trusted" else None
        if bound is not None:
            about["schema"] = bound.text
        meta = serial.encode(about).decode()
        return Write(name, body, meta, ttl=plain.ttl, bind=values.binding(self._beside, name, body, meta))

    def put_kept(self, writes: Sequence[Write]) -> list[int]:
        """Make all these changes of what is kept or none; gives their versions. Raises StateConflict."""
        return self._backend.put(self._state.place_of(self._beside), writes) if writes else []

    def forget(self) -> None:
        """Delete its values and what is kept beside them."""
        self._state.places.clear(self._state.place_of(self._scope), Origin())
        self.forget_kept()

    def forget_kept(self) -> None:
        """Delete what is kept beside its values."""
        place = self._state.place_of(self._beside)
        if self._backend.keys(place, limit=1):
            self._backend.clear(place)


def forget(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete what a tree keeps beside a session's state elsewhere, once the session is deleted."""
    if not engine.state.capabilities.with_steps:
        migration_runs.forget_scope(tx, session_state.beside(str(Scope.session(session_id))))
        tx.after_commit.append(Own(engine, session_id, tenant).forget_kept)
