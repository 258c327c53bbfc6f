"""Servers and databases for every test. A server that cannot be had skips the tests that need it, by name."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from servers import PostgresServer, RabbitServer, RedisServer, Server, ServerMissing

if TYPE_CHECKING:
    from driver import Driver

S = TypeVar("S", bound=Server)


def _served(kind: type[S]) -> Iterator[S]:
    try:
        server = kind()
    except ServerMissing as missing:
        if os.environ.get("CELERIAC_REQUIRE_SERVERS"):
            pytest.fail(f"{missing} (CELERIAC_REQUIRE_SERVERS is set)", pytrace=False)
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of this test run; a test that kills or pauses it starts or resumes it again."""
    yield from _served(RedisServer)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test run; a test that stops it starts it again."""
    yield from _served(PostgresServer)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitServer]:
    """A RabbitMQ of this test run; takes about ten seconds to start."""
    yield from _served(RabbitServer)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of this test's own, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'celeriac.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"test_{uuid.uuid4().hex}"
    # A driver makes the schema at once; a copy of a database that has it takes a fraction of that time.
    yield server.create_database(name, ready="make_driver" in request.fixturenames)
    server.drop_database(name)


@pytest.fixture
def make_driver(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Makes drivers over the test's database, as several processes would have them."""
    from driver import Driver

    made: list[Driver] = []

    def make(kind: type[Driver] = Driver, **settings: Any) -> Driver:
        made.append(kind(database_url, tmp_path / "data", **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
