"""Steps that the cache answers, and what is not cached."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import invariants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from cache.conftest import Cached
from celeriac import AgentOutput, Plan, agent, step
from celeriac.errors import AgentError, PlanError
from celeriac.orchestration.agents import Finding, Registry
from celeriac.orchestration.session import Session


def read(driver: Cached, request: Any = 1, **options: Any) -> Session:
    session = driver.start(step("a", "reader", request), **options)
    assert driver.run_to_end(session) == "completed"
    return session


def done(session: Session) -> dict[str, Any]:
    """What the event of the last step that was done says."""
    return [e.data for e in session.stream(follow=False) if e.type == "step.done"][-1]


def test_the_same_request_is_run_once_and_recorded_as_what_it_is(workers: Callable[..., Cached]) -> None:
    here, there = workers(), workers()
    first, second, third = read(here), read(here), read(there)
    assert len(here.runs + there.runs) == 1
    assert first.result == second.result == third.result == {"read": 1, "as": ["docs", "secrets"]}
    assert [s.steps()[0]["cached"] for s in (first, second, third)] == [False, True, True]
    assert "cached" not in done(first)
    told = done(second)["cached"]
    assert (told["from"], done(third)["cached"]["from"]) == ("process", "shared")
    assert len(told["key"]) == 48 and 0 <= told["age"] < 60 and told["stale"] is False
    invariants.check(here.engine)


def test_each_session_and_the_cache_tell_what_was_saved(driver: Cached) -> None:
    @driver.agent("dear", cache_ttl=60)
    def dear(request: Any, ctx: Any) -> AgentOutput:
        time.sleep(0.05)
        return AgentOutput("x", cost=0.25)

    def run() -> Session:
        session = driver.start(step("a", "dear", 1), step("b", "dear", 1, after=["a"]), step("c", "dear", 2))
        driver.run_to_end(session)
        return session

    first, second = run(), run()
    assert first.saved == {"runs": 1, "seconds": pytest.approx(0.3, abs=0.25), "cost": 0.25}
    assert second.saved == {"runs": 3, "seconds": pytest.approx(0.65, abs=0.5), "cost": 0.75}
    assert second.to_dict()["saved"] == second.saved
    stats = driver.cache.stats()["saved"]
    assert (stats["runs"], stats["cost"]) == (4, 1.0) and stats["seconds"] == pytest.approx(0.7, abs=0.5)
    assert [done(second)["cost"], done(second)["cached"]["saved_cost"]] == [0.0, 0.25]


def test_findings_and_confidence_are_cached_with_the_output(driver: Cached) -> None:
    @driver.agent("finder", cache_ttl=60)
    def finder(request: Any, ctx: Any) -> AgentOutput:
        found = Finding("Ocean", "depth", {"m": request}, 0.7, [{"path": "a.md"}], exclusive=False)
        return AgentOutput(["deep"], findings=[found], confidence=0.6)

    sessions = [driver.start(step("a", "finder", 3)) for _ in range(2)]
    for session in sessions:
        driver.run_to_end(session)
    kept = [
        [{k: v for k, v in f.items() if k not in ("id", "created_at")} for f in session.findings()]
        for session in sessions
    ]
    assert kept[0] == kept[1] and kept[0][0]["value"] == {"m": 3}
    assert done(sessions[1])["confidence"] == 0.6 and done(sessions[1])["findings"] == 1


def test_agents_and_steps_that_do_not_want_it_are_run(driver: Cached) -> None:
    runs = []

    @driver.agent("plain")
    def plain(request: Any, ctx: Any) -> int:
        runs.append(request)
        return 1

    for _ in range(2):
        driver.run_to_end(driver.start(step("a", "plain", 1), step("b", "reader", 1, cache=False)))
    assert len(runs) == 2 and driver.runs == [1, 1]
    assert driver.cache.stats()["entries"] == 0


def test_a_fan_out_and_a_file_can_switch_it_off_too(driver: Cached) -> None:
    plan = Plan.from_dict(
        {
            "name": "p",
            "steps": [
                {"name": "l", "agent": "list"},
                {"name": "a", "agent": "reader", "request": 1, "each": "${l}", "cache": False},
            ],
        }
    )
    driver.agent("list")(lambda request, ctx: [1, 1, 1])
    assert Plan.from_dict(plan.to_dict()) == plan
    driver.run_to_end(driver.sessions.start(plan))
    assert driver.runs == [1, 1, 1]
    with pytest.raises(PlanError, match="cache must be true or false"):
        Plan("p", [step("a", "reader", cache="no")])  # type: ignore[arg-type]


def test_errors_are_not_cached(driver: Cached) -> None:
    tries = []

    @driver.agent("shaky", cache_ttl=60, retries=1, backoff=0.01)
    def shaky(request: Any, ctx: Any) -> str:
        tries.append(1)
        if len(tries) < 4:
            raise ValueError("no")
        return "yes"

    sessions = [driver.start(step("a", "shaky")) for _ in range(2)]
    assert [driver.run_to_end(session) for session in sessions] == ["failed", "completed"]
    assert driver.run_to_end(driver.start(step("a", "shaky"))) == "completed" and len(tries) == 4


def test_an_answer_that_adds_steps_is_not_cached(driver: Cached) -> None:
    @driver.agent("planner", cache_ttl=60)
    def planner(request: Any, ctx: Any) -> AgentOutput:
        driver.runs.append("planner")
        return AgentOutput(1, add_steps=[step("more", "reader", 1)])

    for _ in range(2):
        session = driver.start(step("a", "planner"))
        driver.run_to_end(session)
        assert set(driver.states(session)) == {"a", "more"}
    assert driver.runs == ["planner", 1, "planner"] and driver.cache.stats()["refused"] == 2


@pytest.mark.parametrize("looks_at", ["session", "state", "key"])
def test_an_answer_that_may_be_of_one_session_alone_is_not_cached(driver: Cached, looks_at: str) -> None:
    @driver.agent("personal", cache_ttl=60)
    def personal(request: Any, ctx: Any) -> str:
        getattr(ctx, looks_at)
        return str(ctx._session.user)

    for user in ("ana", "bob"):
        session = driver.start(step("a", "personal"), user=user)
        driver.run_to_end(session)
        assert session.result == user


def test_a_new_version_of_an_agent_answers_anew(workers: Callable[..., Cached]) -> None:
    one, two = workers(), workers()
    for driver, version in ((one, "1"), (two, "2")):
        driver.agent("a", version=version, cache_ttl=60)(lambda request, ctx, v=version: v)
        session = driver.start(step("a", "a"))
        driver.run_to_end(session)
        assert session.result == version


def test_a_step_whose_session_is_not_known_is_not_cached(driver: Cached) -> None:
    session = driver.start(step("a", "reader", 1))
    work = driver.engine.claim(session.id)
    assert work is not None
    known, work.session = work.session, ("", "", "", "")
    assert driver.cached.look(work, driver.registry.get("reader"), frozenset()) is None and work.flight is None
    work.session = known
    driver.perform(work)


def test_options_of_an_agent_are_checked() -> None:
    registry = Registry()
    for options, says in (
        ({"cache_ttl": 0}, "cache_ttl must be"),
        ({"cache_ttl": True}, "cache_ttl must be"),
        ({"cache_ttl": 1e9}, "cache_ttl must be"),
        ({"cache_ttl": 5, "cache_stale": -1}, "cache_stale must be"),
        ({"cache_stale": 5}, "need a cache_ttl"),
        ({"cache_ttl": 5, "cache_tags": "docs"}, "cache_tags must be"),
    ):
        with pytest.raises(AgentError, match=says):
            agent("a", registry=registry, **options)(lambda request, ctx: 1)


HELD = st.sets(st.sampled_from(["docs", "secrets", "x"]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.none() | st.sets(st.sampled_from(["docs", "secrets", "x"]))), max_size=8)
)
def test_no_session_sees_what_was_read_with_other_permissions(driver: Cached, asked: list[Any]) -> None:
    for request, held in asked:
        session = read(driver, request, permissions=held)
        granted = {"docs", "secrets"} if held is None else held & {"docs", "secrets"}
        assert session.result == {"read": request, "as": sorted(granted)}


def test_a_missing_permission_fails_a_step_that_the_cache_could_answer(driver: Cached) -> None:
    driver.agent("keeper", permissions=["secrets"], cache_ttl=60)(lambda request, ctx: "secret")
    assert driver.run_to_end(driver.start(step("a", "keeper"))) == "completed"
    refused = driver.start(step("a", "keeper"), permissions=["docs"])
    assert driver.run_to_end(refused) == "failed" and "secrets" in (refused.error or "")


def test_an_invalidation_during_a_run_keeps_its_result_from_being_cached(workers: Callable[..., Cached]) -> None:
    driver, other = workers(), workers()

    @driver.agent("slow", cache_ttl=60, cache_tags=["docs"])
    def slow(request: Any, ctx: Any) -> int:
        driver.runs.append(request)
        if len(driver.runs) == 1:
            other.cache.invalidate(tag="docs")
        return len(driver.runs)

    results = []
    for _ in range(3):
        session = driver.start(step("a", "slow"))
        driver.run_to_end(session)
        results.append(session.result)
    assert results == [1, 2, 2]


def test_invalidating_by_agent_and_tag_has_steps_run_again(driver: Cached) -> None:
    for kind in ({"agent": "reader"}, {"tag": "docs"}, {"everything": True}, {}):
        read(driver)
        if kind:
            driver.cache.invalidate(**kind)
    assert len(driver.runs) == 4


def test_a_session_that_is_deleted_takes_its_waits_and_savings_along(driver: Cached) -> None:
    read(driver)
    session = read(driver)
    session.archive()
    driver.sessions.delete(session.id)
    for table in ("cache_waiters", "cache_savings"):
        assert driver.engine.database.read(lambda tx, t=table: tx.value(text(f"SELECT count(*) FROM {t}"))) == 0
