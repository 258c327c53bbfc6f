"""Equal requests at once: one is run, the others wait and hold no worker. And answers that are stale."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import invariants
import pytest
from driver import Driver
from sqlalchemy import text

from cache.conftest import Cached, drivers
from celeriac import step
from celeriac.orchestration.cache import refreshing, sharing
from celeriac.orchestration.cache.refreshing import Refresher
from celeriac.orchestration.engine import Work
from celeriac.orchestration.session import Session
from celeriac.storage import steps


@pytest.fixture
def workers(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Cached]]:
    """Makes drivers over SQLite, and over PostgreSQL."""
    with drivers(database_url, tmp_path / "data") as new:
        yield new


def done(session: Session) -> dict[str, Any]:
    """What the event of the last step that was done says."""
    return [e.data for e in session.stream(follow=False) if e.type == "step.done"][-1]


def together(*drivers: Cached, sessions: list[Session], seconds: float = 20.0) -> None:
    """Run these sessions with a thread for each driver until all have ended."""

    def run(driver: Cached) -> None:
        until = time.monotonic() + seconds
        while any(s.status == "active" for s in sessions):
            assert time.monotonic() < until, [s.status for s in sessions]
            for session in sessions:
                driver.run(session)
            time.sleep(0.01)

    faults: list[BaseException] = []

    def guarded(driver: Cached) -> None:
        try:
            run(driver)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def slow(*drivers: Cached, seconds: float = 0.3, fails: int = 0, **options: Any) -> list[float]:
    """Register an agent that takes a while; gives when it was run, and fails the first times."""
    runs: list[float] = []

    def work(request: Any, ctx: Any) -> str:
        runs.append(time.time())
        number = len(runs)
        time.sleep(seconds)
        if number <= fails:
            raise ValueError("no")
        return "slow"

    for driver in drivers:
        driver.agent("slow", cache_ttl=60, **options)(work)
    return runs


def test_equal_requests_at_once_are_run_once_and_the_others_hold_no_worker(workers: Callable[..., Cached]) -> None:
    a, b = workers(), workers()
    runs = slow(a, b, seconds=1.5)
    others: list[float] = []
    for driver in (a, b):
        driver.agent("quick")(lambda request, ctx: others.append(time.time()))
    sessions = [a.start(step("a", "slow", 1)) for _ in range(5)] + [a.start(step("q", "quick"))]
    together(a, b, sessions=sessions)
    assert len(runs) == 1
    assert others[0] < runs[0] + 1.4, "the worker that did not run the slow step was held up"
    assert [s.result for s in sessions[:5]] == ["slow"] * 5
    assert sum(s.steps()[0]["cached"] for s in sessions[:5]) == 4
    assert {s.steps()[0]["attempts"] for s in sessions[:5]} == {1}
    waited = [s for s in sessions[:5] if "step.waiting" in a.events(s)]
    assert waited and a.cache.stats()["waited"] + b.cache.stats()["waited"] >= len(waited)
    ends = [s.to_dict()["completed_at"] for s in sessions[:5]]
    print(f"from the first to the last: {min(ends)} {max(ends)}")
    invariants.check(a.engine)


def test_members_of_one_fan_out_share_a_run(workers: Callable[..., Cached]) -> None:
    a, b = workers(), workers()
    runs = slow(a, b, seconds=0.2)
    for driver in (a, b):
        driver.agent("list")(lambda request, ctx: [1] * 6)
    session = a.start(step("l", "list"), step("each", "slow", 7, each="${l}"))
    together(a, b, sessions=[session])
    assert len(runs) == 1 and session.result == ["slow"] * 6


def test_when_the_first_fails_one_of_the_others_takes_over(workers: Callable[..., Cached]) -> None:
    a, b = workers(), workers()
    runs = slow(a, b, fails=1)
    sessions = [a.start(step("a", "slow")) for _ in range(4)]
    began = time.monotonic()
    together(a, b, sessions=sessions)
    assert time.monotonic() - began < 3, "they waited until they looked by themselves"
    assert sorted(s.status for s in sessions) == ["completed"] * 3 + ["failed"]
    assert len(runs) == 2 and runs[1] > runs[0] + 0.25
    invariants.check(a.engine)


def test_a_worker_that_is_gone_blocks_nobody(workers: Callable[..., Cached], monkeypatch: Any) -> None:
    monkeypatch.setattr(sharing, "LOOK_AGAIN", 0.2)
    dead, alive = workers(), workers()
    runs = slow(dead, alive, seconds=0.0)
    first, second = dead.start(step("a", "slow")), dead.start(step("a", "slow"))
    work = dead.engine.claim(first.id)
    assert work is not None and dead.cached.look(work, dead.registry.get("slow"), frozenset()) is None
    began = time.monotonic()
    alive.run(second)
    assert alive.states(second) == {"a": "ready"} and runs == []
    dead.engine.database.write(lambda tx: sweep_up(tx, work))
    assert alive.run_to_end(second) == "completed" and len(runs) == 1
    assert time.monotonic() - began < 5


def test_what_lost_flights_leave_behind_is_tidied_up(workers: Callable[..., Cached]) -> None:
    a = workers()
    slow(a, seconds=0.0)
    first, second = a.start(step("a", "slow")), a.start(step("a", "slow"))
    work = a.engine.claim(first.id)
    assert work is not None and a.cached.look(work, a.registry.get("slow"), frozenset()) is None
    a.run(second)

    def rows() -> list[int]:
        tables = ("cache_flights", "cache_waiters")
        return [a.engine.database.read(lambda tx, t=t: tx.value(text(f"SELECT count(*) FROM {t}"))) for t in tables]

    a.cache.tidy()
    assert rows() == [1, 1]
    first.cancel()
    second.cancel()
    a.cache.tidy()
    assert rows() == [0, 0]


def sweep_up(tx: Any, work: Work) -> None:
    assert steps.take_back(tx, work.claimed, "ready", "lost")


def test_nobody_waits_for_an_answer_that_is_not_for_others(workers: Callable[..., Cached]) -> None:
    a, b, c = workers(), workers(), workers()
    runs: list[float] = []

    def personal(request: Any, ctx: Any) -> str:
        runs.append(time.time())
        time.sleep(0.4)
        return str(ctx.session.user)

    for driver in (a, b, c):
        driver.agent("personal", cache_ttl=60)(personal)
    sessions = [a.start(step("a", "personal"), user=f"u{n}") for n in range(6)]
    together(a, b, c, sessions=sessions)
    assert [s.result for s in sessions] == [f"u{n}" for n in range(6)]
    assert max(runs) - min(runs) < 5 * 0.4, "they were run one after the other"


def test_a_step_that_waits_can_be_paused_and_cancelled(workers: Callable[..., Cached]) -> None:
    a = workers()
    slow(a, seconds=0.0)
    first, second, third = (a.start(step("a", "slow")) for _ in range(3))
    work = a.engine.claim(first.id)
    assert work is not None and a.cached.look(work, a.registry.get("slow"), frozenset()) is None
    assert a.run(second) == a.run(third) == 1
    second.pause()
    third.cancel()
    output = Driver.call(a, work)
    a.engine.finish(work, output)
    assert a.run(second) == 0 and third.status == "cancelled"
    second.resume()
    assert a.run_to_end(second) == "completed" and second.steps()[0]["cached"]


def test_a_stale_answer_is_given_at_once_and_made_anew_once_in_the_background(workers: Callable[..., Cached]) -> None:
    a, b = workers(), workers()
    runs: list[Any] = []

    def news(request: Any, ctx: Any) -> int:
        runs.append(request)
        time.sleep(0.2 if len(runs) > 1 else 0)
        return len(runs)

    for driver in (a, b):
        driver.agent("news", cache_ttl=0.3, cache_stale=60)(news)

    def ask(driver: Cached) -> Any:
        session = driver.start(step("a", "news"))
        began = time.monotonic()
        driver.run_to_end(session)
        return session.result, done(session).get("cached", {}).get("stale"), time.monotonic() - began

    assert ask(a)[:2] == (1, None)
    time.sleep(0.35)
    for driver in (a, b, a, b):
        result, stale, took = ask(driver)
        assert (result, stale) == (1, True) and took < 0.2
    time.sleep(0.3)
    assert ask(b)[0] == 2 and len(runs) == 2
    a.cache.flush()
    assert b.cache.stats()["refreshed"] == 1


def test_a_refresh_that_fails_leaves_the_stale_answer(workers: Callable[..., Cached]) -> None:
    a = workers()
    runs: list[Any] = []

    @a.agent("news", cache_ttl=0.1, cache_stale=60)
    def news(request: Any, ctx: Any) -> int:
        runs.append(request)
        if len(runs) == 2:
            raise ValueError("no news")
        return len(runs)

    results = []
    for _ in range(4):
        session = a.start(step("a", "news"))
        a.run_to_end(session)
        results.append(session.result)
        time.sleep(0.15)
    assert results == [1, 1, 1, 3]


def test_two_threads_may_be_the_first_to_refresh(workers: Callable[..., Cached], monkeypatch: Any) -> None:
    a = workers()
    slow(a)
    session = a.start(step("a", "slow"))
    work = a.engine.claim(session.id)
    assert work is not None
    refresher, real = Refresher(a.engine, a.cache), queue.Queue
    made: list[int] = []
    faults: list[Exception] = []

    def refresh() -> None:
        try:
            refresher.refresh(work, a.registry.get("slow"), frozenset(), a.cache.key("slow", {}, permissions=[]))
        except Exception as fault:
            faults.append(fault)

    def new_queue(size: int) -> queue.Queue[Any]:
        made.append(size)
        if len(made) == 1:  # just now the other one comes
            other = threading.Thread(target=refresh)
            other.start()
            other.join()
        return real(size)

    monkeypatch.setattr(refreshing.queue, "Queue", new_queue)
    monkeypatch.setattr(Refresher, "_refresh", lambda *_: None)
    refresh()
    assert not faults
