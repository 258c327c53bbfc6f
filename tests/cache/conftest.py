"""Caches over a database of the test's own: each as another process would have it, with copies of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import invariants
import pytest
from driver import Driver
from servers import PostgresServer, RedisServer

from celeriac import AgentOutput
from celeriac.config import Settings
from celeriac.orchestration.agents import granted
from celeriac.orchestration.cache import ResultCache
from celeriac.orchestration.cache.sharing import StepCache
from celeriac.orchestration.work import PutBack, Work
from celeriac.storage import schema
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database

Make = Callable[..., ResultCache]


@contextmanager
def caches(url: str, folder: Path, **common: Any) -> Iterator[Make]:
    """Makes caches over one database."""
    made: list[tuple[ResultCache, Database]] = []

    def new(**settings: Any) -> ResultCache:
        found = Settings.load({"data_dir": str(folder), "database_url": url, **common, **settings}, environ={})
        database = Database(found.database)
        schema.ensure(database)
        made.append((ResultCache(found, database, BlobStore(found.data_dir / "blobs")), database))
        return made[-1][0]

    try:
        yield new
    finally:
        for cache, database in made:
            cache.close()
            database.dispose()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes caches over SQLite, for what is the same wherever they are."""
    with caches("", tmp_path / "data") as new:
        yield new


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """An empty Redis; whatever the test did to it, it runs again afterwards."""
    redis_server.client().flushall()
    yield redis_server
    redis_server.resume()
    if redis_server.process is None or redis_server.process.poll() is not None:
        redis_server.start()


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes caches over SQLite, over PostgreSQL, and over SQLite with a Redis before it."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        name = f"test_{uuid.uuid4().hex}"
        with caches(server.create_database(name), tmp_path / "data") as new:
            yield new
        server.drop_database(name)
        return
    url = request.getfixturevalue("redis").url if request.param == "redis" else ""
    with caches("", tmp_path / "data", redis_url=url) as new:
        yield new


class Cached(Driver):
    """A driver whose steps use the cache, as those of a worker do."""

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        super().__init__(url, folder, **settings)
        self.cache = ResultCache(self.settings, self.engine.database, self.engine.blobs)
        self.cached = StepCache(self.engine, self.cache)
        #: Requests of the agents that were really run, in order.
        self.runs: list[Any] = []

        @self.agent("reader", optional_permissions=["docs", "secrets"], cache_ttl=60, cache_tags=["docs"])
        def reader(request: Any, ctx: Any) -> Any:
            self.runs.append(request)
            return {"read": request, "as": sorted(ctx.permissions)}

    def perform(self, work: Work, carry: bool = False) -> Work | None:
        try:
            following = super().perform(work, carry)
        except PutBack:
            return self.engine.claim(work.session_id) if carry else None
        self.cached.crashed(work)  # nothing, if it has landed
        return following

    def call(self, work: Work) -> Any:
        found = self.registry.get(work.claimed.agent)
        hit = self.cached.look(work, found, granted(found, work.permissions))
        if hit is not None:
            return hit.output
        return super().call(work)

    def close(self) -> None:
        self.cache.close()
        super().close()


@contextmanager
def drivers(url: str, folder: Path) -> Iterator[Callable[..., Cached]]:
    """Makes drivers over one database, as several workers would have them."""
    made: list[Cached] = []

    def new(**settings: Any) -> Cached:
        made.append(Cached(url, folder, **settings))
        one, finish = made[-1], made[-1].engine.finish

        def recorded(work: Work, output: AgentOutput, *rest: Any) -> Work | None:
            following = finish(work, output, *rest)
            one.cached.landed(work, output)
            return following

        one.engine.finish = recorded  # type: ignore[method-assign]
        return one

    try:
        yield new
    finally:
        for one in made:
            one.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[..., Cached]]:
    """Makes drivers over SQLite, for what is the same wherever the rows are."""
    with drivers("", tmp_path / "data") as new:
        yield new


@pytest.fixture
def driver(workers: Callable[..., Cached]) -> Iterator[Cached]:
    one = workers()
    yield one
    invariants.check(one.engine)
