"""The record of changes: each one stands in `state_events`, written with the value."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.errors import BlobNotFound, StorageError
from celeriac.orchestration.state.classes import Values
from celeriac.orchestration.state.state import State
from celeriac.storage import results, retries, schema
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database, Query
from celeriac.storage.keys.sealing import KeyRing
from celeriac.storage.states import quick
from celeriac.storage.states.protocol import Origin
from celeriac.storage.states.sql import SqlBackend
from celeriac.storage.states.tables import state_events


@pytest.fixture
def database(database_url: str) -> Any:
    made = Database(database_url)
    schema.ensure(made)
    yield made
    made.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def state(database: Database, blobs: BlobStore) -> State:
    ring = KeyRing.load(
        type("No", (), {"keys_file": ""})(), {"CELERIAC_KEYS": "a:" + base64.b64encode(b"k" * 32).decode()}
    )
    return State(SqlBackend(database, blobs, 5000, with_steps=True), values=Values(1 << 24, ring))


def events(database: Database) -> list[dict[str, Any]]:
    columns = state_events.c.keys()
    rows = database.read(lambda tx: tx.rows(Query(state_events.select().order_by(state_events.c.version))))
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_every_change_is_recorded_with_old_and_new_and_whose_it_is(database: Database, state: State) -> None:
    origin = Origin(correlation_id="c1", session_id="s1", step="locate")
    first = state.set("agent:a", "k", {"n": 1}, origin=origin)
    state.update("agent:a", "k", lambda v: {"n": 2})
    state.delete("agent:a", "k")
    state.delete("agent:a", "k")
    state.set_many("agent:a", {"x": 1, "y": 2})
    assert state.clear_scope("agent:a") == 2
    told = [(e["operation"], e["key"], e["old"], e["new"]) for e in events(database)]
    assert told == [
        ("set", "k", None, '{"n":1}'),
        ("update", "k", '{"n":1}', '{"n":2}'),
        ("delete", "k", '{"n":2}', None),
        ("set", "x", None, "1"),
        ("set", "y", None, "2"),
        ("clear", "", '{"keys":2}', None),
    ]
    one = events(database)[0]
    assert (one["version"], one["scope"], one["correlation_id"], one["session_id"], one["step"]) == (
        first, "agent:a", "c1", "s1", "locate",
    )  # fmt: skip


def test_large_and_sealed_values_are_recorded_by_size_only(database: Database, state: State) -> None:
    state.set("global", "k", "x" * 2000)
    state.set("global", "k", "y" * 9000)
    state.set("global", "k", "secret", state_class="sensitive")
    new = [e["new"] for e in events(database)]
    assert new[0] == '{"bytes":2002}' and new[1].startswith('{"bytes":9002,"sha256":"')
    assert '"sealed":true' in new[2] and "secret" not in new[2]
    assert [e["old"] for e in events(database)][1:] == [new[0], new[1]]


def test_a_blob_goes_when_nothing_refers_to_it_any_more_and_not_before(
    database: Database, state: State, blobs: BlobStore
) -> None:
    big = "z" * 9000
    state.set("global", "one", big)
    state.set("global", "two", big)
    (name,) = blobs.hashes()
    database.write(lambda tx: results.delete_unreferenced(tx, blobs, [name]))
    assert blobs.exists(name), "results leave it alone"
    state.set("global", "one", "small")
    assert blobs.exists(name) and state.get("global", "two", consistent=True) == big
    state.set("global", "two", big + "!")
    assert not blobs.exists(name)
    state.delete("global", "two")
    assert list(blobs.hashes()) == []
    state.set_many("global", {"one": big, "two": big})
    state.clear_scope("global")
    assert list(blobs.hashes()) == []
    state.set("global", "one", big, ttl=0.01)
    time.sleep(0.02)
    state.set("global", "other", 1, ttl=60)
    assert list(blobs.hashes()) == [], "and one whose time is over goes with the next write"


def test_a_blob_that_is_missing_is_an_error_that_names_it(state: State, blobs: BlobStore) -> None:
    state.set("global", "k", "z" * 9000)
    for name in list(blobs.hashes()):
        blobs.delete(name)
    with pytest.raises(BlobNotFound):
        state.get("global", "k", consistent=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=6))
def test_a_commit_whose_outcome_is_unknown_goes_in_once(
    database: Database, state: State, breaks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.is_sqlite:
        pytest.skip("the same on both")
    left = list(breaks)

    def commit(cursor: Any) -> None:
        kind = left.pop(0) if left else ""
        if kind == "before":
            raise _broken()
        cursor.execute("COMMIT")
        if kind == "after":
            raise _broken()

    state.set("global", "n", 0)
    before = len(events(database))
    monkeypatch.setattr(database, "_commit", commit)
    state.update("global", "n", lambda v: v + 1)
    version = state.get_versioned("global", "n")[1]
    assert state.compare_and_set("global", "n", version, 5) > version
    state.set("global", "n", 6)
    monkeypatch.undo()
    assert [e["new"] for e in events(database)][before:] == ["1", "5", "6"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.sampled_from(["", "before", "after"]), min_size=1, max_size=6))
def test_a_set_in_one_statement_whose_outcome_is_unknown_goes_in_once(
    database: Database, state: State, breaks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL takes several")
    left, single = list(breaks), database.single

    def broken(cursor: Any, sql: str, values: Any) -> None:
        kind = left.pop(0) if left else ""
        if kind != "before":
            single(cursor, sql, values)
        if kind:
            raise _broken()

    before = len(events(database))
    monkeypatch.setattr(database, "single", broken)
    versions = [state.set("global", "n", n) for n in range(8)]
    monkeypatch.undo()
    told = events(database)[before:]
    assert [e["new"] for e in told] == [str(n) for n in range(8)]
    assert [e["version"] for e in told] == versions == sorted(set(versions))
    assert state.get_versioned("global", "n") == (7, versions[-1])


def test_versions_rise_though_the_clock_goes_back(
    database: Database, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = state.set("global", "k", 1)
    monkeypatch.setattr(quick, "time_ns", lambda: 1_000_000_000_000)
    second = state.set("global", "k", 2)
    third = state.set("global", "other", 3)
    assert first < second < third
    assert [e["version"] for e in events(database)] == [first, second, third]


def test_a_set_records_what_it_replaces(database: Database, state: State) -> None:
    """Whatever was there: nothing, a small value, one in a blob, one that ends by itself, one that is over."""
    large, long = "x" * 1500, "y" * 9000
    for value, ttl in ((1, None), (2, None), (large, None), (3, None), (long, None), (4, None), (5, 60), (6, None)):
        state.set("global", "k", value, ttl=ttl)
    state.set("global", "k", 7, ttl=0.01)
    time.sleep(0.02)
    state.set("global", "k", 8)
    told = [(e["old"], e["new"]) for e in events(database)]
    about = [json.dumps(v) for v in (1, 2, {"bytes": 1502}, 3, None, 4, 5, 6, 7, 8)]
    olds = [None, *about[:8], None]
    for (old, new), was, now in zip(told, olds, about, strict=True):
        for found, wanted in ((old, was), (new, now)):
            if wanted == "null":
                assert json.loads(found)["bytes"] == 9002 and "sha256" in found
            else:
                assert found is None if wanted is None else json.loads(found) == json.loads(wanted)
    assert state.get("global", "k") == 8


def _broken() -> Exception:
    from celeriac.storage import sqlite

    return sqlite.library().OperationalError("disk I/O error: database is locked")


def test_a_change_that_fails_leaves_neither_value_nor_event(
    database: Database, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "RETRY_SECONDS", 0.05)

    def commit(cursor: Any) -> None:
        cursor.execute("ROLLBACK")
        raise _broken()

    def single(*_: Any) -> None:
        raise _broken()

    monkeypatch.setattr(database, "_commit", commit)
    monkeypatch.setattr(database, "single", single)
    with pytest.raises(StorageError):
        state.set("global", "k", 1)
    monkeypatch.undo()
    assert events(database) == [] and state.list_keys("global") == []
