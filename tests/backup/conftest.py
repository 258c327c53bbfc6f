"""A store with everything in it, and its backups."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver
from servers import PostgresServer

from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.plans import Step
from celeriac.storage.backup import tables
from celeriac.storage.backup.chunking import digest_of
from celeriac.storage.backup.transactions import alone
from celeriac.storage.database import Database

#: Results over this many bytes are blobs here.
INLINE = 2000


class Store:
    """A driver over a database of its own, with an agent that makes results of a size."""

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        self.url, self.folder = url, folder
        self.driver = Driver(url, folder, inline_result_bytes=INLINE, **settings)
        self.backups = Backups(self.driver.engine, self.driver.engine.caller)

        @self.driver.agent("make")
        def make(request: dict[str, Any], ctx: Any) -> Any:
            ctx.memory["seen"] = request["size"]
            return {"text": (request["text"] * request["size"])[: request["size"]]}

    def work(self, query: str, *sizes: int) -> str:
        """Run a session with a result of each size; gives its id."""
        steps = [Step(f"s{n}", "make", request={"size": size, "text": f"{query} {n} "}) for n, size in enumerate(sizes)]
        session = self.driver.start(*steps, query=query)
        assert self.driver.run_to_end(session) == "completed"
        return session.id

    def results(self, session_id: str) -> dict[str, Any]:
        """What the steps of a session gave."""
        session = self.driver.sessions.get(session_id)
        return {one["name"]: session.output(one["name"]) for one in session.steps()}

    def content(self) -> dict[str, tuple[int, str]]:
        """Rows and their hash by table."""
        return content(self.driver.engine.database)


def content(database: Database, but: tuple[str, ...] = ()) -> dict[str, tuple[int, str]]:
    """Rows and their hash by table of a database."""
    found = {}
    with alone(database) as connection:
        for table in tables.tables():
            found[table.name] = digest_of(tables.stream(connection, database.dialect, table))
    return {name: one for name, one in found.items() if name not in but}


@pytest.fixture
def new_store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Store]]:
    """Makes stores: `new_store("postgresql", "b")`; their backups lie in one folder."""
    made: list[Store] = []

    def new(kind: str = "sqlite", name: str = "a", **settings: Any) -> Store:
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path / f'{name}.db'}"
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            database = f"backup_{os.getpid()}_{tmp_path.name.lower().replace('-', '_')}_{name}"[-60:]
            request.addfinalizer(lambda: server.drop_database(database))
            url = str(server.create_database(database))
        made.append(Store(url, tmp_path / name, backups_dir=str(tmp_path / "backups"), **settings))
        return made[-1]

    yield new
    for store in made:
        store.driver.close()


@pytest.fixture
def keys_file(tmp_path: Path) -> str:
    """A file with a key."""
    path = tmp_path / "keys.toml"
    key, hashed = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    path.write_text(f'active = "k"\nhash = "{hashed}"\n[keys.k]\nkey = "{key}"\n')
    path.chmod(0o600)
    return str(path)
