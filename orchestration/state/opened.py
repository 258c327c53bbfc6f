"""The state that belongs to an engine, made from its settings."""

from __future__ import annotations

import threading
from typing import Protocol, overload

from ...config import Settings
from ...storage.blobs import BlobStore
from ...storage.database import Database
from ...storage.keys.sealing import KeyRing
from ...storage.states.opening import open_backend
from ...storage.states.sql import SqlBackend
from ..guard import Policy
from ..guard.access import StateDoor
from ..schemas import schemas
from .classes import Rules, Values
from .state import State


def bound(state: State, door: StateDoor) -> State:
    """The state of a caller's tenant, checked by access where that is on. Nobody else's can be had from it."""
    own = state.of_tenant(door.caller.tenant)
    return (own.with_access(door) if door.access.on else own).bound()


class Awakens(Protocol):
    """What sees to it that the state of a branch is there."""

    def awaken(self, prefix: str, scope: str) -> None: ...


class HasState(Protocol):
    """What a state is opened for: the engine."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Database: ...

    @property
    def blobs(self) -> BlobStore: ...

    @property
    def keyring(self) -> KeyRing | None: ...

    @property
    def guard(self) -> Policy: ...

    @property
    def trees(self) -> Awakens: ...


class OpenedState:
    """As a class attribute of what `HasState`: its state, opened when it is first asked for, and only once.

    Raises SettingsError for a `state_url` without a backend.
    """

    def __init__(self) -> None:
        self._opening = threading.Lock()

    @overload
    def __get__(self, of: None, owner: type) -> OpenedState: ...

    @overload
    def __get__(self, of: HasState, owner: type) -> State: ...

    def __get__(self, of: HasState | None, owner: type) -> OpenedState | State:
        if of is None:
            return self
        with self._opening:
            known = vars(of)  # an instance's own attribute is found before this one
            if "state" not in known:
                known["state"] = _open(of)
            state: State = known["state"]
        return state


def _open(of: HasState) -> State:
    settings = of.settings
    inline = settings.inline_result_bytes
    backend = open_backend(settings.state_url, of.database, of.blobs, inline)
    if isinstance(backend, SqlBackend):
        backend.database.codec = of.database.codec  # also where it is another database
    hot = None
    if settings.state_url.partition(":")[0] not in ("memory", "redis", "rediss", "unix"):
        hot = open_backend(settings.redis_url or "memory:", of.database, of.blobs, inline)
    made = State(
        backend,
        hot=hot,
        values=Values(settings.max_state_bytes, of.keyring, schemas, of.guard, all=settings.encrypt == "all"),
        rules=Rules(settings.state_classes),
        ephemeral_seconds=settings.state_ephemeral_seconds,
    )
    made.awaken = of.trees.awaken if backend.capabilities.with_steps else None
    return made
