"""The keyed state of a session's own scope in its checkpoints: with each step, restored whole or not at all, undone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import invariants
import msgspec
import pytest
from driver import Driver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from celeriac.errors import CheckpointDamaged
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.plans import Plan, step
from celeriac.orchestration.session import Session
from celeriac.orchestration.sessions import Sessions
from celeriac.orchestration.state import stepstate
from celeriac.storage import deltas, schema, session_state
from celeriac.storage.database import Database
from celeriac.storage.states.protocol import Origin

LARGE = "x" * 3_000_000


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Iterator[Driver]:
    one = make_driver()

    @one.agent("set")
    def set_(request: Any, ctx: Any) -> Any:
        own = ctx.state.of(f"session:{ctx.session.id}")
        for key, value in request.items():
            own.set(key, value) if value is not None else own.delete(key)

    yield one
    invariants.check(one.engine)


def _scope(session: Session) -> str:
    return f"session:{session.id}"


def _values(driver: Driver, session: Session) -> dict[str, Any]:
    state, scope = driver.engine.state, _scope(session)
    return state.get_many(scope, state.list_keys(scope))


def _numbers(session: Session) -> list[int]:
    return [one["number"] for one in session.checkpoints()]


def test_what_a_step_writes_is_in_its_checkpoint_and_goes_back_with_it(driver: Driver) -> None:
    plan = [{"a": 1, "b": 1}, {"a": 2, "c": {"deep": [1]}}, {"b": None}]
    session = driver.start(*(step(f"s{n}", "set", one, after=[f"s{n - 1}"] if n else []) for n, one in enumerate(plan)))
    driver.run(session)
    expected = [{}, {"a": 1, "b": 1}, {"a": 2, "b": 1, "c": {"deep": [1]}}, {"a": 2, "c": {"deep": [1]}}]
    assert [session.checkpoint_state(n)["state"] for n in _numbers(session)] == expected
    assert {d["path"]: (d["a"], d["b"]) for d in session.diff(2, 3) if d["path"].startswith("state")} == {
        "state.a": (1, 2),
        "state.c": (None, {"deep": [1]}),
    }
    undo = session.restore(2)
    assert _values(driver, session) == expected[1]
    session.restore(undo)
    assert _values(driver, session) == expected[3]
    restored = [e for e in session.stream(follow=False) if e.type == "session.restored"]
    assert [e.data["values"] for e in restored] == [3, 3]


def test_what_others_write_goes_into_the_next_checkpoint(driver: Driver) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    scope = _scope(session)
    state.set_many(scope, {"a": 1, "b": 2, "c": 3})
    state.update(scope, "a", lambda n: n + 10)
    state.delete(scope, "b")
    assert state.compare_and_set(scope, "d", 0, 4)
    first = session.checkpoint()
    state.clear_scope(scope)
    state.set(scope, "e", 5)
    second = session.checkpoint()
    state.set("session:nobody", "a", 1)  # there is no such session, which is nobody's fault
    assert session.checkpoint_state(first)["state"] == {"a": 11, "c": 3, "d": 4}
    assert session.checkpoint_state(second)["state"] == {"e": 5}
    session.restore(first)
    assert _values(driver, session) == {"a": 11, "c": 3, "d": 4}


def test_a_step_that_writes_to_another_session_marks_that_one(driver: Driver) -> None:
    other = driver.start(step("one", "set", {}))

    @driver.agent("giver")
    def giver(request: Any, ctx: Any) -> Any:
        ctx.state.of(_scope(other)).set("gift", 1)

    session = driver.start(step("one", "giver"))
    driver.run(session)
    assert session.checkpoint_state(_numbers(session)[-1])["state"] == {}
    assert other.checkpoint_state(other.checkpoint())["state"] == {"gift": 1}


def test_a_checkpoint_costs_what_changed_in_the_state(driver: Driver) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    state.set_many(_scope(session), {f"k{n:04d}": "v" * 50 for n in range(2000)})
    session.checkpoint()
    state.set(_scope(session), "k0007", "changed")
    state.set(_scope(session), "long", "the same again and again " * 1000)
    session.checkpoint()
    assert session.checkpoints()[-1]["size"] < 600


def test_versions_rise_and_the_restore_is_in_the_record_of_changes(driver: Driver) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    scope = _scope(session)
    state.set(scope, "stays", 0)
    _, stays = state.get_versioned(scope, "stays")
    state.set(scope, "k", "old")
    number = session.checkpoint()
    _, old = state.get_versioned(scope, "k")
    new = state.set(scope, "k", "new")
    state.set(scope, "late", 1)
    session.restore(number)
    value, version = state.get_versioned(scope, "k")
    assert value == "old" and version > new > old
    assert not state.compare_and_set(scope, "k", old, "x") and state.get_versioned(scope, "stays") == (0, stays)
    with driver.engine.database.engine.connect() as connection:
        told = connection.execute(
            text("SELECT key, old, new, session_id FROM state_events WHERE operation = 'restore' ORDER BY key")
        ).all()
    assert [tuple(row) for row in told] == [("k", '"new"', '"old"', session.id), ("late", "1", None, session.id)]


def test_other_processes_read_the_restored_value_at_once(driver: Driver, make_driver: Callable[..., Driver]) -> None:
    session, other = driver.start(step("one", "set", {})), make_driver()
    scope = _scope(session)
    driver.engine.state.set(scope, "k", 1)
    number = session.checkpoint()
    driver.engine.state.set(scope, "k", 2)
    assert other.engine.state.get(scope, "k") == 2
    session.restore(number)
    assert driver.engine.state.get(scope, "k") == 1
    assert other.engine.state.get(scope, "k", consistent=True) == 1


def test_sealed_values_come_back_sealed(make_driver: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_KEYS", f"k1:{base64.b64encode(bytes(range(32))).decode()}")
    driver = make_driver()
    state, session = driver.engine.state, driver.sessions.create("q")
    scope = _scope(session)
    state.set(scope, "token", "hunter2-hunter2", state_class="sensitive")
    number = session.checkpoint()
    state.set(scope, "token", "other-other-oth", state_class="sensitive")
    later = session.checkpoint()
    assert "hunter2" not in str(session.checkpoint_state(number))
    assert [one["path"] for one in session.diff(number, later)] == ["state.token.sha256"]
    session.restore(number)
    assert state.get(scope, "token") == "hunter2-hunter2"
    with driver.engine.database.engine.connect() as connection:
        for statement in ("SELECT body FROM checkpoints", "SELECT packed FROM state_values"):
            bodies = [bytes(row[0]) for row in connection.execute(text(statement))]
            assert bodies and not any(b"hunter2" in body for body in bodies)


def test_blobs_of_a_checkpoint_live_as_long_as_it(driver: Driver) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    scope = _scope(session)
    state.set(scope, "large", LARGE)
    number = session.checkpoint()
    state.set(scope, "large", "small")
    assert len(list(driver.engine.blobs.hashes())) == 1
    session.restore(number)
    assert state.get(scope, "large") == LARGE
    driver.sessions.delete(session.id)
    assert list(driver.engine.blobs.hashes()) == []


def test_pruning_drops_blobs_that_no_checkpoint_refers_to(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(checkpoints_kept=2)

    @driver.agent("large")
    def large(request: Any, ctx: Any) -> Any:
        ctx.state.of(f"session:{ctx.session.id}").set("k", str(request) * 2_000_000)

    session = driver.start(
        *(step(f"s{n}", "large", n, after=[f"s{n - 1}"] if n else []) for n in range(5)), step("z", "large", 9)
    )
    session.mark(1)
    driver.run(session, most=4)
    marked = _numbers(session)[-1]
    session.mark(marked)
    driver.run(session)
    assert session.status == "completed"
    invariants.check(driver.engine)
    kept = _numbers(session)
    expected = {session.checkpoint_state(n)["state"].get("k", {}).get("sha256") for n in kept} - {None}
    assert set(driver.engine.blobs.hashes()) == expected and len(expected) < 5
    session.restore(marked)
    assert driver.engine.state.get(_scope(session), "k", consistent=True)


@pytest.mark.parametrize("how", ["blob", "row"])
def test_a_checkpoint_whose_value_is_damaged_is_refused_and_nothing_is_restored(driver: Driver, how: str) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    scope = _scope(session)
    state.set_many(scope, {"k": 1, "large": LARGE})
    number = session.checkpoint()
    state.set_many(scope, {"k": 2, "large": ""})
    (blob,) = driver.engine.blobs.hashes()
    if how == "blob":
        driver.engine.blobs.delete(blob)
    else:
        with driver.engine.database.engine.connect() as connection:
            connection.execute(text("UPDATE checkpoints SET body = digest WHERE number = 2"))
            connection.commit()
    with pytest.raises(CheckpointDamaged):
        session.restore(number)
    assert _values(driver, session) == {"k": 2, "large": ""}
    session.pause()
    driver.sessions.delete(session.id)


def test_values_whose_time_is_over_do_not_come_back(driver: Driver) -> None:
    state, session = driver.engine.state, driver.start(step("one", "set", {}))
    scope = _scope(session)
    state.set(scope, "short", 1, ttl=0.3)
    state.set(scope, "long", 1, ttl=3600)
    number = session.checkpoint()
    state.clear_scope(scope)
    session.restore(number)
    assert _values(driver, session) == {"short": 1, "long": 1}
    with driver.engine.database.engine.connect() as connection:
        connection.execute(text("UPDATE state_values SET expires_at = expires_at - 10 WHERE key = 'short'"))
        connection.commit()
    assert _values(driver, session) == {"long": 1}


def test_elsewhere_checkpoints_keep_no_state_and_a_restore_leaves_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    apart = Driver(url, tmp_path / "data", state_url=f"file://{tmp_path / 'state'}")
    assert not apart.engine.state.capabilities.with_steps

    @apart.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    session = apart.start(step("one", "echo"))
    apart.engine.state.set(_scope(session), "k", 1)
    number = session.checkpoint()
    assert session.checkpoint_state(number)["state"] == {}
    apart.engine.state.set(_scope(session), "k", 2)
    session.restore(number)
    assert apart.engine.state.get(_scope(session), "k") == 2
    apart.close()


KEYS = st.sampled_from(["a", "b", "é/%", "z" * 300])
VALUES = st.one_of(st.integers(-5, 5), st.text(max_size=5), st.just("long " * 300))
MOVES = st.one_of(
    st.tuples(st.just("set"), st.dictionaries(KEYS, VALUES, min_size=1)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("append"), KEYS),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("step"), st.dictionaries(KEYS, st.one_of(st.none(), VALUES))),
    st.tuples(st.just("checkpoint"), st.none()),
    st.tuples(st.just("restore"), st.integers(0, 1000)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, min_size=3, max_size=14))
def test_any_writes_checkpoints_and_restores_give_what_a_dict_gives(driver: Driver, moves: list[Any]) -> None:
    """A checkpoint remembers what a dict had then; also those that restores make."""
    state = driver.engine.state
    session = driver.start(step("one", "set", {}))
    scope = _scope(session)
    model: dict[str, Any] = {}
    known: dict[int, dict[str, Any]] = {_numbers(session)[-1]: {}}
    for move, given_ in moves:
        match move:
            case "set":
                state.set_many(scope, given_)
                model |= given_
            case "delete":
                assert state.delete(scope, given_) == (given_ in model)
                model.pop(given_, None)
            case "append":
                state.update(scope, given_, lambda v: f"{v}+", "")
                model[given_] = f"{model.get(given_, '')}+"
            case "clear":
                assert state.clear_scope(scope) == len(model)
                model.clear()
            case "step":
                _as_step(driver, session, given_)
                model = {k: v for k, v in (model | given_).items() if v is not None}
                known[_numbers(session)[-1]] = dict(model)
            case "checkpoint":
                known[int(session.checkpoint().rpartition(":")[2])] = dict(model)
            case "restore":
                number = sorted(known)[given_ % len(known)]
                undo = session.restore(number)
                known[int(undo.rpartition(":")[2])] = dict(model)
                model = dict(known[number])
                known[_numbers(session)[-1]] = dict(model)
        assert _values(driver, session) == model
    for number, values in known.items():
        assert session.checkpoint_state(number)["state"] == values
    invariants.check(driver.engine)


def _as_step(driver: Driver, session: Session, values: dict[str, Any]) -> None:
    """Write as a step does, in a turn of the session that makes a checkpoint."""
    held = stepstate.Held(driver.engine.state, Origin())
    own = stepstate.StepState(driver.engine.state, _scope(session), held, Origin())
    for key, value in values.items():
        own.set(key, value) if value is not None else own.delete(key)

    work: Any = SimpleNamespace(held=held)

    def record(turn: Any) -> None:
        stepstate.keep(turn, work)
        turn.kind = "manual"

    driver.engine.in_turn(session.id, record)


def test_what_an_older_celeriac_kept_is_in_the_next_checkpoint(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    schema.upgrade(database, "0006")
    session_id = "0190a000-0000-7000-8000-000000000000"
    body = deltas.snapshot(msgspec.msgpack.encode([["active", "p", None], [], {}, [], {}]))
    digest = hashlib.blake2b(f"{session_id}|1|1|".encode() + body, digest_size=16).digest()
    columns = "id, query, status, phase, correlation_id, created_at, updated_at, checkpoint_seq, checkpoint_base"
    with database.engine.connect() as connection:
        for statement in (
            f"INSERT INTO sessions ({columns}) VALUES ('{session_id}', '', 'active', 'p', 'c', 0, 0, 1, 1)",
            "INSERT INTO state_values (scope, key, version, body, size, updated_at)"
            f" VALUES ('session:{session_id}', 'k', 7, '1', 1, 0)",
        ):
            connection.execute(text(statement))
        connection.execute(
            text("INSERT INTO checkpoints VALUES (:id, 1, 'step', '', 0, 1, :body, :digest, 0, 0)"),
            {"id": session_id, "body": body, "digest": digest},
        )
        connection.commit()
    schema.upgrade(database)
    database.dispose()
    driver = Driver(database_url, tmp_path / "data")
    session = driver.sessions.get(session_id)
    number = session.checkpoint()
    assert session.checkpoint_state(number)["state"] == {"k": 1}
    driver.engine.state.set(_scope(session), "k", 2)
    undo = session.restore(1)
    assert _values(driver, session) == {"k": 2}, "the older checkpoint does not know what there was"
    assert session.checkpoint_state(undo)["state"] == {"k": 2}
    session.restore(number)
    assert _values(driver, session) == {"k": 1}
    driver.close()


def test_a_tenants_session_goes_back_with_its_own_state_and_touches_nobody_elses(driver: Driver) -> None:
    theirs = Sessions(driver.engine, caller=Caller("ana", "a/b%"))
    session = theirs.start(Plan("p", [step("s", "set", {})]))
    own = driver.engine.state.of_tenant("a/b%")
    for state, value in ((own, "first"), (driver.engine.state, "another's")):
        state.set(_scope(session), "k", value)
    first = session.checkpoint()
    own.set(_scope(session), "k", "second")
    session.cancel()
    undo = session.restore(first)
    assert (own.get(_scope(session), "k"), driver.engine.state.get(_scope(session), "k")) == ("first", "another's")
    session.restore(undo)
    assert own.get(_scope(session), "k") == "second"


@pytest.mark.parametrize("tenant", ["", "a", "a/b", "100%", "%2F", "session:x"])
def test_a_scope_names_its_tenant_and_session_whatever_they_hold(tenant: str) -> None:
    assert session_state.session_of(session_state.scope_of("s", tenant)) == ("s", tenant)
    assert session_state.session_of(f"{session_state.prefix_of(tenant)}agent:s") is None
