"""Time limits and cancelling: agents that do not look are interrupted, and those that heed nothing are given up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac import Celeriac, Plan, step
from tasks.conftest import chain, one
from tasks.processes import Worker, ended, until


class Pool:
    def __init__(self, kind: str, worker: Worker, c: Celeriac) -> None:
        self.kind, self.worker, self.c = kind, worker, c


@pytest.fixture(scope="module", params=["prefork", "threads"])
def pool(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pool]:
    server = RedisServer()
    server.start()
    folder = tmp_path_factory.mktemp(request.param)
    worker = Worker(folder, "-c", "2", "-P", request.param, broker_url=server.url)
    c = Celeriac(data_dir=folder / "data", agents=["edge_agents"], broker_url=server.url)
    with ended(worker):
        yield Pool(request.param, worker, c)
    c.close()
    server.close()


@pytest.mark.parametrize("how", ["sleep", "loop", "check"])
def test_an_agent_that_runs_past_its_limit_is_ended(how: str, pool: Pool) -> None:
    if (pool.kind, how) == ("threads", "sleep"):
        pytest.skip("a thread that sleeps cannot be interrupted before it wakes")
    session = pool.c.sessions.start(one("edge.limited", how=how))
    began = time.monotonic()
    assert session.wait(10) == "failed"
    print(f"{pool.kind}, {how}: limit of 0.5 s took {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 1.2
    assert "StepTimeout" in session.error and "0.5 s" in session.error


def test_a_call_that_runs_past_its_limit_is_ended_and_its_caller_goes_on(pool: Pool) -> None:
    session = pool.c.sessions.start(one("edge.caller", of="edge.limited", how="loop"))
    assert session.wait(10) == "completed"
    assert "has failed: StepTimeout: ran past its limit of 0.5 s" in session.result


def test_a_caller_that_runs_past_its_limit_is_ended_within_its_call_which_is_cancelled(pool: Pool) -> None:
    session = pool.c.sessions.start(one("edge.impatient"))
    assert session.wait(10) == "failed"
    assert "StepTimeout" in session.error
    assert [view["status"] for view in session.steps()] == ["failed", "cancelled"]


@pytest.mark.parametrize("how", ["sleep", "loop"])
def test_cancelling_interrupts_an_agent(how: str, pool: Pool) -> None:
    if (pool.kind, how) == ("threads", "sleep"):
        pytest.skip("a thread that sleeps cannot be interrupted before it wakes")
    session = pool.c.sessions.start(one("edge.endless", how=how))
    until(lambda: session.steps()[0]["status"] == "running")
    session.cancel()
    began = time.monotonic()
    # The slots are free again when two other steps can run at once.
    both = pool.c.sessions.start(Plan("two", [step("a", "edge.nap", {"s": 0.2}), step("b", "edge.nap", {"s": 0.2})]))
    assert both.wait(10) == "completed"
    steps = {s["name"]: s for s in both.steps()}
    print(f"{pool.kind}, {how}: cancelled agent gone after at most {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 2.5, steps
    assert session.status == "cancelled"


def test_a_step_that_ends_near_its_limit_disturbs_no_other(pool: Pool) -> None:
    """The interrupt must hit the step that it is meant for, or nothing."""
    sessions = [
        pool.c.sessions.start(
            Plan("near", [step("a", "edge.nap", {"s": 0.1 + n * 0.004}, timeout=0.12), step("b", "edge.inc", {})])
        )
        for n in range(12)
    ]
    for session in sessions:
        session.wait(15)
        steps = {s["name"]: s["status"] for s in session.steps()}
        assert steps["b"] == "done" and steps["a"] in ("done", "failed"), (steps, session.error)


def test_a_stubborn_agent_is_given_up_and_its_slot_replaced(pool: Pool) -> None:
    if pool.kind == "threads":
        pytest.skip("a thread cannot be replaced: its slot is lost until the agent ends")
    before = set(pool.worker.children())
    session = pool.c.sessions.start(one("edge.stubborn", s=9))
    began = time.monotonic()
    assert session.wait(15) == "failed"
    assert 5 < time.monotonic() - began < 7.5 and "did not stop" in session.error
    assert pool.c.sessions.start(chain(3)).wait(10) == "completed"
    until(lambda: len(set(pool.worker.children())) == len(before) and set(pool.worker.children()) != before)


def test_a_limit_of_the_worker_itself_holds_for_steps(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    worker = Worker(tmp_path, "-c", "1", "--soft-time-limit", "1", broker_url=own_redis.url)
    with ended(worker):
        c = client(tmp_path, broker_url=own_redis.url)
        chained = c.sessions.start(chain(3, "edge.nap", s=0.6))
        assert chained.wait(10) == "completed", "each step has the whole limit"
        session = c.sessions.start(one("edge.endless", how="sleep"))
        assert session.wait(10) == "failed" and "limit" in session.error


def test_what_is_taken_back_leaves_the_thread_as_it_was() -> None:
    code = """
import sys, threading
from celeriac.errors import StepCancelled
from celeriac.orchestration.interrupting import raise_in_thread
me = threading.get_ident()
for _ in range(100):
    raise_in_thread(me, None)
sys.settrace(lambda *_: None)
def traced(): return "begins and ends"
print(traced())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True).stdout
    assert said == "begins and ends\n"
