"""The cache across real processes: workers of one database that are killed, and a Redis that goes away."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer
from tasks.processes import Process, Worker, ended, until

from celeriac import Celeriac, Plan, step
from celeriac.orchestration.session import Session

HERE = Path(__file__).parent
BEGIN = f"import sys, time; sys.path.insert(0, {str(HERE)!r}); from celeriac import Celeriac; c = Celeriac()\n"
SERVE = BEGIN + "print('up', flush=True)\nc.serve()"

Serve = Callable[..., list[Process]]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the agents have left there."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("CACHE_LEDGER", str(path))
    return lambda: path.read_text().splitlines()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """The database: SQLite, unless a test asks for both."""
    return str(request.getfixturevalue("database_url")) if "database_url" in request.fixturenames else ""


both = pytest.mark.usefixtures("database_url")


@pytest.fixture
def client(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celeriac]:
    """A Celeriac that starts sessions and runs no steps."""
    monkeypatch.syspath_prepend(str(HERE))
    c = Celeriac(data_dir=tmp_path / "data", database_url=url, agents=["cache_agents"], embed=False)
    yield c
    c.close()


@pytest.fixture
def serve(tmp_path: Path, url: str, ledger: Any) -> Iterator[Serve]:
    """Starts workers over the test's database."""
    started: list[Process] = []

    def start(count: int, **settings: Any) -> list[Process]:
        for n in range(count):
            options = {"database_url": url, "agents": "cache_agents", "concurrency": 2, **settings}
            started.append(Process(["-c", SERVE], tmp_path, f"serve-{n}", **options))
        for process in started:
            process.wait_for("up")
        return started

    yield start
    with ended(*started):
        pass


def slow(client: Celeriac, count: int, **request: Any) -> list[Session]:
    plan = Plan("slow", [step("a", "cache.slow", {"s": 0.5, **request})])
    return [client.sessions.start(plan) for _ in range(count)]


@both
def test_equal_requests_in_three_processes_are_run_once(client: Celeriac, serve: Serve, ledger: Any) -> None:
    serve(3)
    sessions = slow(client, 12)
    assert {session.wait(20) for session in sessions} == {"completed"}
    assert len(ledger()) == 1
    assert len({session.result["by"] for session in sessions}) == 1
    assert sum(session.saved["runs"] for session in sessions) == 11
    moments = sorted(session.to_dict(details=False)["completed_at"] for session in sessions)
    print(f"the first was done at {moments[0]}, the last at {moments[-1]}")


@both
def test_a_worker_that_is_killed_while_it_computes_blocks_nobody(
    client: Celeriac, serve: Serve, ledger: Any, tmp_path: Path
) -> None:
    processes = serve(3)
    sessions = slow(client, 9, s=60, folder=str(tmp_path))
    until(ledger)
    time.sleep(0.5)
    leader = int(ledger()[0].split()[0])
    assert leader in [process.pid for process in processes]
    os.kill(leader, signal.SIGKILL)
    began = time.monotonic()
    assert {session.wait(30) for session in sessions} == {"completed"}
    print(f"all were done {time.monotonic() - began:.1f} s after the kill")
    assert len(ledger()) == 2
    assert {session.result["by"] for session in sessions} == {int(ledger()[1].split()[0])}


def test_no_session_gets_what_was_computed_with_other_permissions(client: Celeriac, serve: Serve) -> None:
    serve(2)
    dice = random.Random(4711)
    asked = []
    for _ in range(30):
        held = dice.choice([None, *(dice.sample("abcx", n) for n in range(5))])
        plan = Plan("quick", [step("a", "cache.quick", {"n": dice.randrange(2)})])
        asked.append((held, client.sessions.start(plan, permissions=held)))
    for held, session in asked:
        assert session.wait(20) == "completed"
        assert session.result == sorted({*"abc"} & {*(held if held is not None else "abc")})
    assert sum(session.saved["runs"] for _, session in asked) > 5


def test_the_children_of_celery_workers_share_runs_too(
    client: Celeriac, ledger: Any, tmp_path: Path, redis_server: RedisServer
) -> None:
    shutil.copy(HERE / "cache_agents.py", tmp_path)  # where a worker is started, it finds modules
    options = {"agents": "cache_agents", "broker_url": redis_server.url, "redis_url": redis_server.url}
    worker = Worker(tmp_path, "-c", "3", **options)
    with ended(worker):
        sender = Celeriac(data_dir=tmp_path / "data", embed=False, **(options | {"agents": ["cache_agents"]}))
        sessions = slow(sender, 9, s=1)
        assert {session.wait(20) for session in sessions} == {"completed"}
        sender.close()
        assert len(ledger()) == 1 and sum(session.saved["runs"] for session in sessions) == 8
        worker.stop()
        assert "Traceback" not in worker.log


WATCH = (
    BEGIN
    + "key = c.cache.key('x', 1, permissions=[])\n"
    + "print('found' if c.cache.get(key) else 'missing', flush=True)\n"
    + "while c.cache.get(key): pass\n"
    + "print('gone', time.time(), flush=True)\n"
)


def test_another_process_drops_its_own_copy_of_what_is_invalidated(client: Celeriac, tmp_path: Path, url: str) -> None:
    key = client.cache.key("x", 1, permissions=[])
    client.cache.put(key, "old")
    watcher = Process(["-c", WATCH], tmp_path, "watch", database_url=url, agents="cache_agents")
    with ended(watcher):
        watcher.wait_for("found")
        time.sleep(0.2)
        client.cache.invalidate(agent="x")
        began = time.time()
        watcher.wait_for("gone", 5.0)
        late = float(watcher.log.split()[-1]) - began
        print(f"gone {late * 1e3:.0f} ms after the invalidation")
        assert late < 1.0


def test_steps_go_on_while_redis_is_away(
    client: Celeriac, serve: Serve, ledger: Any, redis_server: RedisServer
) -> None:
    serve(2, redis_url=redis_server.url)
    assert {session.wait(20) for session in slow(client, 2, s=0)} == {"completed"}
    redis_server.pause()
    try:
        began = time.monotonic()
        for n in range(3):
            assert {session.wait(20) for session in slow(client, 4, s=0, n=n)} == {"completed"}
        print(f"12 sessions without Redis: {time.monotonic() - began:.1f} s")
    finally:
        redis_server.resume()
    assert len(ledger()) == 4
