"""Every place for conversations passes the suite that is shipped for other people's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import RedisServer

from celeriac.storage import schema, sessions
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.histories.files import FilePlace
from celeriac.storage.histories.memory import MemoryPlace
from celeriac.storage.histories.protocol import Item, Place
from celeriac.storage.histories.redis import RedisPlace
from celeriac.storage.histories.sql import SqlPlace
from celeriac.testing import HistoryPlaceSuite


class TestMemory(HistoryPlaceSuite):
    @pytest.fixture
    def opened(self) -> Callable[[], Place]:
        return MemoryPlace


class TestFiles(HistoryPlaceSuite):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Place]:
        return lambda: FilePlace(tmp_path / "talks")

    def test_a_file_can_be_read_by_anyone(self, place: Place, tmp_path: Path) -> None:
        place.append("one", [Item(b'{"role":"user","content":"hello"}', mark=1, at=2.5)])
        expected = '{"number":1,"timestamp":2.5,"_mark":1,"role":"user","content":"hello"}\n'
        assert (tmp_path / "talks" / "one.jsonl").read_text() == expected

    def test_what_a_crash_left_behind_does_not_count_and_is_written_over(self, place: Place, tmp_path: Path) -> None:
        place.append("one", [Item(b'{"n":1}')])
        with (tmp_path / "talks" / "one.jsonl").open("ab") as file:
            file.write(b'{"number":2,"timestamp":3.0,"n":2}\n{"number":3,"time')
        assert place.count("one") == 1 and len(place.load("one")) == 1 == len(place.load("one", newest=True))
        place.append("one", [Item(b'{"n":9}')])
        assert [kept.body for kept in place.load("one")] == [b'{"n":1}', b'{"n":9}']

    def test_a_file_that_was_put_there_is_read(self, place: Place, tmp_path: Path) -> None:
        place.append("one", [Item(b'{"n":%d}' % n) for n in range(1, 4)])
        (tmp_path / "talks" / "two.jsonl").write_bytes((tmp_path / "talks" / "one.jsonl").read_bytes())
        assert place.count("two") == 3 and place.append("two", [Item(b"{}")]) == (4, 4)


class TestRedis(HistoryPlaceSuite):
    @pytest.fixture
    def opened(self, redis_server: RedisServer) -> Iterator[Callable[[], Place]]:
        place = RedisPlace(redis_server.url)
        for name in list(place.conversations()):
            place.delete(name)
        place.close()
        yield lambda: RedisPlace(redis_server.url)


class TestDatabase(HistoryPlaceSuite):
    @pytest.fixture
    def names(self) -> tuple[str, str]:
        return "a-1", "a-10"

    @pytest.fixture
    def opened(self, database_url: str, tmp_path: Path, names: tuple[str, str]) -> Iterator[Callable[[], Place]]:
        database = Database(database_url)
        schema.ensure(database)
        for name in names:
            database.write(lambda tx, name=name: sessions.create(tx, _session(name), {}, []))  # type: ignore[misc]
        blobs = BlobStore(tmp_path / "blobs")
        yield lambda: SqlPlace(database, blobs, inline=100_000)
        database.dispose()


def _session(name: str) -> dict[str, object]:
    texts = dict.fromkeys(("query", "user", "type", "title", "agent", "plan_name", "fingerprint", "tenant"), "")
    return {"id": name, "key": None, "correlation_id": name, "priority": 0, "pinned": 0, **texts}
