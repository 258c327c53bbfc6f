"""Following a session from another process: fast with Redis and without, and never at the expense of a step."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac import Celeriac, Plan, step
from celeriac.storage.hot import stream_key
from tasks.conftest import chain, one
from tasks.processes import Worker, ended, until


class Line:
    """A worker, and a follower of it in this process."""

    def __init__(self, c: Celeriac, worker: Worker, server: RedisServer, live: RedisServer | None) -> None:
        self.c, self.worker, self.server, self.live = c, worker, server, live


def _line(folder: Path, server: RedisServer, live: RedisServer | None, **settings: Any) -> tuple[Worker, Celeriac]:
    settings = {"broker_url": server.url, **({"redis_url": live.url} if live else {}), **settings}
    worker = Worker(folder, "-c", "1", **settings)
    return worker, Celeriac(data_dir=folder / "data", agents=["edge_agents"], **settings)


@contextmanager
def _made(folder: Path, live: bool, **settings: Any) -> Iterator[Line]:
    server, redis = RedisServer(), RedisServer() if live else None
    try:
        for one_server in filter(None, (server, redis)):
            one_server.start()
        worker, c = _line(folder, server, redis, **settings)
        with ended(worker):
            assert c.sessions.start(one("edge.inc")).wait(10) == "completed"
            yield Line(c, worker, server, redis)
            c.close()
    finally:
        for one_server in filter(None, (server, redis)):
            one_server.close()


@pytest.fixture(scope="module")
def line(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A worker with a Redis for live progress. A test that breaks that Redis mends it."""
    with _made(tmp_path_factory.mktemp("live"), live=True) as made:
        yield made


@pytest.fixture
def plain_line(database_url: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[Line]:
    """A worker without one, on each database."""
    with _made(tmp_path, live=False, database_url=database_url) as made:
        yield made


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _delays(line: Line, many: int = 100) -> list[float]:
    session = line.c.sessions.start(one("edge.partials", n=many, every=0.01))
    delays, seen = [], []
    for event in session.stream():
        seen.append(event.seq)
        if event.type == "step.partial":
            delays.append(time.time() - event.data["at"])
    assert seen == list(range(1, len(seen) + 1)) and len(delays) == many
    return delays


def _wait_lag(line: Line, tries: int = 15) -> float:
    """How long after the end of a session `wait` returns, in seconds, by the clock of the database: the median."""
    lags = []
    for _ in range(tries):
        session = line.c.sessions.start(one("edge.nap", s=0.03))
        session.wait(10)
        lags.append(time.time() - list(session.stream(follow=False))[-1].at)
    return sorted(lags)[tries // 2]


def _check_speed(made: Line, what: str) -> None:
    delays = _delays(made)
    for _ in range(2):  # a machine that others use stands still now and then
        if _p95(delays) >= 0.05:
            delays = _delays(made)
    lag = _wait_lag(made)
    p50, p95 = sorted(delays)[50] * 1e3, _p95(delays) * 1e3
    print(f"{what}: partials p50 {p50:.0f} ms, p95 {p95:.0f} ms; wait returns after {lag * 1e3:.1f} ms")
    assert _p95(delays) < 0.05
    assert lag < 0.02


def test_partial_results_are_seen_elsewhere_within_fifty_milliseconds_with_redis(line: Line) -> None:
    _check_speed(line, "redis")


def test_partial_results_are_seen_elsewhere_within_fifty_milliseconds_without(plain_line: Line) -> None:
    _check_speed(plain_line, str(plain_line.c.settings.database.partition(":")[0]))


def test_waiting_in_the_same_process_returns_at_once(tmp_path: Path, client: Any) -> None:
    c = client(tmp_path)
    lag = _wait_lag(Line(c, None, None, None))  # type: ignore[arg-type]
    print(f"in process: wait returns after {lag * 1e3:.1f} ms")
    assert lag < 0.02


def test_the_stream_holds_the_sessions_events_under_their_numbers(line: Line) -> None:
    made, live = line, line.live
    assert live is not None
    session = made.c.sessions.start(chain(20))
    assert session.wait(10) == "completed"
    events = list(session.stream(follow=False))
    client = live.client()
    until(lambda: client.xlen(stream_key(session.id)) == len(events), 5)
    entries = client.xrange(stream_key(session.id))
    assert [entry[0] for entry in entries] == [f"{event.seq}-0" for event in events]
    assert [json.loads(entry[1]["event"])["type"] for entry in entries] == [event.type for event in events]
    assert 0 < client.ttl(stream_key(session.id)) <= 24 * 3600


@pytest.mark.parametrize("what", ["flushed", "frozen", "killed"])
def test_followers_miss_nothing_when_redis_is_lost_midway(what: str, line: Line) -> None:
    made, live = line, line.live
    assert live is not None
    session = made.c.sessions.start(one("edge.partials", n=60, every=0.02))
    seen: list[Any] = []
    follower = threading.Thread(target=lambda: seen.extend(session.stream()), daemon=True)
    follower.start()
    until(lambda: session.steps()[0]["status"] == "running")
    time.sleep(0.3)
    {"flushed": lambda: live.client().flushall(), "frozen": live.pause, "killed": live.kill}[what]()
    began = time.monotonic()
    assert session.wait(15) == "completed"
    took = time.monotonic() - began
    follower.join(5)
    live.start() if what == "killed" else live.resume()
    print(f"{what}: the rest of the session took {took:.2f} s")
    assert [e.seq for e in seen] == list(range(1, len(seen) + 1)) and seen[-1].type == "session.completed"
    assert sum(e.type == "step.partial" for e in seen) == 60
    assert took < 3


def test_a_frozen_redis_delays_no_step(line: Line) -> None:
    made, live = line, line.live
    assert live is not None

    def step_times() -> list[float]:
        session = made.c.sessions.start(
            Plan("p", [step(f"s{i}", "edge.inc", {}, after=[f"s{i - 1}"] if i else []) for i in range(100)])
        )
        assert session.wait(20) == "completed"
        ends = [e.at for e in session.stream(follow=False) if e.type == "step.done"]
        return [b - a for a, b in zip(ends, ends[1:], strict=False)]

    step_times()
    healthy = step_times()
    live.pause()
    frozen = step_times()
    live.resume()
    print(f"p95 of a step: {_p95(healthy) * 1e3:.2f} ms, with Redis frozen {_p95(frozen) * 1e3:.2f} ms")
    assert _p95(frozen) < _p95(healthy) + 0.01


def test_the_stream_catches_up_after_redis_is_back(line: Line) -> None:
    made, live = line, line.live
    assert live is not None
    live.kill()
    session = made.c.sessions.start(chain(5))
    assert session.wait(10) == "completed"
    live.start()
    until(lambda: live.client().exists(stream_key(session.id)), 10)
