"""Steps per second: Celeriac embedded, with two worker processes on SQLite and on PostgreSQL, and bare Celery."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
from run import EACH, KINDS, SEQUENCE, SESSIONS, WIDTH
from servers import PostgresServer, RedisServer, ServerMissing


@dataclass
class System:
    """One way to run the work: three calls, one for each kind, that return when it is done."""

    name: str
    calls: tuple[Callable[[], object], ...]
    celeriac: Any = None
    pids: tuple[int, ...] = ()


def measure(base: Path, rounds: int, wanted: list[str], *, postgresql: bool) -> None:
    """Let each way to run Celeriac take turns with bare Celery, nothing else running; print a line for each."""
    with ExitStack() as stack:
        redis = stack.enter_context(_server(RedisServer()))
        bare = stack.enter_context(_bare(redis, base))
        _head()
        for system_of in (_embedded, _on_sqlite, _on_postgresql) if postgresql else (_embedded, _on_sqlite):
            try:
                with system_of(redis, base) as system:
                    _measure_one(bare, system, rounds, wanted)
            except ServerMissing as fault:
                print(f"without PostgreSQL: {fault}")
        targets = ", ".join(f"{kind} >= {least:g}x" for kind, _, least in KINDS)
        print(f"targets: {targets}; on PostgreSQL >= 2x bare Celery")
        print("         enqueue p50 < 3 ms; wait < 20 ms after the end; memory of a worker: bare Celery + 40 MB\n")


def _measure_one(bare: System, system: System, rounds: int, wanted: list[str]) -> None:
    for one in (bare, system):  # the first round warms it up
        for call in one.calls:
            call()
    if "steps" in wanted:
        _rates(bare, system, rounds)
    if "latency" in wanted:
        _latencies(system)
        if len(system.pids) > 1:
            own, other = _memory(system), _memory(bare)
            print(f"    memory of a worker, main process and child (PSS): {own:.0f} MB, bare Celery {other:.0f} MB")


@contextmanager
def _server(server: Any) -> Iterator[Any]:
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def _bare(redis: Any, base: Path) -> Iterator[System]:
    os.environ["BENCH_REDIS"] = url = (
        f"{redis.url.rsplit('/', 1)[0]}/0" if redis.url.count("/") > 2 else f"{redis.url}/0"
    )
    processes = [
        machine.worker("bare", f"bare{i}", {"BENCH_REDIS": url}, "bare", base / f"bare{i}.log") for i in range(2)
    ]
    try:
        import bare

        calls = (lambda: bare.sequence(SEQUENCE), lambda: bare.fan(WIDTH), lambda: bare.many(SESSIONS, EACH))
        yield System("bare Celery, 2 workers", calls, pids=tuple(p.pid for p in processes))
    finally:
        machine.stop(processes)


def calls_of(celeriac: Any) -> tuple[Callable[[], object], ...]:
    """The three kinds of work as plans of Celeriac."""
    import agents

    def one(plan: Any) -> None:
        status = celeriac.sessions.start(plan).wait(timeout=120)
        assert status == "completed", status

    def many() -> None:
        plan = agents.sequence(EACH)
        for session in [celeriac.sessions.start(plan) for _ in range(SESSIONS)]:
            assert session.wait(timeout=120) == "completed"

    return (lambda: one(agents.sequence(SEQUENCE)), lambda: one(agents.fan(WIDTH)), many)


@contextmanager
def _embedded(redis: Any, base: Path) -> Iterator[System]:
    from celeriac import Celeriac

    celeriac = Celeriac(data_dir=str(base / "embedded"), agents=["agents"])
    try:
        yield System("Celeriac, SQLite, embedded", calls_of(celeriac), celeriac, (os.getpid(),))
    finally:
        celeriac.close()


def _on_sqlite(redis: Any, base: Path) -> AbstractContextManager[System]:
    return _workers("Celeriac, SQLite, 2 workers", "sqlite", redis, base, "", 1)


@contextmanager
def _on_postgresql(redis: Any, base: Path) -> Iterator[System]:
    with _server(PostgresServer()) as postgres:
        url = postgres.create_database("bench")
        with _workers("Celeriac, PostgreSQL, 2 workers", "postgresql", redis, base, url, 2) as system:
            yield system


@contextmanager
def _workers(name: str, short: str, redis: Any, base: Path, database: str, number: int) -> Iterator[System]:
    from celeriac import Celeriac

    broker = f"redis://127.0.0.1:{redis.port}/{number}"
    settings = {"data_dir": str(base / short), "database_url": database, "broker_url": broker}
    environ = {f"CELERIAC_{key.upper()}": value for key, value in settings.items()} | {"CELERIAC_AGENTS": "agents"}
    celeriac = Celeriac(**settings, agents=["agents"])
    celeriac.prepare()  # the schema, before the workers
    processes = [
        machine.worker("celeriac", f"{short}{i}", environ, "celeriac", base / f"{short}{i}.log") for i in range(2)
    ]
    try:
        yield System(name, calls_of(celeriac), celeriac, tuple(p.pid for p in processes))
    finally:
        machine.stop(processes)
        celeriac.close()


def _head() -> None:
    print(f"{'steps per second, every one durable':36}" + "".join(f"{kind:>28}" for kind, _, _ in KINDS))


def _rates(bare: System, system: System, rounds: int) -> None:
    """One line: its rate, bare Celery's in the same rounds, and the median of the rounds' ratios."""
    cells = []
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for place in range(len(KINDS)):
            for one in (bare, system):
                seconds.setdefault((one.name, place), []).append(machine.timed(one.calls[place]))
    for place, (_, count, _) in enumerate(KINDS):
        own, other = seconds[system.name, place], seconds[bare.name, place]
        ratio = machine.middle([b / o for b, o in zip(other, own, strict=True)])
        cells.append(f"{count / machine.middle(own):,.0f} : {count / machine.middle(other):,.0f}  ({ratio:.1f}x)")
    print(f"{system.name + ' : bare':36}" + "".join(f"{cell:>28}" for cell in cells))


def _latencies(system: System) -> None:
    import agents

    plan = agents.sequence(3)
    starts, ends = [], []
    for _ in range(60):
        began = time.perf_counter()
        session = system.celeriac.sessions.start(plan)
        starts.append(time.perf_counter() - began)
        session.wait(timeout=30)
        woken = time.time()
        last = list(session.stream(follow=False))[-1]
        ends.append(woken - last.at)
    for what, values in (("enqueue", starts), ("wait returns after the end", ends)):
        half, most = machine.middle(values) * 1e3, machine.quantile(values, 0.95) * 1e3
        print(f"    {what}: p50 {half:.1f} ms, p95 {most:.1f} ms")


def _memory(system: System) -> float:
    return sum(machine.memory_mb(pid) for pid in system.pids) / len(system.pids)
