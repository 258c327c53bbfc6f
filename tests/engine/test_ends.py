"""How attempts end: retries, permissions, lost workers, fencing, time limits, cancelled and timed-out agents."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import AgentError, StepCancelled
from celeriac.orchestration import heartbeat, sweeping
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.engine import Lost
from celeriac.orchestration.plans import step
from celeriac.storage.database import Query

_FORGET = Query(text("DELETE FROM outbox"))
_OUTBOX = Query(text("SELECT session_id FROM outbox"))
_A_MINUTE_PASSES = [
    Query(text("UPDATE outbox SET created_at = created_at - 60")),
    Query(text("UPDATE steps SET run_at = run_at - 60, hinted_at = hinted_at - 60")),
]


def test_a_failed_attempt_is_made_again_after_its_backoff(driver: Driver) -> None:
    tried: list[float] = []

    @driver.agent("flaky", retries=2, backoff=0.1)
    def flaky(request: Any, ctx: Any) -> Any:
        tried.append(time.monotonic())
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")
        return ctx.attempt

    session = driver.start(step("a", "flaky"))
    assert driver.run(session) == 1
    assert driver.states(session)["a"] == "ready"
    assert driver.run_to_end(session) == "completed"
    assert session.result == 3
    assert tried[1] - tried[0] >= 0.05 and tried[2] - tried[1] >= 0.1
    assert driver.events(session).count("step.retry") == 2


def test_a_step_fails_when_its_retries_are_used_up(driver: Driver) -> None:
    session = driver.start(step("a", "fail", 1, retries=2, backoff=0))
    driver.run_to_end(session)
    assert session.steps()[0]["attempts"] == 3
    assert session.status == "failed"


def test_a_step_whose_permission_is_missing_fails_at_once_and_names_it(driver: Driver) -> None:
    @driver.agent("reader", permissions={"docs:read"}, optional_permissions={"web"}, retries=5)
    def reader(request: Any, ctx: Any) -> Any:
        return sorted(ctx.permissions)

    refused = driver.start(step("a", "reader"), permissions={"web", "other"})
    allowed = driver.start(step("a", "reader"), permissions={"docs:read", "other"})
    everything = driver.start(step("a", "reader"))
    for session in (refused, allowed, everything):
        driver.run_to_end(session)
    assert refused.status == "failed" and "'reader' needs docs:read" in str(refused.error)
    assert allowed.result == ["docs:read"]
    assert everything.result == ["docs:read", "web"]


@pytest.mark.parametrize("output", [{1, 2}, float("nan"), {"x": b"y"}])
def test_an_output_that_is_not_json_fails_the_step_at_once(driver: Driver, output: Any) -> None:
    @driver.agent("odd", retries=5)
    def odd(request: Any, ctx: Any) -> Any:
        return output

    session = driver.start(step("a", "odd"))
    driver.run_to_end(session)
    assert "NotSerializable: output of a" in str(session.error)


def test_an_error_text_that_no_database_takes_is_kept_as_far_as_it_can_be(driver: Driver) -> None:
    @driver.agent("odd")
    def odd(request: Any, ctx: Any) -> Any:
        ctx.progress(0.5, "a\0b\ud800")
        raise ValueError("nul \0 and half \ud800 of a pair")

    session = driver.start(step("a", "odd"))
    driver.run_to_end(session)
    assert session.status == "failed"
    assert str(session.error).endswith("nul \ufffd and half ? of a pair")


def test_a_lost_worker_s_step_is_run_by_another(make_driver: Callable[..., Driver], driver: Driver) -> None:
    session = driver.start(step("a", "echo", 1), step("b", "echo", "${a}"))
    lost = driver.engine.claim(session.id)
    assert lost is not None
    assert sweeping.sweep(driver.engine).returned == 0
    time.sleep(0.7)
    assert sweeping.sweep(driver.engine).returned == 1
    driver.run(session)
    assert session.status == "completed"
    assert session.steps()[0]["attempts"] == 2
    with pytest.raises(Lost):
        driver.engine.finish(lost, AgentOutput(data="late"))
    with pytest.raises(Lost):
        driver.engine.fail(lost, ValueError("late"))
    assert session.output("a") == 1


def test_a_step_whose_worker_dies_each_time_is_dead_after_max_attempts(
    make_driver: Callable[..., Driver], driver: Driver
) -> None:
    session = driver.start(step("a", "echo"), step("b", "echo", after=["a"]), step("c", "echo"))
    for _ in range(driver.settings.max_attempts):
        work = driver.engine.claim(session.id)
        while work is not None and work.claimed.name != "a":
            work = driver.perform(work) or driver.engine.claim(session.id)
        assert work is not None
        sweeping.take_back(driver.engine, session.id, [work.claimed])
    driver.run(session)
    assert driver.states(session) == {"a": "dead", "b": "skipped", "c": "done"}
    assert session.steps()[0]["attempts"] == driver.settings.max_attempts
    assert "lost in each of 5 attempts" in str(session.error)


def test_a_step_that_is_given_back_does_not_count_the_attempt(driver: Driver) -> None:
    session = driver.start(step("a", "echo"))
    for _ in range(10):
        work = driver.engine.claim(session.id)
        assert work is not None
        sweeping.take_back(driver.engine, session.id, [work.claimed], given_back=True)
    driver.run(session)
    assert session.status == "completed"
    assert session.steps()[0]["attempts"] == 1


def test_many_sweepers_at_once_return_a_lost_step_once(driver: Driver, make_driver: Callable[..., Driver]) -> None:
    sessions = [driver.start(step("a", "echo"), step("b", "echo")) for _ in range(5)]
    for session in sessions:
        assert driver.engine.claim(session.id) is not None
    time.sleep(0.7)
    engines = [make_driver().engine for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        swept = list(pool.map(lambda n: sweeping.sweep(engines[n % 4]), range(8)))
    assert sum(s.returned for s in swept) == 5
    assert sweeping.sweep(driver.engine).returned == 0
    for session in sessions:
        assert driver.events(session).count("step.returned") == 1


def test_a_ready_step_that_nobody_claims_is_hinted_again_once(driver: Driver) -> None:
    published: list[Any] = []
    session = driver.start(step("a", "echo"))
    driver.engine.hints.publisher = published.extend
    driver.engine.database.write(lambda tx: tx.run(_FORGET))
    time.sleep(0.1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sweeping.sweep(driver.engine), range(4)))
    assert [h.session_id for h in published if h.session_id == session.id] == [session.id]


def test_hints_do_not_pile_up_while_the_broker_is_away(driver: Driver) -> None:
    sent: list[Any] = []
    waiting, done = (driver.start(step("a", "echo")) for _ in range(2))
    driver.run(done)
    for n in range(4):  # three minutes without a broker, then it is back
        driver.engine.hints.publisher = sent.extend if n == 3 else None
        driver.engine.database.write(lambda tx: [tx.run(each) for each in _A_MINUTE_PASSES])
        sweeping.sweep(driver.engine)
    assert [h.session_id for h in sent] == [waiting.id]
    assert driver.engine.database.read(lambda tx: tx.rows(_OUTBOX)) == [(waiting.id,)]


def test_the_heartbeat_keeps_a_long_step_and_writes_its_progress(driver: Driver) -> None:
    @driver.agent("slow")
    def slow(request: Any, ctx: Any) -> Any:
        for n in range(5):
            ctx.progress(n / 5, f"part {n}")
            ctx.partial(n)
            time.sleep(0.25)
            assert sweeping.sweep(driver.engine).returned == 0
        return "done"

    session = driver.start(step("a", "slow"))
    driver.run(session)
    assert session.result == "done"
    assert session.steps()[0]["attempts"] == 1
    assert session.partials() == {"slow": [0, 1, 2, 3, 4]}
    assert driver.events(session).count("step.progress") >= 1
    assert driver.events(session).count("step.partial") == 5


def test_partial_results_of_a_hasty_agent_are_recorded_once_and_in_order(driver: Driver) -> None:
    @driver.agent("hasty")
    def hasty(request: Any, ctx: Any) -> Any:
        for n in range(2500):
            ctx.partial(n)
        return None

    session = driver.start(step("a", "hasty"))
    driver.run(session)
    assert session.partials() == {"hasty": list(range(2500))}


def test_an_agent_past_its_time_limit_is_stopped(driver: Driver) -> None:
    @driver.agent("endless", timeout=0.2)
    def endless(request: Any, ctx: Any) -> Any:
        while True:
            time.sleep(0.01)

    session = driver.start(step("a", "endless"), step("b", "echo"))
    driver.run(session)
    assert driver.states(session) == {"a": "failed", "b": "done"}
    assert "StepTimeout" in str(session.error)


def test_what_a_stopped_async_agent_left_behind_does_not_go_on(driver: Driver) -> None:
    ticks: list[int] = []

    @driver.agent("endless", timeout=0.2)
    async def endless(request: Any, ctx: Any) -> Any:
        while True:
            ticks.append(1)
            await asyncio.sleep(0.01)

    @driver.agent("later")
    async def later(request: Any, ctx: Any) -> Any:
        before = len(ticks)
        await asyncio.sleep(0.1)
        return len(ticks) - before

    session = driver.start(step("a", "endless", priority=9), step("b", "later"))
    driver.run(session)
    assert driver.states(session) == {"a": "failed", "b": "done"}
    assert session.output("b") == 0


def test_what_an_agent_s_own_event_loop_runs_is_cancelled(driver: Driver) -> None:
    """An exception that is raised somewhere in the loop would hit a callback, which swallows it."""

    @driver.agent("busy", timeout=0.2)
    def busy(request: Any, ctx: Any) -> Any:
        loop, until = asyncio.new_event_loop(), time.monotonic() + 4
        over = asyncio.Event()

        def turn() -> None:
            sum(range(20_000))
            if time.monotonic() < until:
                loop.call_soon(turn)
            else:
                over.set()

        loop.call_soon(turn)
        try:
            loop.run_until_complete(over.wait())
        finally:
            loop.close()

    session, began = driver.start(step("a", "busy")), time.monotonic()
    driver.run(session)
    assert time.monotonic() - began < 3
    assert driver.states(session) == {"a": "failed"} and "StepTimeout" in str(session.error)


def test_an_async_agent_that_is_stopped_tidies_up(driver: Driver) -> None:
    tidied: list[bool] = []

    @driver.agent("long", timeout=0.1)
    async def long(request: Any, ctx: Any) -> Any:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            tidied.append(True)

    session, began = driver.start(step("a", "long")), time.monotonic()
    driver.run(session)
    assert time.monotonic() - began < 3
    assert driver.states(session) == {"a": "failed"} and "StepTimeout" in str(session.error)
    assert tidied == [True]


def test_an_async_agent_that_heeds_no_cancelling_is_interrupted(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "LOOP_SECONDS", 0.1)

    @driver.agent("deaf", timeout=0.1)
    async def deaf(request: Any, ctx: Any) -> Any:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            sum(range(1000))

    session = driver.start(step("a", "deaf"))
    driver.run(session)
    assert driver.states(session) == {"a": "failed"} and "StepTimeout" in str(session.error)


def test_a_step_that_gives_way_to_a_pause_is_not_stopped_on_its_way_out(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.0)
    stopped: list[Any] = []
    driver.heartbeat.interrupt = lambda *why: stopped.append(why)

    @driver.agent("polite")
    def polite(request: Any, ctx: Any) -> Any:
        ctx.once("pause", session.pause)
        try:
            ctx.give_way()
        finally:
            time.sleep(0.2)

    session = driver.start(step("a", "polite"))
    driver.run(session)
    assert driver.states(session)["a"] == "ready"
    assert not stopped


def test_a_running_agent_is_stopped_when_its_session_is_cancelled(driver: Driver) -> None:
    seen: list[str] = []

    @driver.agent("long")
    def long(request: Any, ctx: Any) -> Any:
        session.cancel()
        try:
            while True:
                ctx.check()
                time.sleep(0.01)
        except StepCancelled:
            seen.append("stopped")
            raise

    session = driver.start(step("a", "long"), step("b", "echo", after=["a"]))
    driver.run(session)
    assert seen == ["stopped"]
    assert driver.states(session) == {"a": "cancelled", "b": "cancelled"}
    assert session.status == "cancelled"


def test_steps_of_one_agent_at_once_keep_each_other_s_state(driver: Driver) -> None:
    @driver.agent("counter")
    def counter(request: Any, ctx: Any) -> Any:
        ctx.memory[request] = ctx.memory.get(request, 0) + 1
        ctx.memory["last"] = request

    session = driver.start(*(step(f"s{n}", "counter", f"k{n}") for n in range(6)))
    works = [driver.engine.claim(session.id) for _ in range(6)]
    for work in works:
        assert work is not None
        driver.engine.agent_state(work)
    for work in works:
        assert work is not None
        driver.perform(work)
    kept = session.agent_states()["counter"]["state"]
    assert {k: v for k, v in kept.items() if k != "last"} == {f"k{n}": 1 for n in range(6)}


@pytest.mark.parametrize("entity", [5, "a\0b", "\ud800"])
def test_a_finding_about_what_is_no_text_is_refused(driver: Driver, entity: Any) -> None:
    @driver.agent("finder")
    def finder(request: Any, ctx: Any) -> Any:
        return AgentOutput(findings=[Finding(entity, "licence", "MIT")])

    session = driver.start(step("a", "finder"))
    driver.run(session)
    assert AgentError.__name__ in str(session.error)


def test_findings_that_disagree_become_conflicts_and_a_run_that_was_undone_has_no_say(driver: Driver) -> None:
    said = iter(["MIT", "GPL", "mit "])

    @driver.agent("finder")
    def finder(request: Any, ctx: Any) -> Any:
        return AgentOutput(findings=[Finding("Celery", "licence", next(said), request, [{"path": "LICENSE"}])])

    session = driver.start(
        step("a", "finder", 0.9), step("b", "finder", 0.6, after=["a"]), step("c", "echo", after=["b"])
    )
    after_a = None
    work = driver.engine.claim(session.id)
    assert work is not None
    driver.perform(work)
    after_a = session.checkpoints()[-1]["id"]
    driver.run(session)
    (conflict,) = session.conflicts()
    assert conflict["agents"] == ["finder", "finder"]
    assert conflict["severity"] == "medium"
    assert conflict["resolution"]["value"] == "MIT"
    session.resolve_conflict(conflict["id"], "GPL")
    assert session.conflicts()[0]["resolution"] == {"value": "GPL", "by": "person"}
    session.restore(after_a)
    session.resume()
    driver.run(session)
    assert session.conflicts() == []
    assert [f["value"] for f in session.findings()] == ["MIT", "mit "]


def test_progress_that_is_no_number_does_not_cost_the_lease(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    @driver.agent("nothing")
    def nothing(request: Any, ctx: Any) -> float:
        ctx.progress(float("nan"), "0 of 0")
        time.sleep(2.5 * heartbeat.BEAT_SECONDS)
        return float(session.steps()[0]["progress"])

    session = driver.start(step("a", "nothing"))
    assert driver.run_to_end(session) == "completed"
    assert session.result == 0 and "heartbeat of step" not in caplog.text


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"cost": 10**400}, "cost 1000000"),
        ({"cost": float("nan")}, "cost nan"),
        ({"cost": "dear"}, "cost 'dear'"),
        ({"confidence": 5}, "confidence 5"),
        ({"confidence": True}, "confidence True"),
    ],
)
def test_figures_that_are_no_numbers_fail_the_step_and_name_themselves(
    driver: Driver, figures: dict[str, Any], says: str
) -> None:
    driver.agent("odd")(lambda request, ctx: AgentOutput(1, **figures))
    session = driver.start(step("a", "odd"))
    assert driver.run_to_end(session) == "failed"
    assert f"AgentError: step a answered with {says}" in session.error
