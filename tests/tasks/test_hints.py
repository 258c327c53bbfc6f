"""Hints: what goes over the broker, how little of it, and that nothing it brings can do harm."""

from __future__ import annotations

import base64
import json
import pickle
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac import Celeriac
from tasks.conftest import chain, fan, one
from tasks.processes import Worker, ended, until


class Fleet:
    """Our own app with one worker of two children, and a client that counts what it publishes."""

    def __init__(self, folder: Path, server: RedisServer, **settings: Any) -> None:
        self.server, self.folder = server, folder
        self.settings = {"broker_url": server.url, **settings}
        self.c = Celeriac(data_dir=folder / "data", agents=["edge_agents"], **self.settings)

    def worker(self, *options: str, name: str = "worker") -> Worker:
        return Worker(self.folder, "-c", "2", *options, name=name, **self.settings)

    def pushed(self) -> int:
        """How many messages have been pushed to Redis lists since it started."""
        stats = self.server.client().info("commandstats")
        return int(stats.get("cmdstat_lpush", {"calls": 0})["calls"])


@pytest.fixture(scope="module")
def fleet(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    server = RedisServer()
    server.start()
    made = Fleet(tmp_path_factory.mktemp("fleet"), server, sweep_seconds=0.5)
    worker = made.worker("-E")
    with ended(worker):
        made.worker_process = worker  # type: ignore[attr-defined]
        yield made
    made.c.close()
    server.close()


def test_a_chain_goes_on_without_the_broker(fleet: Fleet) -> None:
    assert fleet.c.sessions.start(one("edge.inc")).wait(10) == "completed"
    before = fleet.pushed()
    session = fleet.c.sessions.start(chain(60))
    assert session.wait(15) == "completed"
    assert fleet.pushed() - before <= 2


def test_a_fan_out_of_two_hundred_publishes_about_as_many_hints_as_there_are_slots(fleet: Fleet) -> None:
    before = fleet.pushed()
    session = fleet.c.sessions.start(fan(200))
    assert session.wait(20) == "completed" and len(session.result) == 200
    assert fleet.pushed() - before <= 12


def test_a_hint_carries_ids_only(tmp_path: Path, own_redis: RedisServer) -> None:
    c = Celeriac(data_dir=tmp_path, agents=["edge_agents"], broker_url=own_redis.url)
    session = c.sessions.start(one("edge.inc", secret="canary-7f3a"), "a question with canary-7f3a")
    (raw,) = own_redis.client().lrange("celeriac", 0, -1)
    assert "canary" not in raw and "canary" not in base64.b64decode(json.loads(raw)["body"]).decode()
    assert json.loads(base64.b64decode(json.loads(raw)["body"]))[0] == [session.id, "celeriac"]
    assert json.loads(raw)["properties"]["delivery_info"]["exchange"] == ""
    c.close()


def test_hints_published_after_a_flush_are_delivered(fleet: Fleet) -> None:
    fleet.server.client().flushall()
    began = time.monotonic()
    assert fleet.c.sessions.start(one("edge.inc")).wait(10) == "completed"
    assert time.monotonic() - began < 0.4, "only the sweeper found it"


def test_steps_whose_hints_were_flushed_are_found_by_the_sweeper(tmp_path: Path, own_redis: RedisServer) -> None:
    fleet = Fleet(tmp_path, own_redis, sweep_seconds=0.2)
    sessions = [fleet.c.sessions.start(one("edge.inc")) for _ in range(10)]
    time.sleep(0.3)  # long enough for the hints to be struck off
    own_redis.client().flushall()
    worker = fleet.worker()
    with ended(worker):
        assert {s.wait(10) for s in sessions} == {"completed"}
    fleet.c.close()


def test_two_long_sessions_take_turns(tmp_path: Path, own_redis: RedisServer) -> None:
    fleet = Fleet(tmp_path, own_redis, carry_steps=5)
    worker = Worker(tmp_path, "-c", "1", carry_steps=5, broker_url=own_redis.url)
    with ended(worker):
        a, b = fleet.c.sessions.start(chain(30)), fleet.c.sessions.start(chain(30))
        assert (a.wait(15), b.wait(15)) == ("completed", "completed")
    starts = sorted(
        (e.at, s) for s, session in enumerate((a, b)) for e in session.stream(follow=False) if e.type == "step.started"
    )
    turns = [len(list(run)) for run in _runs([s for _, s in starts])]
    assert max(turns[:-2]) <= 10 and len(turns) >= 6, turns
    fleet.c.close()


def _runs(values: list[int]) -> Iterator[list[int]]:
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[start]:
            yield values[start:i]
            start = i


def test_forged_and_garbage_hints_do_no_harm(fleet: Fleet) -> None:
    def send(*args: Any, **kwargs: Any) -> None:
        fleet.c.app.send_task("celeriac.step", args, kwargs, queue="celeriac")

    before = len(fleet.worker_process.log)  # type: ignore[attr-defined]
    for _ in range(50):
        send(str(uuid.uuid4()))
    for args in (
        [],
        [None],
        [7],
        [{"a": 1}],
        [["x"]],
        ["' OR 1=1 --"],
        ["\0" * 36],
        ["x" * 10_000],
        [str(uuid.uuid4()), 5, "more"],
    ):
        send(*args)
    send(session_id="no", nothing="known")
    client = fleet.server.client(decode_responses=False)
    (template,) = _raw_message(fleet)
    body = base64.b64encode(pickle.dumps(("boom",))).decode()
    client.lpush("celeriac", json.dumps({**template, "body": body, "content-type": "application/x-python-serialize"}))
    client.lpush("celeriac", json.dumps({**template, "body": base64.b64encode(b"{{{").decode()}))
    assert fleet.c.sessions.start(chain(3)).wait(10) == "completed"
    said = fleet.worker_process.log[before:]  # type: ignore[attr-defined]
    assert said.count("that names no session") >= 9
    assert said.count("Traceback") <= 3, said[-3000:]  # Celery's own, for the two bodies that it cannot decode


def _raw_message(fleet: Fleet) -> list[dict[str, Any]]:
    """A message as Celery writes it, from a queue that nobody reads."""
    fleet.c.app.send_task("celeriac.step", ["x"], queue="nobody")
    found = [json.loads(m) for m in fleet.server.client().lrange("nobody", 0, -1)]
    for message in found:
        message["properties"]["delivery_info"]["routing_key"] = "celeriac"
    return found


def test_an_agent_that_calls_sys_exit_has_failed_and_the_worker_goes_on(fleet: Fleet) -> None:
    session = fleet.c.sessions.start(one("edge.exits"))
    assert session.wait(10) == "failed" and "SystemExit(3)" in session.error
    assert fleet.c.sessions.start(chain(3)).wait(10) == "completed"


def test_two_hundred_copies_of_a_hint_run_each_step_once(fleet: Fleet, tmp_path: Path) -> None:
    log = tmp_path / "log"
    session = fleet.c.sessions.start(fan(10, "edge.nap", s=0.02, log=str(log)))
    for _ in range(200):
        fleet.c.app.send_task("celeriac.step", [session.id, "celeriac"], queue="celeriac")
    assert session.wait(15) == "completed"
    until(lambda: not fleet.server.client().llen("celeriac"))
    assert len(log.read_text().splitlines()) == 10
