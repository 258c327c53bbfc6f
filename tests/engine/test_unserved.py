"""Steps whose agent the worker at hand does not know."""

from __future__ import annotations

import time

import invariants
import pytest
from driver import Driver

from celeriac import step
from celeriac.errors import AgentNotFound
from celeriac.orchestration import unserved
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.engine import Lost
from celeriac.orchestration.unserved import NotServed, Unserved
from celeriac.storage import workers


def forget_agents(driver: Driver) -> None:
    """From here on the engine is that of a worker of an older release."""
    driver.engine.registry = Registry()


def test_a_step_is_put_back_uncounted_and_says_why(driver: Driver) -> None:
    driver.agent("new")(lambda request, ctx: 1)
    session = driver.start(step("a", "new"))
    known, lacking = driver.engine.registry, Unserved(driver.engine)
    forget_agents(driver)
    work = driver.engine.claim(session.id)
    assert work is not None
    with pytest.raises(NotServed, match="no agent 'new'; known: none"):
        lacking.admit(work)
    assert [(view["status"], view["attempts"]) for view in session.steps()] == [("ready", 0)]
    told = [event for event in session.stream(follow=False) if event.type == "step.unserved"]
    assert [event.data["agent"] for event in told] == ["new"]
    assert driver.engine.claim(session.id) is None  # not at once
    with pytest.raises(Lost):
        lacking.admit(work)
    driver.engine.registry = known
    time.sleep(unserved.FIRST_DELAY * 1.3)
    work = driver.engine.claim(session.id)
    assert work is not None
    lacking.admit(work)
    invariants.check(driver.engine)


def test_it_fails_when_no_worker_has_known_its_agent_for_so_long(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unserved, "FIRST_DELAY", 0.05)
    driver.agent("new")(lambda request, ctx: 1)
    session = driver.start(step("a", "new"))
    forget_agents(driver)
    driver.engine.settings = driver.engine.settings.model_copy(update={"unserved_seconds": 0.4})
    engine = driver.engine
    engine.database.write(lambda tx: workers.seen(tx, "other", "other", 1, "celeriac", ["new", "list"]))
    lacking, began, times = Unserved(engine), time.monotonic(), 0
    while True:
        assert time.monotonic() - began < 5
        if time.monotonic() - began > 1.0:  # the worker that knows it is gone
            engine.database.write(lambda tx: workers.gone(tx, "other"))
        work = driver.engine.claim(session.id)
        if work is None:
            time.sleep(0.01)
            continue
        try:
            lacking.admit(work)
        except NotServed:
            times += 1
            continue
        break
    assert 1.0 <= time.monotonic() - began < 2.5 and 4 <= times <= 40
    with pytest.raises(AgentNotFound):
        driver.engine.registry.get("new")


def test_a_meeting_of_long_ago_does_not_count(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking, clock = Unserved(driver.engine), [1000.0]
    monkeypatch.setattr(unserved.time, "monotonic", lambda: clock[0])
    waited = []
    for at in (1000, 1200, 1400, 5000, 5010):
        clock[0] = at
        waited.append(lacking._waited(("s", 1, 1), limit=300))
    assert waited == [0, 200, 400, 0, 10]


def test_a_fan_out_that_such_a_worker_opens_is_run_as_its_agent_says(driver: Driver) -> None:
    driver.agent("list")(lambda request, ctx: [1, 2])
    driver.agent("new", retries=3, timeout=7.0, queue="gpu", priority=4)(lambda request, ctx: request)
    inner = step("inside", plan=[step("x", "new", {"v": 1})], after=["l"])
    session = driver.start(step("l", "list"), step("a", "new", [], each="${l}"), inner)
    known, old = driver.engine.registry, Registry()
    old.add(known.get("list"))
    driver.engine.registry = old
    work = driver.engine.claim(session.id)
    assert work is not None
    driver.engine.finish(work, driver.call(work))
    rows = {view["name"]: view for view in session.steps()}
    assert [rows[name]["status"] for name in ("a-0", "a-1", "inside/x")] == ["ready"] * 3
    driver.engine.registry = known
    claims = [driver.engine.claim(session.id, "gpu") for _ in range(3)]
    assert [(w.claimed.retries, w.claimed.timeout) for w in claims if w] == [(3, 7.0)] * 3
    assert [w.request for w in claims if w] == [[], [], {"v": 1}]
