"""Durable calls inside an agent: recorded once, given again when the agent runs anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driver import Driver
from pydantic import BaseModel

from celeriac import AgentOutput
from celeriac.errors import CallFailed
from celeriac.orchestration import sweeping
from celeriac.orchestration.agents import Finding
from celeriac.orchestration.plans import step
from celeriac.orchestration.session import Session


class Crash(Exception):
    """Ends an attempt."""


def crash_after(driver: Driver, attempts: int, agent: Callable[[Any, Any], Any]) -> None:
    """Register `caller`, whose first attempts raise after the calls that `agent` makes."""

    @driver.agent("caller", retries=attempts, backoff=0.001)
    def caller(request: Any, ctx: Any) -> Any:
        answer = agent(request, ctx)
        if ctx.attempt <= attempts:
            raise Crash(ctx.attempt)
        return answer


def done(driver: Driver, session: Session) -> Any:
    assert driver.run_to_end(session) == "completed", session.error
    return session.result


def test_what_a_function_gave_is_recorded_and_given_again(driver: Driver) -> None:
    made: list[int] = []

    def count(by: int, *, times: int = 1) -> dict[str, int]:
        made.append(by)
        return {"by": by * times}

    crash_after(driver, 2, lambda request, ctx: [ctx.once("count", count, n, times=10) for n in range(3)])
    session = driver.start(step("a", "caller"))
    assert done(driver, session) == [{"by": 0}, {"by": 10}, {"by": 20}]
    assert made == [0, 1, 2]
    assert driver.states(session) == dict.fromkeys(["a", "a/0-count", "a/1-count", "a/2-count"], "done")
    assert [e.step for e in session.stream(follow=False) if e.type == "step.done"] == [
        "a/0-count",
        "a/1-count",
        "a/2-count",
        "a",
    ]


def test_an_agent_that_is_called_is_a_step_of_its_own_and_is_not_asked_twice(driver: Driver) -> None:
    asked: list[Any] = []

    @driver.agent("find", version="2")
    def find(request: Any, ctx: Any) -> AgentOutput:
        asked.append(request)
        return AgentOutput({"found": request["what"], "by": ctx.step}, [Finding("e", "a", 1)], cost=0.5)

    crash_after(
        driver,
        1,
        lambda request, ctx: [ctx.call("find", {"what": "${x}"}), ctx.call("find", {"what": 2}, name="again")],
    )
    session = driver.start(step("a", "caller"), step("b", "echo", "${a}"))
    results = [{"found": "${x}", "by": "a/0-find"}, {"found": 2, "by": "a/1-again"}]
    assert done(driver, session) == results
    assert asked == [{"what": "${x}"}, {"what": 2}]
    views = {view["name"]: view for view in session.steps()}
    assert views["a"]["attempts"] == 2 and views["a/0-find"]["attempts"] == views["a/1-again"]["attempts"] == 1
    assert views["a/0-find"]["agent"] == "find" and len(session.findings()) == 2
    assert session.result == results and session.progress == 1.0


def test_a_call_that_fails_is_made_again_as_its_agent_says_and_then_raises(driver: Driver) -> None:
    tries: list[int] = []

    @driver.agent("flaky", retries=2, backoff=0.01)
    def flaky(request: Any, ctx: Any) -> str:
        tries.append(ctx.attempt)
        if ctx.attempt < request:
            raise ValueError(f"attempt {ctx.attempt}")
        return "well"

    @driver.agent("caller", retries=3, backoff=0.001)
    def caller(request: Any, ctx: Any) -> Any:
        try:
            return ctx.call("flaky", request)
        except CallFailed as fault:
            return str(fault)

    assert done(driver, driver.start(step("a", "caller", 3))) == "well"
    assert tries == [1, 2, 3]
    session = driver.start(step("a", "caller", 9))
    assert "'flaky' of step a has failed: ValueError: attempt 3" in done(driver, session)
    assert session.error is None and driver.states(session) == {"a": "done", "a/0-flaky": "failed"}


def test_a_caller_that_lets_a_failure_through_fails_and_both_can_be_retried(driver: Driver) -> None:
    broken = [True]

    @driver.agent("frail")
    def frail(request: Any, ctx: Any) -> str:
        if broken[0]:
            raise ValueError("broken")
        return "mended"

    made: list[str] = []
    driver.agent("caller", retries=5)(lambda request, ctx: [ctx.once("x", made.append, "x"), ctx.call("frail")])
    session = driver.start(step("a", "caller"))
    assert driver.run_to_end(session) == "failed"
    assert "CallFailed" in session.error and driver.states(session)["a"] == "failed"
    broken[0] = False
    assert session.retry() == 2
    assert done(driver, session) == [None, "mended"] and made == ["x"]


@pytest.mark.parametrize("second", ["another name", "another request", "another kind"])
def test_other_calls_than_were_recorded_are_a_clear_error_and_no_wrong_result(driver: Driver, second: str) -> None:
    @driver.agent("caller", retries=3, backoff=0.001)
    def caller(request: Any, ctx: Any) -> Any:
        if ctx.attempt == 1:
            ctx.once("first", int, 1)
            raise Crash
        if second == "another kind":
            return ctx.call("echo", 1, name="first")
        return ctx.once("other" if second == "another name" else "first", int, 2)

    session = driver.start(step("a", "caller"))
    assert driver.run_to_end(session) == "failed"
    assert "CallMismatch: call 1 of step a is" in session.error and "'a/0-first'" in session.error
    assert session.steps()[0]["attempts"] == 2


def test_calls_of_an_async_agent_are_awaited_and_may_be_made_at_once(driver: Driver) -> None:
    made: list[int] = []

    async def slow(n: int) -> int:
        await asyncio.sleep(0.01 * (3 - n))
        made.append(n)
        return n

    @driver.agent("caller", retries=1, backoff=0.001)
    async def caller(request: Any, ctx: Any) -> Any:
        several = await asyncio.gather(*(ctx.once("slow", slow, n) for n in range(3)), ctx.call("echo", "e"))
        plain = await ctx.once("plain", lambda: "p")
        if ctx.attempt == 1:
            raise Crash
        return [*several, plain]

    session = driver.start(step("a", "caller"))
    assert done(driver, session) == [0, 1, 2, "e", "p"]
    assert made == [2, 1, 0]


def test_an_agent_that_is_called_can_call(driver: Driver) -> None:
    made: list[int] = []

    @driver.agent("deep")
    def deep(n: Any, ctx: Any) -> Any:
        ctx.once("note", made.append, n)
        return [n] + (ctx.call("deep", n - 1) if n else [])

    session = driver.start(step("a", "deep", 3))
    assert done(driver, session) == [3, 2, 1, 0] and made == [3, 2, 1, 0]
    assert "a/1-deep/1-deep/1-deep/0-note" in driver.states(session)


def test_a_call_whose_worker_was_lost_is_made_by_whoever_comes_first(
    driver: Driver, make_driver: Callable[..., Driver]
) -> None:
    asked: list[str] = []

    def agents(one: Driver, dies: bool) -> None:
        @one.agent("child")
        def child(request: Any, ctx: Any) -> str:
            asked.append(ctx.step)
            if dies:
                raise SystemExit
            return "answer"

        @one.agent("caller")
        def caller(request: Any, ctx: Any) -> Any:
            return [ctx.once("n", lambda: len(asked)), ctx.call("child")]

    agents(driver, dies=True)
    session = driver.start(step("a", "caller"))
    with pytest.raises(SystemExit):
        driver.run(session)
    other = make_driver()
    agents(other, dies=False)
    states = lambda: set(other.states(session).values())  # noqa: E731
    while "running" in states():
        sweeping.sweep(other.engine)
    assert other.run_to_end(session) == "completed"
    assert session.result == [0, "answer"] and asked == ["a/1-child"] * 2


def test_a_caller_that_was_taken_over_records_nothing_more(driver: Driver, make_driver: Callable[..., Driver]) -> None:
    other = make_driver()

    @driver.agent("caller")
    def caller(request: Any, ctx: Any) -> str:
        with other.engine.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE steps SET lease_until = 0 WHERE status = 'running'")
        sweeping.sweep(other.engine)
        ctx.once("late", lambda: "late")
        return "never"

    session = driver.start(step("a", "caller"))
    assert driver.perform(driver.engine.claim(session.id)) is None  # type: ignore[arg-type]
    assert driver.states(session) == {"a": "ready"}
    session.cancel()


def test_a_session_that_is_paused_lets_the_calls_of_a_running_step_be_made(driver: Driver) -> None:
    @driver.agent("caller")
    def caller(request: Any, ctx: Any) -> Any:
        session.pause()
        return [ctx.once("a", lambda: 1), ctx.call("echo", 2)]

    session = driver.start(step("a", "caller"), step("b", "echo", "${a}"))
    driver.run(session)
    assert session.status == "paused"
    session.resume()
    assert done(driver, session) == [1, 2]


def test_a_checkpoint_keeps_calls_and_going_back_drops_later_ones(driver: Driver) -> None:
    made: list[str] = []

    @driver.agent("caller")
    def caller(request: Any, ctx: Any) -> Any:
        return [ctx.once("a", lambda: made.append("a") or len(made)), ctx.call("echo", request)]

    session = driver.start(step("a", "caller", 1), step("b", "caller", 2, after=["a"]))
    start = session.checkpoint("start")
    assert done(driver, session) == [2, 2] and made == ["a", "a"]
    middle = next(c["id"] for c in session.checkpoints() if c["seq"] >= _seq(session, "step.done", "a"))
    undo = session.restore(middle)
    assert driver.states(session)["a"] == "done" and "b/0-a" not in driver.states(session)
    session.resume()
    assert done(driver, session) == [3, 2]
    session.restore(undo)
    assert session.status == "completed" and session.result == [2, 2]
    session.restore(start)
    session.resume()
    assert done(driver, session) == [5, 2]


def _seq(session: Session, type_: str, name: str) -> int:
    return next(e.seq for e in session.stream(follow=False) if (e.type, e.step) == (type_, name))


class Later:
    def __await__(self) -> Iterator[None]:
        yield


class Ask(BaseModel):
    what: str


def test_models_can_be_asked_with(driver: Driver) -> None:
    driver.agent("caller")(lambda request, ctx: ctx.call("echo", Ask(what="this")))
    assert done(driver, driver.start(step("a", "caller"))) == {"what": "this"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda ctx: ctx.once("", int), "no name of a call"),
        (lambda ctx: ctx.once("a/b", int), "no name of a call"),
        (lambda ctx: ctx.once("x" * 101, int), "no name of a call"),
        (lambda ctx: ctx.once(7, int), "no name of a call"),
        (lambda ctx: ctx.call("nobody"), "names the agent 'nobody'; known: "),
        (lambda ctx: ctx.call("echo", {"x": object()}), "NotSerializable"),
        (lambda ctx: ctx.once("bad", object), "result of call 'bad'"),
        (lambda ctx: ctx.once("later", Later), "only an async agent"),
    ],
)
def test_a_call_that_cannot_be_is_refused(driver: Driver, call: Callable[[Any], Any], says: str) -> None:
    driver.agent("caller")(lambda request, ctx: call(ctx))
    session = driver.start(step("a", "caller"))
    assert driver.run_to_end(session) == "failed" and says in session.error


def test_a_large_result_of_a_call_is_a_blob_and_a_thousand_calls_are_read_in_parts(driver: Driver) -> None:
    made: list[int] = []

    def note(n: int) -> Any:
        made.append(n)
        return "x" * (2 << 20) if n == 3 else n

    crash_after(driver, 1, lambda request, ctx: [len(str(ctx.once("n", note, n))) for n in range(450)])
    session = driver.start(step("a", "caller"))
    assert len(done(driver, session)) == 450 and session.result[3] == 2 << 20
    assert made == list(range(450))
