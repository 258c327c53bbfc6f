"""Rate limits of agents: how often steps begin, on all workers together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import invariants
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac import agent, step
from celeriac.errors import AgentError
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.engine import Work
from celeriac.orchestration.pacing import Pacing
from celeriac.orchestration.work import PutBack
from celeriac.storage.database import Query

_TURNS = Query(text("SELECT count(*) FROM agent_turns"))


class Paced(Driver):
    """A driver that keeps to rate limits, as workers do."""

    def limit(self, rate: Any) -> None:
        """Register the agent `slow`, with that rate limit."""
        self.registry = self.engine.registry = Registry()
        self.pacing = Pacing(self.engine)
        self.agent("slow", rate_limit=rate)(lambda request, ctx: time.time())

    def call(self, work: Work) -> Any:
        self.pacing.admit(work, self.registry.get(work.claimed.agent))
        return super().call(work)

    def try_all(self, session: Any) -> list[str]:
        """Claim and run whatever is ready now; gives the names of the steps whose agent was called."""
        ran = []
        while (work := self.engine.claim(session.id)) is not None:
            try:
                self.engine.finish(work, self.call(work))
                ran.append(work.claimed.name)
            except PutBack:
                continue
        return ran


@pytest.fixture
def paced(make_driver: Callable[..., Any]) -> Paced:
    made: Paced = make_driver(Paced)
    return made


def test_steps_of_a_limited_agent_begin_at_equal_distances_and_none_is_counted_as_an_attempt(paced: Paced) -> None:
    paced.limit("5/s")
    session = paced.start(*(step(f"s{n}", "slow") for n in range(4)))
    assert paced.try_all(session) == ["s0"]
    until = time.monotonic() + 5
    while session.status == "active" and time.monotonic() < until:
        paced.try_all(session)
        time.sleep(0.005)
    began = [session.result[f"s{n}"] for n in range(4)]
    distances = [later - earlier for earlier, later in zip(began, began[1:], strict=False)]
    assert session.status == "completed" and all(0.15 < d < 0.35 for d in distances), distances
    limited = [e for e in session.stream(follow=False) if e.type == "step.limited"]
    assert [e.step for e in limited] == ["s1", "s2", "s3"]  # each waits for its turn once
    assert {view["attempts"] for view in session.steps()} == {1}
    invariants.check(paced.engine)


def test_workers_and_sessions_share_a_limit(paced: Paced, make_driver: Callable[..., Any]) -> None:
    other = make_driver(Paced)
    paced.limit("2/m")
    other.limit("2/m")
    here, there = paced.start(step("a", "slow")), other.start(step("b", "slow"))
    assert (paced.try_all(here), other.try_all(there)) == (["a"], [])
    assert [e.data for e in there.stream(follow=False) if e.type == "step.limited"] == [
        {"agent": "slow", "after_seconds": pytest.approx(30, abs=1)}
    ]


def test_a_limit_that_is_raised_counts_for_those_that_wait(paced: Paced, make_driver: Callable[..., Any]) -> None:
    paced.limit("1/h")
    session = paced.start(*(step(f"s{n}", "slow") for n in range(3)))
    assert paced.try_all(session) == ["s0"]
    newer = make_driver(Paced)
    newer.limit("20/s")
    again = newer.start(step("a", "slow"))
    until = time.monotonic() + 5
    while not again.status == session.status == "completed" and time.monotonic() < until:
        newer.try_all(again)
        newer.try_all(session)
    assert again.status == session.status == "completed"


def test_a_deleted_session_leaves_no_turn(paced: Paced) -> None:
    paced.limit("1/h")
    session = paced.start(step("a", "slow"), step("b", "slow"))
    paced.try_all(session)
    session.cancel()
    paced.sessions.delete(session.id)
    assert paced.engine.database.read(lambda tx: tx.value(_TURNS)) == 0


@pytest.mark.parametrize("rate", ["5/d", "", "/m", "0/s", 0, -1, True, "many", float("nan"), float("inf"), 1e-9, [5]])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(AgentError, match="rate_limit must be a number over 0"):
        agent("slow", rate_limit=rate, registry=Registry())(lambda request, ctx: None)


@pytest.mark.parametrize(("rate", "interval"), [("10/s", 0.1), ("5/m", 12), ("100/h", 36), ("2", 0.5), (4, 0.25)])
def test_rates_are_read_as_celery_reads_them(rate: Any, interval: float) -> None:
    registry = Registry()
    agent("slow", rate_limit=rate, registry=registry)(lambda request, ctx: None)
    assert registry.get("slow").interval == pytest.approx(interval)
