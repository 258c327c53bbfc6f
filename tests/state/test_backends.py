"""Every backend of keyed state passes the suite that is given to others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import RedisServer

from celeriac.errors import StorageError
from celeriac.storage import schema
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.states.files import FileBackend
from celeriac.storage.states.memory import MemoryBackend
from celeriac.storage.states.protocol import Backend, Write
from celeriac.storage.states.redis import RedisBackend
from celeriac.storage.states.rocksdb import RocksBackend
from celeriac.storage.states.sql import SqlBackend
from celeriac.testing import StateBackendSuite


class TestMemory(StateBackendSuite):
    @pytest.fixture
    def opened(self) -> Callable[[], Backend]:
        return MemoryBackend


class TestFiles(StateBackendSuite):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Backend]:
        return lambda: FileBackend(tmp_path / "state")


class TestRocksDB(StateBackendSuite):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Backend]:
        return lambda: RocksBackend(tmp_path / "state")


class TestSQL(StateBackendSuite):
    @pytest.fixture
    def opened(self, database_url: str, tmp_path: Path) -> Iterator[Callable[[], Backend]]:
        databases: list[Database] = []

        def open_() -> Backend:
            databases.append(Database(database_url))
            schema.ensure(databases[-1])
            return SqlBackend(databases[-1], BlobStore(tmp_path / "blobs"), 1 << 20, with_steps=False)

        yield open_
        for database in databases:
            database.dispose()


class TestRedis(StateBackendSuite):
    @pytest.fixture
    def opened(self, redis_server: RedisServer) -> Callable[[], Backend]:
        redis_server.client().flushall()
        return lambda: RedisBackend(redis_server.url)


def test_state_in_redis_goes_on_after_the_server_was_restarted(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    (before,) = backend.put("global", [Write("k", b"1")])
    redis_server.kill()
    with pytest.raises(StorageError, match="the state in Redis redis://127.0.0.1"):
        backend.put("global", [Write("k", b"2")])
    redis_server.start()
    assert backend.get("global", ["k"]) == {}, "this Redis keeps nothing on disk"
    (after,) = backend.put("global", [Write("k", b"2", expected=0)])
    assert after > before, "and no version comes again"
    backend.close()


def test_a_lost_connection_is_noticed_by_a_look_and_made_anew(redis_server: RedisServer) -> None:
    backend = RedisBackend(redis_server.url)
    backend.put("global", [Write("k", b"1")])
    redis_server.client().client_kill_filter(_type="normal", skipme=True)
    assert backend.get("global", ["k"])["k"].body == b"1"
    backend.close()


def test_changes_to_files_that_a_crash_left_half_done_are_finished_by_who_comes_next(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path)
    backend.put("global", [Write("a", b"1"), Write("b", b"1"), Write("c", b"1")])
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from celeriac.storage.states import files\n"
        "from celeriac.storage.states.protocol import Write\n"
        "real, moved = os.replace, []\n"
        "def replace(source, target):\n"
        "    if str(target).endswith('.json'):\n"
        "        moved.append(target)\n"
        "        if len(moved) == 2: os._exit(9)\n"
        "    real(source, target)\n"
        "os.replace = replace\n"
        "files.FileBackend(Path(sys.argv[1])).put('global', [Write(k, b'2') for k in 'ab'] + [Write('c', None)])\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    found = FileBackend(tmp_path).get("global", ["a", "b", "c"])
    assert {key: entry.body for key, entry in found.items()} == {"a": b"2", "b": b"2"}
    assert not list(tmp_path.rglob(".journal"))
