"""Runs of migrations over keyed state: what they change, what they leave, and what a kill does to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import SchemaError
from celeriac.orchestration.schemas import Schema, Schemas, own
from celeriac.orchestration.schemas.runs import Migrations
from celeriac.orchestration.schemas.values import KeyedValues
from celeriac.orchestration.state.classes import Values
from celeriac.orchestration.state.state import State
from celeriac.storage.keys import rewrapping
from celeriac.storage.keys.keyfile import Keys, Raw
from celeriac.storage.keys.sealing import KeyRing
from celeriac.storage.states.memory import MemoryBackend

from .killed import SECOND, TWO_VERSIONS, state_of

Make = Callable[..., tuple[State, Migrations]]


@pytest.fixture
def driver(database_url: str, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(database_url, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def schemas() -> Schemas:
    made = Schemas()
    for one in TWO_VERSIONS:
        made.add(one)
    made.bind("agent:*", "profile*", "profile", "1.0.0")
    return made


@pytest.fixture
def make(driver: Driver, schemas: Schemas) -> Make:
    """Gives a state and what migrates it; options are those of `Values`."""

    def both(**options: Any) -> tuple[State, Migrations]:
        state = state_of(driver, **{"schemas": schemas, **options})
        return state, Migrations(state, schemas, driver.engine)

    return both


def fill(state: State, count: int, scope: str = "agent:a") -> None:
    state.set_many(scope, {f"profile/{n:04d}": {"nom": f"n{n}", "age": str(n)} for n in range(count)})


def raw(state: State, scope: str = "agent:a") -> dict[str, Any]:
    """Values as they lie, with the version of their schema."""
    values = KeyedValues(state, Schemas())
    entries = values.entries(scope, state.list_keys(scope))
    return {
        key: (replace(state.values, schemas=None).value(scope, key, entry), entry.meta.partition('"schema":"')[2][:13])
        for key, entry in entries.items()
    }


def test_a_run_brings_every_value_of_a_scope_to_the_new_version(make: Make) -> None:
    state, migrations = make()
    fill(state, 120)
    state.set("agent:a", "other", {"nom": "x"})
    state.set("agent:b", "profile/1", {"nom": "b", "age": "1"})
    seen: list[tuple[int, int]] = []
    report = migrations.run("agent:a", schema="profile", to="2.0.0", progress=lambda *told: seen.append(told))
    assert (report.status, report.total, report.looked, report.migrated) == ("done", 121, 121, 120)
    assert (report.failed, report.unchanged, report.versions) == (0, 1, {"1.0.0": 120})
    assert seen[-1] == (121, 121) and len(seen) == 3
    found = raw(state)
    assert found["other"] == ({"nom": "x"}, "")
    assert found["profile/0007"] == ({"name": "n7", "age": 7}, "profile@2.0.0")
    assert raw(state, "agent:b")["profile/1"][1] == "profile@1.0.0"
    again = migrations.run("agent:a", schema="profile", to="2.0.0")
    assert (again.migrated, again.unchanged) == (0, 121)


def test_one_key_and_all_scopes_can_be_migrated(make: Make) -> None:
    state, migrations = make()
    for scope in ("agent:a", "agent:b", "global"):
        fill(state, 2, scope)
    assert migrations.run("agent:a", "profile/0001", schema="profile").migrated == 1
    assert [version for _, version in raw(state).values()] == ["profile@1.0.0", "profile@2.0.0"]
    assert migrations.run("agent:*", "profile*", schema="profile").migrated == 3
    assert migrations.run("all", schema="profile").migrated == 0, "global's keys are bound to no schema"
    assert migrations.run("global", "profile/0001", schema="profile").migrated == 1, "a key that is named is meant"


def test_a_dry_run_counts_and_shows_and_writes_nothing(make: Make) -> None:
    state, migrations = make()
    fill(state, 30)
    state.set("agent:a", "profile/bad", {"nom": "x", "age": "old"})
    before = raw(state)
    report = migrations.dry_run("agent:a", schema="profile", samples=2)
    assert (report.dry_run, report.total, report.migrated, report.failed) == (True, 31, 30, 1)
    assert report.samples[0] == {
        "scope": "agent:a",
        "key": "profile/0000",
        "from": "1.0.0",
        "before": '{"nom":"n0","age":"0"}',
        "after": '{"age":0,"name":"n0"}',
    }
    assert len(report.samples) == 2
    assert report.ways == {"1.0.0": ["1.0.0 -> 2.0.0: move nom to name; convert age to number"]}
    assert report.failures[0]["key"] == "profile/bad"
    assert raw(state) == before and migrations.list() == []


def test_a_key_that_cannot_be_brought_there_stays_whole_and_is_named_with_its_field(make: Make) -> None:
    state, migrations = make()
    fill(state, 3)
    state.set("agent:a", "profile/bad", {"nom": "x", "age": "o" * 500})
    report = migrations.run("agent:a", schema="profile")
    assert (report.status, report.migrated, report.failed) == ("done", 3, 1)
    (failure,) = report.failures
    assert (failure["scope"], failure["key"]) == ("agent:a", "profile/bad")
    assert failure["error"].startswith("1.0.0 -> 2.0.0, convert age to number: age cannot be converted to number")
    assert failure["error"].endswith(f'its value: "{"o" * 59}…')
    assert raw(state)["profile/bad"] == ({"nom": "x", "age": "o" * 500}, "profile@1.0.0")
    state.set("agent:a", "profile/bad", {"nom": "x", "age": "7"})
    assert migrations.run("agent:a", schema="profile").migrated == 1


def test_the_strict_level_leaves_what_would_not_fit(make: Make) -> None:
    state, migrations = make()
    state.set("agent:a", "profile/1", {"nom": "x", "age": "1", "more": True})
    report = migrations.run("agent:a", schema="profile", level="strict")
    assert (report.migrated, report.failed) == (0, 1)
    assert "more is not known" in report.failures[0]["error"]
    assert migrations.run("agent:a", schema="profile", level="basic").migrated == 1


def test_what_is_sealed_stays_sealed_and_is_never_shown(make: Make, schemas: Schemas) -> None:
    keyring = KeyRing(Keys("k1", {"k1": Raw(b"1" * 32)}, b"h" * 32))
    state, migrations = make(keyring=keyring)
    state.set("agent:a", "profile/1", {"nom": "s3cret", "age": "1"}, state_class="sensitive")
    state.set("agent:a", "profile/2", {"nom": "x", "age": "s3cret"}, state_class="sensitive")
    told = str(migrations.dry_run("agent:a", schema="profile").to_dict())
    report = migrations.run("agent:a", schema="profile")
    assert (report.migrated, report.failed) == (1, 1)
    assert "s3cret" not in told + str(report.to_dict())
    assert "text of 6 characters" in report.failures[0]["error"]
    assert raw(state)["profile/1"] == ({"name": "s3cret", "age": 1}, "profile@2.0.0")
    values = KeyedValues(state, schemas)
    assert b"s3cret" not in values.entries("agent:a", ["profile/1"])["profile/1"].body
    assert '"sealed":true' in values.entries("agent:a", ["profile/1"])["profile/1"].meta
    assert migrations.undo(report.run).undone == 1
    assert b"s3cret" not in values.entries("agent:a", ["profile/1"])["profile/1"].body


def test_old_values_that_are_sealed_follow_the_rotation_of_keys(make: Make, driver: Driver) -> None:
    both = Keys("k2", {"k1": Raw(b"1" * 32), "k2": Raw(b"2" * 32)}, b"h" * 32)
    state, migrations = make(keyring=KeyRing(Keys("k1", {"k1": Raw(b"1" * 32)}, b"h" * 32)))
    state.set("agent:a", "profile/1", {"nom": "s3cret", "age": "1"}, state_class="sensitive")
    report = migrations.run("agent:a", schema="profile")
    assert rewrapping.rewrap(driver.engine.database, KeyRing(both)).rewrapped == 2
    state, migrations = make(keyring=KeyRing(Keys("k2", {"k2": Raw(b"2" * 32)}, b"h" * 32)))
    assert migrations.undo(report.run).undone == 1
    assert raw(state)["profile/1"] == ({"nom": "s3cret", "age": "1"}, "profile@1.0.0")


def test_a_run_is_undone_but_for_what_was_changed_since(make: Make) -> None:
    state, migrations = make()
    fill(state, 60)
    before = raw(state)
    report = migrations.run("agent:a", schema="profile")
    state.set("agent:a", "profile/0003", {"nom": "new", "age": "3"})
    state.delete("agent:a", "profile/0004")
    undone = migrations.undo(report.run)
    assert (undone.status, undone.undone, undone.changed_since) == ("undone", 58, 2)
    assert undone.left == [{"scope": "agent:a", "key": f"profile/000{n}"} for n in (3, 4)]
    after = raw(state)
    assert after.pop("profile/0003") == ({"nom": "new", "age": "3"}, "profile@1.0.0")
    assert after == {key: value for key, value in before.items() if key not in ("profile/0003", "profile/0004")}
    with pytest.raises(SchemaError, match="is undone, and its old values are gone"):
        migrations.undo(report.run)


def test_an_accepted_run_keeps_its_report_but_no_old_values(make: Make, driver: Driver) -> None:
    state, migrations = make()
    fill(state, 5)
    state.set("agent:a", "profile/bad", {"nom": "x", "age": "old"})
    report = migrations.run("agent:a", schema="profile")
    accepted = migrations.accept(report.run[:13])
    assert (accepted.status, accepted.migrated, accepted.failed) == ("accepted", 5, 1)
    with driver.engine.database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM migrated_values")).scalar() == 0
    assert [one.migrated for one in migrations.list()] == [5]
    for refused in (migrations.undo, migrations.accept, migrations.resume):
        with pytest.raises(SchemaError, match="is accepted"):
            refused(report.run)
    with pytest.raises(SchemaError, match="no run 'nothing'"):
        migrations.get("nothing")


def test_a_value_that_somebody_changes_during_the_run_is_not_lost(make: Make, schemas: Schemas) -> None:
    state, migrations = make()
    fill(state, 3)
    meddled: list[str] = []

    def meddle(value: Any) -> Any:
        if value["name"] == "n1" and not meddled:
            meddled.append("n1")
            state.set("agent:a", "profile/0001", {"nom": "meanwhile", "age": "1"})
        return value

    schemas.add(
        Schema("profile", "3.0.0", SECOND.root.to_dict()["fields"], compatibility="none", migrate=[own(meddle)])
    )
    report = migrations.run("agent:a", schema="profile", to="3.0.0")
    assert (report.migrated, report.failed, meddled) == (3, 0, ["n1"])
    assert raw(state)["profile/0001"][0]["name"] == "meanwhile"


def test_a_deleted_session_leaves_no_old_values(make: Make, driver: Driver, schemas: Schemas) -> None:
    state, migrations = make()
    schemas.bind("session:*", "profile*", "profile", "1.0.0")
    session = driver.sessions.create("to be deleted")
    session.cancel()
    state.set(f"session:{session.id}", "profile/1", {"nom": "x", "age": "1"})
    fill(state, 1)
    assert migrations.run("all", schema="profile").migrated == 2
    driver.sessions.delete(session.id)
    with driver.engine.database.engine.connect() as connection:
        assert connection.execute(text("SELECT scope FROM migrated_values")).scalars().all() == ["agent:a"]


def test_a_value_with_a_time_to_live_is_left_to_reading(make: Make) -> None:
    state, migrations = make()
    state.set("agent:a", "profile/1", {"nom": "x", "age": "1"}, ttl=60)
    assert (report := migrations.run("agent:a", schema="profile")).migrated == 0 and report.unchanged == 1


def test_only_one_process_at_a_time_carries_a_run_on(make: Make, driver: Driver) -> None:
    state, migrations = make()
    fill(state, 60)

    def meanwhile(_looked: int, _total: int) -> None:
        if not refused:
            with driver.engine.database.engine.connect() as connection:
                connection.exec_driver_sql("UPDATE migration_runs SET owner = 'somebody', lease_until = 99999999999")
                if not driver.engine.database.is_sqlite:
                    connection.commit()
            refused.append(1)

    refused: list[int] = []
    with pytest.raises(SchemaError, match="was taken over by another process"):
        migrations.run("agent:a", schema="profile", progress=meanwhile)
    with pytest.raises(SchemaError, match=r"is being carried on by another process \(somebody\)"):
        migrations.run("agent:a", schema="profile")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"scope": "agent:a", "schema": "gone"}, "no schema 'gone'; there are: profile"),
        ({"scope": "agent:a", "schema": "profile", "to": "9.9.9"}, "has no version 9.9.9; it has: 1.0.0, 2.0.0"),
        ({"scope": "agent:a", "schema": "profile", "level": "loose"}, "level 'loose' is not allowed"),
        ({"scope": "agents", "schema": "profile"}, "is no scope"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(make: Make, words: Any, told: str) -> None:
    _, migrations = make()
    with pytest.raises(Exception, match=told):
        migrations.run(**words)
    assert migrations.list() == []


def test_a_backend_of_any_kind_can_be_migrated(driver: Driver, schemas: Schemas) -> None:
    state = State(MemoryBackend(), values=Values(1 << 20, schemas=schemas))
    migrations = Migrations(state, schemas, driver.engine)
    fill(state, 10)
    assert migrations.run("all", schema="profile").migrated == 10
    tenant = state.of_tenant("ana")
    fill(tenant, 3)
    assert migrations.run("all", schema="profile").migrated == 0
    assert Migrations(tenant, schemas, driver.engine).run("all", schema="profile").migrated == 3


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def killed(url: str, folder: Path, *words: str) -> int:
    """A process that migrates and is killed on its way; gives how it ended."""
    command = [sys.executable, "-m", "schemas.killed", url, str(folder), *words]
    return subprocess.run(command, cwd=Path(__file__).parent.parent, timeout=60, check=False).returncode


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_run_that_is_killed_in_a_batch_goes_on_and_can_be_undone_whole(
    make: Make, database_url: str, tmp_path: Path, where: str
) -> None:
    state, migrations = make()
    fill(state, 230)
    before = raw(state)
    assert killed(database_url, tmp_path / "data", "run", where, "3") == -9
    halfway = [version for _, version in raw(state).values()]
    assert halfway.count("profile@2.0.0") == (100 if where == "before" else 150)
    (stopped,) = migrations.list()
    assert (stopped.status, stopped.looked) == ("running", 100)
    report = migrations.run("agent:a", schema="profile", to="2.0.0")
    assert (report.run, report.resumed, report.status) == (stopped.run, True, "done")
    assert (report.looked, report.migrated, report.unchanged) == (230, 230, 0)
    assert {version for _, version in raw(state).values()} == {"profile@2.0.0"}
    assert killed(database_url, tmp_path / "data", "undo", where, "3") == -9
    undone = migrations.resume(report.run)
    assert (undone.status, undone.undone, undone.changed_since) == ("undone", 230, 0)
    assert raw(state) == before
