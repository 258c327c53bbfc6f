"""`celery -A celeriac beat` and `flower`, and the events that Flower is drawn from."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from servers import RedisServer, free_port

from tasks.conftest import chain, one
from tasks.processes import Process, Worker, ended, until


def _events(c: Any, run: Any, until_: Any) -> list[dict[str, Any]]:
    """The events of agents' tasks that a receiver gets while `run()` runs, until `until_(events)`."""
    caught: list[dict[str, Any]] = []
    with c.app.connection_for_read() as connection:
        receiver = c.app.events.Receiver(connection, handlers={"*": caught.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None, "wakeup": False})
        thread.start()
        time.sleep(0.5)
        try:
            run()
            until(lambda: until_([e for e in caught if e["type"].startswith("task-")]))
        finally:
            receiver.should_stop = True
            thread.join(5)
    return [e for e in caught if e["type"].startswith("task-")]


def test_steps_send_the_events_of_celery_tasks(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    settings = {"broker_url": own_redis.url, "sweep_seconds": 0.2}
    c = client(tmp_path, **settings)
    worker = Worker(tmp_path, "-c", "1", **settings)
    with ended(worker):

        def run() -> None:
            for agent in ("edge.inc", "edge.fails", "edge.retried"):
                c.sessions.start(one(agent)).wait(15)

        ends = ("task-succeeded", "task-failed", "task-retried")
        events = _events(c, run, lambda found: sum(e["type"] in ends for e in found) == 5)
        by_name: dict[str, list[str]] = {}
        names = {e["uuid"]: e["name"] for e in events if e["type"] == "task-received"}
        for event in events:
            by_name.setdefault(names[event["uuid"]], []).append(event["type"].removeprefix("task-"))
        assert by_name["celeriac.agent.edge.inc"] == ["received", "started", "succeeded"]
        assert by_name["celeriac.agent.edge.fails"] == ["received", "started", "failed"]
        assert by_name["celeriac.agent.edge.retried"] == ["received", "started", "retried"] * 2 + [
            "received",
            "started",
            "succeeded",
        ]
        received = next(e for e in events if e["type"] == "task-received")
        assert received["hostname"] == "worker@test" and received["pid"] in worker.children()
        assert {"timestamp", "local_received", "clock", "utcoffset", "root_id", "retries"} <= received.keys()
        assert "canary" not in json.dumps(events)
        done = next(e for e in events if e["type"] == "task-succeeded")
        assert 0 <= done["runtime"] < 1


def test_two_beats_send_the_sweep_and_do_no_harm(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    settings = {"broker_url": own_redis.url, "maintenance": "sweep=1"}
    beats = []
    for n in range(2):
        folder = tmp_path / f"beat{n}"
        folder.mkdir()
        beats.append(Process(["-m", "celery", "-A", "celeriac", "beat", "-l", "INFO"], folder, "beat", **settings))
    with ended(*beats):
        for beat in beats:
            beat.wait_for("beat: Starting")
        own_redis.client().delete("celeriac")
        for n in range(2):
            until(lambda n=n: "Sending due task celeriac.sweep" in beats[n].log, 15)
        c = client(tmp_path, broker_url=own_redis.url)
        worker = Worker(tmp_path, "-c", "1", **settings)
        with ended(worker):
            worker.wait_for("Task celeriac.maintain")
            session = c.sessions.start(chain(20))
            assert session.wait(10) == "completed" and max(s["attempts"] for s in session.steps()) == 1
            assert "Traceback" not in worker.log
            runs = until(lambda: [run for run in c.maintenance.history("sweep") if run.source == "beat"], 15)
            assert len({run.scheduled_at for run in runs}) == len(runs)
        for beat in beats:
            assert beat.stop() == 0 and "Traceback" not in beat.log


def test_flower_shows_agents_by_name(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    port = free_port()
    settings = {"broker_url": own_redis.url}
    worker = Worker(tmp_path, "-c", "1", **settings)
    command = ["-m", "celery", "-A", "celeriac", "flower", "--address=127.0.0.1", f"--port={port}"]
    flower = Process(command, tmp_path, "flower", FLOWER_UNAUTHENTICATED_API="1", **settings)
    with ended(worker, flower):
        flower.wait_for("Connected to redis")
        time.sleep(0.5)
        c = client(tmp_path, **settings)
        assert c.sessions.start(chain(3)).wait(10) == "completed"
        assert c.sessions.start(one("edge.fails", secret="canary-1")).wait(10) == "failed"

        def shown() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as answer:
                tasks = json.load(answer)
            named = {t["name"]: t["state"] for t in tasks.values()}
            return tasks if named.get("celeriac.agent.edge.fails") == "FAILURE" else None

        tasks = until(shown, 15, every=0.2)
        states = sorted((t["name"], t["state"]) for t in tasks.values())
        assert states == [("celeriac.agent.edge.fails", "FAILURE")] + [("celeriac.agent.edge.inc", "SUCCESS")] * 3
        assert "canary" not in json.dumps(tasks)
        if "KEEP_FLOWER" in os.environ:
            time.sleep(float(os.environ["KEEP_FLOWER"]))
