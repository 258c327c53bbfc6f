"""Keyed state in agents: recorded with the step's result where that can be, at once elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver

from celeriac.orchestration.plans import step
from celeriac.storage.states.protocol import StateError


@pytest.fixture
def driver(database_url: str, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(database_url, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Driver]:
    """State lives in files, apart from the sessions."""
    url = f"sqlite:///{tmp_path / 'celeriac.db'}"
    made = Driver(url, tmp_path / "data", state_url=f"file://{tmp_path / 'state'}")
    yield made
    made.close()


def test_what_a_step_writes_is_there_with_its_result_and_not_before(driver: Driver) -> None:
    state = driver.engine.state
    state.set("agent:writer", "gone", 1)
    state.set("workflow:w", "n", 10)
    seen: dict[str, Any] = {}

    @driver.agent("writer")
    def writer(request: Any, ctx: Any) -> Any:
        ctx.state.set("k", {"n": 1})
        ctx.state.set_many({"a": 1, "b": 2})
        assert ctx.state.delete("gone") and not ctx.state.delete("never")
        assert ctx.state.of("workflow:w").update("n", lambda v: v + 1) == 11
        assert ctx.state.of("workflow:w").update("n", lambda v: v + 1) == 12
        assert ctx.state.compare_and_set("new", 0, "mine") and not ctx.state.compare_and_set("a", 7, 0)
        seen["own"] = [ctx.state.get("k"), ctx.state.list_keys(), ctx.state.exists("gone"), ctx.state.get("gone", "no")]
        seen["many"] = ctx.state.get_many(["a", "gone", "none"])
        seen["others"] = [state.list_keys("agent:writer"), state.get("workflow:w", "n", consistent=True)]
        return None

    driver.run(driver.start(step("one", "writer")))
    assert seen == {
        "own": [{"n": 1}, ["a", "b", "k", "new"], False, "no"],
        "many": {"a": 1},
        "others": [["gone"], 10],
    }
    assert state.list_keys("agent:writer") == ["a", "b", "k", "new"] and state.get("agent:writer", "k") == {"n": 1}
    assert state.get("workflow:w", "n") == 12


def test_an_attempt_that_fails_leaves_nothing(driver: Driver) -> None:
    @driver.agent("flaky", retries=2, backoff=0.01)
    def flaky(request: Any, ctx: Any) -> Any:
        ctx.state.update("runs", lambda n: n + 1, 0)
        if ctx.attempt < 3:
            raise ValueError("again")
        return ctx.state.get("runs")

    session = driver.start(step("one", "flaky"))
    assert driver.run_to_end(session) == "completed" and session.result == 1
    assert driver.engine.state.get("agent:flaky", "runs") == 1


def test_a_claim_that_was_lost_writes_nothing(driver: Driver) -> None:
    @driver.agent("slow")
    def slow(request: Any, ctx: Any) -> Any:
        ctx.state.update("runs", lambda n: n + 1, 0)
        return None

    session = driver.start(step("one", "slow"))
    work = driver.engine.claim(session.id)
    assert work is not None
    output = driver.call(work)
    session.cancel()
    with pytest.raises(Exception, match="taken away"):
        driver.engine.finish(work, output)
    assert not driver.engine.state.exists("agent:slow", "runs")


def test_an_update_is_applied_to_what_is_there_when_the_step_ends(driver: Driver) -> None:
    @driver.agent("adder")
    def adder(request: Any, ctx: Any) -> Any:
        ctx.state.update("n", lambda n: n + 1, 0)
        driver.engine.state.update("agent:adder", "n", lambda n: n + 100, 0)  # another one, meanwhile
        return ctx.state.get("n")

    session = driver.start(step("one", "adder"))
    driver.run(session)
    assert driver.engine.state.get("agent:adder", "n") == 101


def test_a_version_that_moved_on_while_the_step_ran_fails_the_attempt(driver: Driver) -> None:
    @driver.agent("setter", retries=1, backoff=0.01)
    def setter(request: Any, ctx: Any) -> Any:
        _, version = ctx.state.get_versioned("k")
        assert ctx.state.compare_and_set("k", version, ctx.attempt)
        ctx.state.set("other", 1)
        if ctx.attempt == 1:
            driver.engine.state.set("agent:setter", "k", "outrun")
        return None

    session = driver.start(step("one", "setter"))
    assert driver.run_to_end(session) == "completed"
    assert driver.engine.state.get("agent:setter", "k") == 2 and session.steps()[0]["attempts"] == 2


def test_a_function_that_fails_on_what_is_there_then_fails_the_step(driver: Driver) -> None:
    @driver.agent("divider")
    def divider(request: Any, ctx: Any) -> Any:
        ctx.state.set("other", 1)
        ctx.state.update("n", lambda n: 1 / n, 1)
        driver.engine.state.set("agent:divider", "n", 0)
        return None

    session = driver.start(step("one", "divider"))
    assert driver.run_to_end(session) == "failed"
    assert "ZeroDivisionError" in session.steps()[0]["error"] and "agent:divider 'n'" in session.steps()[0]["error"]
    assert not driver.engine.state.exists("agent:divider", "other")


def test_what_is_wrong_with_a_value_is_raised_in_the_agent(driver: Driver) -> None:
    @driver.agent("wrong")
    def wrong(request: Any, ctx: Any) -> Any:
        faults = []
        for call in (
            lambda: ctx.state.set("k", {"a": object()}),
            lambda: ctx.state.update("k", lambda v: object()),
            lambda: ctx.state.set("k", 1, state_class="sensitive"),
            lambda: ctx.state.set("k", 1, state_class="ephemeral", with_step=True),
            lambda: ctx.state.update("k", lambda v: ctx.state.set("x", 1)),
        ):
            try:
                call()
            except Exception as fault:
                faults.append(type(fault).__name__)
        return faults

    session = driver.start(step("one", "wrong"))
    driver.run(session)
    assert session.result == ["NotSerializable", "NotSerializable", "StateError", "StateError", "StateError"]
    assert driver.engine.state.list_keys("agent:wrong") == []


def test_writes_without_the_step_and_ephemeral_ones_go_through_at_once(driver: Driver) -> None:
    @driver.agent("loud")
    def loud(request: Any, ctx: Any) -> Any:
        ctx.state.set("at once", 1, with_step=False)
        ctx.state.set("live", 2, state_class="ephemeral")
        ctx.state.set("held", 3)
        raise ValueError("no")

    driver.run_to_end(driver.start(step("one", "loud")))
    assert driver.engine.state.list_keys("agent:loud") == ["at once", "live"]


def test_elsewhere_writes_go_through_at_once_and_with_step_is_a_clear_error(apart: Driver) -> None:
    @apart.agent("writer")
    def writer(request: Any, ctx: Any) -> Any:
        ctx.state.set("k", 1)
        ctx.state.update("n", lambda n: n + 1, 0)
        with pytest.raises(StateError, match=r"with_step=True: agent:writer .* state_url is not the database"):
            ctx.state.set("other", 1, with_step=True)
        raise ValueError("no")

    apart.run_to_end(apart.start(step("one", "writer")))
    assert apart.engine.state.list_keys("agent:writer") == ["k", "n"]


def test_state_events_of_a_step_name_it(driver: Driver) -> None:
    from celeriac.storage.database import Query
    from celeriac.storage.states.tables import state_events

    @driver.agent("writer")
    def writer(request: Any, ctx: Any) -> Any:
        ctx.state.set("k", 1)
        ctx.state.set("l", 1, with_step=False)

    session = driver.start(step("one", "writer"))
    driver.run(session)
    columns = (state_events.c.key, state_events.c.session_id, state_events.c.step, state_events.c.correlation_id)
    rows = driver.engine.database.read(lambda tx: tx.rows(Query(state_events.select().with_only_columns(*columns))))
    assert sorted(rows) == [("k", session.id, "one", session.id), ("l", session.id, "one", session.id)]


def test_the_state_of_a_session_goes_with_it(driver: Driver) -> None:
    @driver.agent("writer")
    def writer(request: Any, ctx: Any) -> Any:
        ctx.state.of(f"session:{ctx.session.id}").set("k", "x" * 3_000_000)

    session = driver.start(step("one", "writer"))
    driver.run(session)
    scope = f"session:{session.id}"
    assert driver.engine.state.list_keys(scope) == ["k"] and list(driver.engine.blobs.hashes())
    driver.sessions.delete(session.id)
    assert driver.engine.state.list_keys(scope) == [] and list(driver.engine.blobs.hashes()) == []
