"""Workers that stop, are stopped, or die: what they were running goes on elsewhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer, RedisServer

from celeriac.storage import workers
from tasks.conftest import chain, fan, one
from tasks.processes import Worker, ended, until


def _running(session: Any, many: int = 1) -> None:
    until(lambda: sum(s["status"] == "running" for s in session.steps()) == many)


def _attempts(session: Any) -> int:
    return max(s["attempts"] for s in session.steps())


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_finishes_what_runs_and_claims_nothing_more(
    pool: str, tmp_path: Path, own_redis: RedisServer, client: Any
) -> None:
    settings = {"broker_url": own_redis.url}
    worker = Worker(tmp_path, "-c", "2", "-P", pool, **settings)
    with ended(worker):
        session = client(tmp_path, **settings).sessions.start(fan(10, "edge.nap", s=0.7))
        _running(session, 2)
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(10) == 0
        states = [s["status"] for s in session.steps() if s["agent"] == "edge.nap"]
        assert sorted(states) == ["done"] * 2 + ["ready"] * 8
        assert own_redis.client().llen("celeriac") > 0, "nobody else is told of what is left"
        assert "Traceback" not in worker.log


def test_a_cold_shutdown_hands_its_steps_to_others_at_once(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    settings = {"broker_url": own_redis.url}
    first = Worker(tmp_path, "-c", "2", name="first", **settings)
    with ended(first):
        session = client(tmp_path, **settings).sessions.start(fan(2, "edge.slow_once", folder=str(tmp_path)))
        _running(session, 2)
        second = Worker(tmp_path, "-c", "2", name="second", **settings)
        with ended(second):
            _running(session, 2)
            began = time.monotonic()
            first.signal(signal.SIGQUIT)
            first.process.wait(10)
            assert session.wait(10) == "completed"
            print(f"cold shutdown to the end elsewhere: {time.monotonic() - began:.2f} s with a lease of 30 s")
            assert time.monotonic() - began < 3
            assert _attempts(session) == 1, "a step that was given back must not count as an attempt"
            assert "Traceback" not in second.log


def test_what_an_agent_had_in_its_memory_when_its_worker_was_stopped_reaches_the_next_one(
    tmp_path: Path, own_redis: RedisServer, client: Any
) -> None:
    settings = {"broker_url": own_redis.url}
    first = Worker(tmp_path, "-c", "1", name="first", **settings)
    with ended(first):
        session = client(tmp_path, **settings).sessions.start(one("edge.remembers", folder=str(tmp_path)))
        until((tmp_path / "begun").exists)
        first.signal(signal.SIGQUIT)
        first.process.wait(10)
        with ended(Worker(tmp_path, "-c", "1", name="second", **settings)):
            assert session.wait(10) == "completed"
            assert session.result == {"left": {"page": 7}, "memory": {}}
            assert session.agent_states()["edge.remembers"]["state"] == {}


def test_a_killed_childs_step_is_run_again_at_once(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    settings = {"broker_url": own_redis.url, "lease_seconds": 30}
    worker = Worker(tmp_path, "-c", "2", **settings)
    with ended(worker):
        session = client(tmp_path, **settings).sessions.start(one("edge.dies"))
        began = time.monotonic()
        assert session.wait(10) == "completed"
        print(f"child killed to step done: {time.monotonic() - began:.2f} s with a lease of 30 s")
        assert time.monotonic() - began < 2 and _attempts(session) == 2


@pytest.mark.parametrize("same_folder", [True, False], ids=["same data_dir", "another data_dir"])
def test_a_killed_workers_steps_are_run_again(
    same_folder: bool, tmp_path: Path, own_redis: RedisServer, postgres_server: PostgresServer, client: Any
) -> None:
    url = postgres_server.create_database(f"leaving_{int(same_folder)}_{os.getpid()}")
    settings = {"broker_url": own_redis.url, "database_url": url, "lease_seconds": 2, "sweep_seconds": 0.3}
    first = Worker(tmp_path / "a", "-c", "1", name="first", **settings)
    with ended(first):
        session = client(tmp_path / "a", **settings).sessions.start(chain(2, "edge.nap", s=0.6))
        _running(session)
        first.kill()
        second = Worker(tmp_path / ("a" if same_folder else "b"), "-c", "1", name="second", **settings)
        with ended(second):
            began = time.monotonic()
            assert session.wait(15) == "completed"
            took = time.monotonic() - began
            print(f"both steps done {took:.2f} s after a new worker, same data_dir: {same_folder}, lease 2 s")
            assert took < (2.2 if same_folder else 5)


def test_workers_are_listed_while_they_live(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    settings = {"broker_url": own_redis.url}
    c = client(tmp_path, **settings)
    worker = Worker(tmp_path, "-c", "3", **settings)
    with ended(worker):
        (row,) = c.engine.database.read(workers.listing)
        assert row["slots"] == 3 and str(worker.pid) in row["name"]
        worker.stop()
        assert c.engine.database.read(workers.listing) == []


def test_a_worker_whose_agents_cannot_be_imported_says_so_and_ends(tmp_path: Path, own_redis: RedisServer) -> None:
    with pytest.raises(AssertionError, match="celeriac: agents names the module 'nowhere'"):
        Worker(tmp_path, "-c", "1", broker_url=own_redis.url, agents="nowhere")
