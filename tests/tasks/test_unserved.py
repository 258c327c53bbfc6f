"""T17, a rolling deploy: workers that lack an agent leave its steps to those that have it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from servers import RedisServer

from celeriac import Celeriac
from tasks.conftest import fan
from tasks.processes import Worker, ended, until


def test_T17_steps_that_an_old_worker_cannot_run_wait_for_a_new_one(
    tmp_path: Path, own_redis: RedisServer, client: Callable[..., Celeriac]
) -> None:
    settings = {"broker_url": own_redis.url, "sweep_seconds": 0.2}
    c = client(tmp_path, **settings)
    old = Worker(tmp_path, "-c", "2", name="old", **settings | {"agents": "old_agents"})
    with ended(old):
        began = time.monotonic()
        session = c.sessions.start(fan(40))  # it is the old worker that opens the fan-out

        def unserved() -> int:
            return sum(event.type == "step.unserved" for event in session.stream(follow=False))

        until(lambda: unserved() >= 3, 30)
        new = Worker(tmp_path, "-c", "2", name="new", **settings)
        with ended(new):
            assert session.wait(60) == "completed"
    steps = session.steps()
    assert {step["attempts"] for step in steps if step["agent"] == "edge.inc"} == {1}
    assert len(session.result) == 40 and all(one["n"] == 1 for one in session.result)
    assert unserved() < 40 * (time.monotonic() - began)  # some a sweep, not as fast as they can be claimed
    assert "Traceback" not in old.log


def test_a_step_that_no_worker_can_run_fails_in_the_end_and_says_what_is_known(
    tmp_path: Path, own_redis: RedisServer, client: Callable[..., Celeriac]
) -> None:
    settings = {"broker_url": own_redis.url, "sweep_seconds": 0.2, "unserved_seconds": 1.5}
    c = client(tmp_path, **settings)
    session = c.sessions.start(fan(1))
    with ended(Worker(tmp_path, "-c", "1", name="old", **settings | {"agents": "old_agents"})):
        assert session.wait(20) == "failed"
    assert "no agent 'edge.inc'; known: " in session.error and "edge.list" in session.error
