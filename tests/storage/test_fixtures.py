"""Databases that released versions have left behind: each later one reads them whole, and finishes what they began."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import invariants
import pytest
from driver import Driver
from fixtures import holding
from fixtures.make import opened
from servers import PostgresServer

from celeriac.orchestration import sweeping
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.guard.access import Caller
from celeriac.storage import schema
from celeriac.storage.database import Database

HERE = Path(__file__).parent.parent / "fixtures"
ARCHIVES = sorted(HERE.glob("*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path, dict[str, Any]]]:
    """A store as a version left it: its revision, the database's URL, its folder, and what is expected of it."""
    revision, _, kind = request.param.name.partition(".")[0].partition("-")
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "keys.toml").chmod(0o600)
    expected = json.loads((tmp_path / "expected.json").read_text())
    if kind == "sqlite":
        yield revision, f"sqlite:///{tmp_path / 'celeriac.db'}", tmp_path, expected
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"left_{revision}"
    url = server.create_database(name)
    _load(url, (tmp_path / "dump.sql").read_text())
    yield revision, url, tmp_path, expected
    server.drop_database(name)


def _load(url: str, dump: str) -> None:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(dump.encode())


Open = Callable[..., Driver]


@pytest.fixture
def migrated(left: tuple[str, str, Path, dict[str, Any]]) -> Iterator[tuple[Open, dict[str, Any]]]:
    """A function that opens the store, brought to the present schema; and what is expected of it."""
    revision, url, folder, expected = left
    database = Database(url)
    assert schema.revision(database) == revision
    assert schema.upgrade(database) == (revision, schema.HEAD)
    database.dispose()
    made: list[Driver] = []

    def driver(**settings: Any) -> Driver:
        made.append(opened(url, folder, **settings))
        return made[-1]

    yield driver, expected
    for one in made:
        one.close()


def test_what_had_ended_is_the_same_to_the_last_byte(migrated: tuple[Open, dict[str, Any]]) -> None:
    driver, expected = migrated[0](), migrated[1]
    assert holding.finished(driver) == expected["finished"] and len(expected["finished"]) == 12
    assert json.loads(json.dumps(holding.shared(driver))) == expected["shared"]
    invariants.check(driver.engine)


def test_conversations_branches_archives_and_backups_are_read(migrated: tuple[Open, dict[str, Any]]) -> None:
    driver, expected = migrated[0](), migrated[1]
    if "grown" not in expected:
        pytest.skip("made before there were any")
    found = holding.grown(driver)
    assert json.loads(json.dumps(found)) == expected["grown"]
    assert len(found["talks"]) == 6 and len(found["archives"]) == 2
    for session_id, (_, results) in found["archives"].items():
        session = Archives(driver.engine, Caller(), driver.sessions).restore(session_id)
        assert session.status == "completed" and session.output("c") == results["c"]
    (backup,) = Backups(driver.engine, Caller()).list()
    Backups(driver.engine, Caller()).restore(backup.id, safety=False)
    assert driver.sessions.list(type="dm", ascending=True)[0].id in found["talks"]
    invariants.check(driver.engine)


@pytest.mark.parametrize("encrypt", ["sensitive", "all"])
def test_what_was_unfinished_is_finished(migrated: tuple[Open, dict[str, Any]], encrypt: str) -> None:
    driver, expected = migrated[0](encrypt=encrypt), migrated[1]
    sweeping.sweep(driver.engine)
    found = {}
    for session_id, (status, _) in expected["unfinished"].items():
        session = driver.sessions.get(session_id)
        if session.status == "paused":
            session.resume()
        if status == "completed":
            driver.run_to_end(session)
        found[session_id] = [session.status, session.result]
    assert found == expected["unfinished"]
    assert driver.started.count("s") == 6 and holding.finished(driver).items() >= expected["finished"].items()
    invariants.check(driver.engine)


def test_a_store_of_before_can_be_kept_up(migrated: tuple[Open, dict[str, Any]]) -> None:
    from celeriac.orchestration.cache import ResultCache
    from celeriac.orchestration.maintenance.keeper import Keeper

    driver, expected = migrated[0](), migrated[1]
    keeper = Keeper(driver.engine, ResultCache(driver.engine.settings, driver.engine.database, driver.engine.blobs))
    assert {name: keeper.run_now(name).outcome for name in keeper.jobs} == dict.fromkeys(keeper.jobs, "done")
    assert holding.shared(driver)["grants"] == expected["shared"]["grants"]


def test_the_fixtures_are_small() -> None:
    assert ARCHIVES and sum(path.stat().st_size for path in ARCHIVES) < 400_000 * len({p.name[:4] for p in ARCHIVES})
