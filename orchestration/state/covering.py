"""Keyed state that lies plain, brought under seal, and fields that a rule sealed inside of sealed values, brought under
the active key. What only has to be wrapped anew is left to `storage.keys.rewrapping` and `restating`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from sqlalchemy import bindparam, select, update

from ...errors import CeleriacError
from ...storage import results, session_state
from ...storage.blobs import BlobStore
from ...storage.database import Database, Query, Transaction
from ...storage.keys.rewrapping import Tally, fields_rewrapped, keys_in
from ...storage.keys.sealing import KeyRing, is_sealed
from ...storage.migration_runs import migrated_values
from ...storage.session_state import Value
from ...storage.states.protocol import Entry, Listing, Origin, StateConflict, Write
from ...storage.states.sql import SqlBackend
from ...storage.states.tables import state_values
from .scopes import Scope
from .state import State

#: In the place of a blob's name: what lies elsewhere is sealed for no version, as blobs are.
_NO_BLOB = "-"
#: Keys that are read at once.
BATCH = 100
_ROW = Query(
    update(state_values)
    .where(
        state_values.c.scope == bindparam("owner"),
        state_values.c.key == bindparam("name"),
        state_values.c.version == bindparam("at"),
        state_values.c.blob.is_(None),
    )
    .values(body=None, packed=bindparam("bytes"), size=bindparam("length"), meta=bindparam("about"))
)
_v = migrated_values.c
_KEPT = Query(
    select(_v.run_id, _v.scope, _v.key, _v.body, _v.meta, _v.version).where(_v.body.is_not(None)).limit(BATCH)
)
_KEEP = Query(
    update(migrated_values)
    .where(_v.run_id == bindparam("run"), _v.scope == bindparam("owner"), _v.key == bindparam("name"))
    .values(body=None, packed=bindparam("bytes"), meta=bindparam("about"))
)


def cover(
    state: State, database: Database, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None
) -> Tally:
    """Go through all values of a state, and through old ones that runs of migrations keep in `database`.

    In the database values keep their versions: only how they lie is changed. Raises CeleriacError for a backend that
    cannot list its scopes.
    """
    tally = Tally()
    backend = state.places.backend
    if not isinstance(backend, Listing):
        raise CeleriacError(
            f"{type(backend).__name__} cannot list its scopes, so that what lies plain in it cannot be found; write "
            "its values anew"
        )
    for scope, keys in _places(state):
        own, name = _owner(state, scope)
        for key, entry in backend.get(scope, keys).items():
            _cover_one(own, scope, name, key, entry, keyring, tally)
        told(tally)
    if state.values.all:
        while count := database.write(partial(_cover_kept, state=state)):
            tally.sealed += count
    return tally


def _places(state: State) -> Iterator[tuple[str, list[str]]]:
    backend = state.places.backend
    for scope in backend.scopes() if isinstance(backend, Listing) else ():
        after = ""
        while keys := backend.keys(scope, "", after, BATCH):
            yield scope, keys
            after = keys[-1]


def _owner(state: State, scope: str) -> tuple[State, str]:
    """The state of the tenant that a backend's scope belongs to, and the scope's own name."""
    if not scope.startswith(session_state.TENANT):
        return state, scope
    tenant, _, name = scope.removeprefix(session_state.TENANT).partition("/")
    return state.of_tenant(Scope.parse(f"step:{tenant}/-").ids[0]), name


class KeptState:
    """The keyed state that checkpoints keep of sessions' own scopes: see `storage.keys.memories.OwnState`."""

    def __init__(self, state: State, keyring: KeyRing, blobs: BlobStore) -> None:
        self._state = state
        self._keyring = keyring
        self._blobs = blobs
        #: The keys of blobs, and what became of each: many checkpoints of a session refer to the same.
        self._keys_of: dict[str, list[str]] = {}
        self._instead: dict[tuple[str, str, str], Value] = {}

    def keys(self, scope: str, key: str, value: Value) -> list[str]:
        """The ids of the keys that a value, and what is in it, is sealed with."""
        if value.blob is None:
            return self._keys(scope, key, value, value.body or b"null")
        if value.blob not in self._keys_of:
            self._keys_of[value.blob] = self._keys(scope, key, value, self._blobs.get(value.blob))
        return self._keys_of[value.blob]

    def _keys(self, scope: str, key: str, value: Value, body: bytes) -> list[str]:
        own, name = _owner(self._state, scope)
        inside = own.values.plain(name, key, Entry(body, value.version, value.meta)).decode()
        return [*(keys_in(body) if is_sealed(body) else ()), *keys_in(inside)]

    def renewed(self, tx: Transaction, scope: str, key: str, value: Value) -> Value:
        """The value, and what is in it, under the active key, sealed for the same version."""
        if value.blob is None:
            return self._renewed(scope, key, value, value.body) if value.body is not None else value
        place = (scope, key, value.blob)
        if place not in self._instead:
            new = self._renewed(scope, key, value, self._blobs.get(value.blob))
            kept = value if new.body is None else new._replace(body=None, blob=self._blobs.put(new.body))
            self._instead[place] = kept
        instead = self._instead[place]
        if instead.blob is not None and instead.blob != value.blob:
            results.refer_to(tx, self._blobs, instead.blob, self._blobs.get(instead.blob))
        return value._replace(blob=instead.blob, meta=instead.meta, size=instead.size)

    def elsewhere(self, scope: str, key: str, body: bytes, meta: str) -> tuple[bytes, str]:
        """Body and meta of a value that lies in another place than the database, and what is in it, under the active
        key.
        """
        new = self._renewed(scope, key, Value(0, None, _NO_BLOB, len(body), meta, None), body)
        return (body, meta) if new.body is None else (new.body, new.meta)

    def _renewed(self, scope: str, key: str, value: Value, body: bytes) -> Value:
        """The value with a new body; as it is where there is nothing to be done."""
        what = f"state {scope} {key!r} in a checkpoint"
        own, name = _owner(self._state, scope)
        entry = Entry(body, value.version, value.meta)
        write = own.values.renewed(name, key, entry, lambda text: fields_rewrapped(text, what, self._keyring))
        if write is None:
            after = self._keyring.rewrap(body, what) if is_sealed(body) else None
            return value if after is None else value._replace(body=after, size=len(after))
        # A blob is sealed for no version: it is given another one when it is put back.
        bound = write.bind(value.version) if write.bind is not None and value.blob is None else write.body or b""
        return value._replace(body=bound, meta=write.meta, size=len(bound))


def _cover_one(state: State, scope: str, name: str, key: str, entry: Entry, keyring: KeyRing, tally: Tally) -> None:
    if entry.passing:
        return
    what = f"state {scope} {key!r}"
    try:
        write = state.values.renewed(name, key, entry, lambda text: fields_rewrapped(text, what, keyring))
    except CeleriacError as fault:
        tally.refused.append(str(fault))
        return
    if write is None or not _written(state, scope, entry, write):
        return
    if '"sealed"' in entry.meta:
        tally.rewrapped += 1
    else:
        tally.sealed += 1


def _written(state: State, scope: str, entry: Entry, write: Write) -> bool:
    """Write an entry in another form; False if somebody changed it meanwhile."""
    backend = state.places.backend
    if isinstance(backend, SqlBackend):
        data = write.bind(entry.version) if write.bind is not None else write.body or b""
        values = {"owner": scope, "name": write.key, "at": entry.version}

        def work(tx: Transaction) -> int:
            return tx.run(_ROW, **values, bytes=data, length=len(data), about=write.meta)

        if backend.database.write(work):
            return True
    try:
        backend.put(scope, [replace(write, expected=entry.version)], Origin("seal"))
    except StateConflict:
        return False
    return True


def _cover_kept(tx: Transaction, state: State) -> int:
    rows = tx.rows(_KEPT)
    for run_id, scope, key, body, meta, version in rows:
        write = state.values.renewed(scope, key, Entry(body.encode(), version, meta))
        assert write is not None
        tx.run(_KEEP, run=run_id, owner=scope, name=key, bytes=write.body, about=write.meta)
    return len(rows)
