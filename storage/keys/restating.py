"""Bringing keyed state under the active key where it lies outside of the database's rows: other backends, and blobs.

A value is written anew only if it still is the version that was read: who changed it since sealed it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sqlalchemy import select

from ...errors import CeleriacError
from ..database import Database, Query, Transaction
from ..states.protocol import Backend, Listing, Origin, StateConflict, Write
from ..states.sql import SqlBackend
from ..states.tables import state_values
from .rewrapping import Tally, rewrap, rewrapped
from .sealing import KeyRing, is_sealed

#: Keys that are read at once.
BATCH: Final = 100
_OPERATION: Final = "rewrap"
_IN_BLOBS: Final = Query(
    select(state_values.c.scope, state_values.c.key)
    .where(state_values.c.blob.is_not(None), state_values.c.meta.contains('"sealed":true'))
    .order_by(state_values.c.scope, state_values.c.key)
)


def rewrap_all(
    database: Database, backend: Backend, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None
) -> Tally:
    """Bring all that is sealed in the database and in the place of keyed state under the active key.

    `told` hears how far it is. Raises CeleriacError for a backend that cannot list its scopes.
    """
    databases = [database]
    if isinstance(backend, SqlBackend) and backend.database is not database:
        databases.append(backend.database)
    total = Tally()
    for one in databases:
        total += rewrap(one, keyring, told)
    return total + rewrap_state(backend, keyring, told)


def rewrap_state(backend: Backend, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Bring the values of a backend under the active key; those with a time to live end by themselves.

    Of the database, only values in blobs are looked at: `rewrapping.rewrap` brings its rows. Raises CeleriacError for a
    backend that cannot list its scopes.
    """
    tally = Tally()
    for scope, keys in _places(backend):
        for key, entry in backend.get(scope, keys).items():
            body = entry.body if is_sealed(entry.body) else entry.body.decode("utf-8", "replace")
            after = None if entry.passing else rewrapped(body, f"state {scope} {key!r}", keyring, tally)
            if after is None:
                continue
            data = after.encode() if isinstance(after, str) else after
            write = Write(key, data, entry.meta, expected=entry.version)
            try:
                backend.put(scope, [write], Origin(_OPERATION))
            except StateConflict:
                continue
            tally.rewrapped += 1
        told(tally)
    return tally


def _places(backend: Backend) -> Iterator[tuple[str, list[str]]]:
    """Scopes with up to `BATCH` of their keys each."""
    if isinstance(backend, SqlBackend):
        yield from ((scope, [key]) for scope, key in backend.database.read(_in_blobs))
        return
    if not isinstance(backend, Listing):
        raise CeleriacError(
            f"{type(backend).__name__} cannot list its scopes, so that what is sealed in it cannot be found; "
            "write the sensitive values anew, and keep the old keys until then"
        )
    for scope in backend.scopes():
        after = ""
        while keys := backend.keys(scope, "", after, BATCH):
            yield scope, keys
            after = keys[-1]


def _in_blobs(tx: Transaction) -> list[tuple[str, str]]:
    return [(scope, key) for scope, key in tx.rows(_IN_BLOBS)]
