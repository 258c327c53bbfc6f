"""A State on each backend, and others on the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.orchestration.state.classes import Rules, Values
from celeriac.orchestration.state.state import State
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.states.opening import open_backend
from celeriac.storage.states.protocol import Backend

SHARED = ("file", "sqlite", "postgresql", "redis")

Opened = Callable[..., State]


def url_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place of that kind."""
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
        server.client().flushall()
        return str(server.url)
    if kind == "postgresql":
        server = request.getfixturevalue("postgres_server")
        name = f"state_{tmp_path.name.lower().replace('-', '_')}"[:60]
        request.addfinalizer(lambda: server.drop_database(name))
        return str(server.create_database(name))
    return {
        "memory": "memory:",
        "file": f"file://{tmp_path / 'files'}",
        "rocksdb": f"rocksdb://{tmp_path / 'rocks'}",
        "sqlite": f"sqlite:///{tmp_path / 'state.db'}",
    }[kind]


def backend_of(url: str, tmp_path: Path, inline: int = 1 << 20) -> Backend:
    """The backend of a URL; one in a database is told apart from that of sessions."""
    return open_backend(url, Database(f"sqlite:///{tmp_path / 'unused.db'}"), BlobStore(tmp_path / "blobs"), inline)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., State]]:
    """Opens a State on a URL; `values` and `State`'s own options can be given."""
    made: list[State] = []

    def open_(url: str, **options: Any) -> State:
        values = options.pop("values", None) or Values(options.pop("max_bytes", 1 << 24))
        rules = Rules(options.pop("rules", ()))
        hot = options.pop("hot", None)
        hot = backend_of(hot, tmp_path) if isinstance(hot, str) else hot
        made.append(State(backend_of(url, tmp_path), values=values, rules=rules, hot=hot, **options))
        return made[-1]

    yield open_
    for state in made:
        state.close()


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql", "redis", "rocksdb"])
def state(request: pytest.FixtureRequest, tmp_path: Path, opened: Opened) -> State:
    """A State on each kind of backend."""
    return opened(url_of(request.param, request, tmp_path))


@pytest.fixture(params=SHARED)
def two(request: pytest.FixtureRequest, tmp_path: Path, opened: Opened) -> tuple[State, State]:
    """Two States that share their values, as those of two processes do."""
    url = url_of(request.param, request, tmp_path)
    return opened(url), opened(url)
