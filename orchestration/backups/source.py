"""What there is to be backed up: the database, the blobs, and keyed state and histories that live elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ...errors import BackupError
from ...storage.archives.store import ArchiveStore
from ...storage.blobs import BlobStore
from ...storage.database import Database
from ...storage.histories.protocol import Place
from ...storage.states.protocol import Backend, Listing, Write
from ...storage.states.sql import SqlBackend

#: What a row of keyed state that lives elsewhere consists of.
STATE_COLUMNS: Final = ("scope", "key", "body", "meta")
_KEYS: Final = 100


@dataclass(frozen=True, slots=True)
class Source:
    """`backend` None: keyed state lives in the database, or does not outlive its process. `histories` None: those that
    live elsewhere are left alone. `archives` None: their files stay where they are.
    """

    database: Database
    blobs: BlobStore
    backend: Backend | None
    histories: Place | None = None
    archives: ArchiveStore | None = None

    @property
    def kind(self) -> str:
        """sqlite or postgresql."""
        return self.database.dialect.name


def elsewhere(backend: Backend) -> Backend | None:
    """The backend if its values have to be backed up beside the database's rows."""
    if isinstance(backend, SqlBackend) and backend.capabilities.with_steps:
        return None
    return backend if backend.capabilities.durable else None


def state_rows(backend: Backend) -> Iterator[tuple[Any, ...]]:
    """All values of a backend but those that end by themselves, of which nobody can say when.

    Raises BackupError for a backend that cannot list its scopes.
    """
    for scope in _listing(backend).scopes():
        yield from scope_rows(backend, scope)


def scope_rows(backend: Backend, scope: str) -> Iterator[tuple[Any, ...]]:
    """The values of one scope but those that end by themselves."""
    after = ""
    while keys := backend.keys(scope, "", after, _KEYS):
        found = backend.get(scope, keys)
        for key in keys:
            entry = found.get(key)
            if entry is not None and not entry.passing:
                yield scope, key, entry.body, entry.meta
        after = keys[-1]


def _listing(backend: Backend) -> Listing:
    if not isinstance(backend, Listing):
        raise BackupError(f"{type(backend).__name__} cannot list its scopes, so that its values cannot be backed up")
    return backend


def clear_state(backend: Backend, scopes: tuple[str, ...]) -> None:
    """Delete the values of some scopes, or (none named) of all."""
    for scope in scopes or _listing(backend).scopes():
        backend.clear(scope)


def put_state(backend: Backend, rows: list[list[Any]]) -> None:
    """Write values, those of a scope together."""
    by_scope: dict[str, list[Write]] = {}
    for scope, key, body, meta in rows:
        by_scope.setdefault(scope, []).append(Write(key, bytes(body), meta))
    for scope, writes in by_scope.items():
        backend.put(scope, writes)
