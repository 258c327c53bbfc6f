"""Bringing values that a checkpoint kept into another scope: opened where they were, and sealed where they go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...storage.blobs import BlobStore
from ...storage.database import Transaction
from ...storage.session_state import Value
from ...storage.states.protocol import Entry, Origin, Write
from .classes import StateClass, class_of
from .state import State


class Plain(NamedTuple):
    """A value in the clear, its class, and how many seconds it has left (None: it stays)."""

    value: Any
    class_: StateClass
    ttl: float | None


def opened(state: State, blobs: BlobStore, scope: str, values: Mapping[str, Value], moment: float) -> dict[str, Plain]:
    """What a checkpoint kept of a scope, in the clear; what is over at that moment (seconds since 1970) is left out.

    Raises StorageError for a blob that cannot be read, SealBroken and KeyMissing.
    """
    found = {}
    for key, kept in values.items():
        left = None if kept.expires_at is None else kept.expires_at - moment
        if left is not None and left <= 0:
            continue
        body = blobs.get(kept.blob) if kept.blob is not None else kept.body or b""
        entry = Entry(body, kept.version, kept.meta, left is not None)
        found[key] = Plain(state.values.value(scope, key, entry), class_of(entry), left)
    return found


def put_in(state: State, tx: Transaction, scope: str, values: Mapping[str, Plain | None], origin: Origin) -> None:
    """Write values (None: the key goes) into a scope if an open transaction of the sessions' database is committed."""
    for key in sorted(values):
        plain = values[key]
        write = Write(key, None) if plain is None else state.write(scope, key, plain.value, plain.class_, plain.ttl)
        state.places.write_in(tx, state.place_of(scope), key, [write], origin)
