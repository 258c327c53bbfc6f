"""Steps per second: Celeriac embedded, with two worker processes on SQLite and on PostgreSQL, and bare Celery."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    """Start all systems, let them take turns, print the table."""
    with ExitStack() as stack:
        redis = stack.enter_context(_server(RedisServer()))
        systems = [stack.enter_context(_bare(redis, base))]
        systems.append(stack.enter_context(_embedded(base)))
        systems.append(stack.enter_context(_workers("Celeriac, SQLite, 2 workers", "sqlite", redis, base, "", 1)))
        if postgresql:
            try:
                postgres = stack.enter_context(_server(PostgresServer()))
                url = postgres.create_database("bench")
                systems.append(
                    stack.enter_context(_workers("Celeriac, PostgreSQL, 2 workers", "postgresql", redis, base, url, 2))
                )
            except ServerMissing as fault:
                print(f"without PostgreSQL: {fault}")
        for system in systems:  # the first round of each warms it up
            for call in system.calls:
                call()
        if "steps" in wanted:
            _rates(systems, rounds)
        if "latency" in wanted:
            _latencies(systems)
            _memory(systems)


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


def _calls(celeriac: Any) -> tuple[Callable[[], object], ...]:
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
def _embedded(base: Path) -> Iterator[System]:
    from celeriac import Celeriac

    celeriac = Celeriac(data_dir=str(base / "embedded"), agents=["agents"])
    try:
        yield System("Celeriac, SQLite, embedded", _calls(celeriac), celeriac, (os.getpid(),))
    finally:
        celeriac.close()


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
        yield System(name, _calls(celeriac), celeriac, tuple(p.pid for p in processes))
    finally:
        machine.stop(processes)
        celeriac.close()


def _rates(systems: list[System], rounds: int) -> None:
    print(f"{'steps per second, every one durable':44}" + "".join(f"{kind:>24}" for kind, _, _ in KINDS))
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for system in systems:
            for place, call in enumerate(system.calls):
                seconds.setdefault((system.name, place), []).append(machine.timed(call))
    for system in systems:
        cells = []
        for place, (_, count, _) in enumerate(KINDS):
            own, bare = seconds[system.name, place], seconds[systems[0].name, place]
            ratio = machine.middle([b / o for b, o in zip(bare, own, strict=True)])
            shown = f"{count / machine.middle(own):,.0f}/s"
            cells.append(f"{shown:>14}" + (f"  ({ratio:.1f}x)" if system is not systems[0] else "").rjust(10))
        print(f"{system.name:44}" + "".join(cells))
    print("targets: " + ", ".join(f"{kind} >= {least:g}x" for kind, _, least in KINDS) + "; on PostgreSQL >= 2x\n")


def _latencies(systems: list[System]) -> None:
    import agents

    plan = agents.sequence(3)
    for system in systems[1:]:
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
            print(f"{system.name:44} {what}: p50 {half:.1f} ms, p95 {most:.1f} ms")
    print("targets: enqueue p50 < 3 ms; wait < 20 ms\n")


def _memory(systems: list[System]) -> None:
    sizes = {s.name: sum(machine.memory_mb(p) for p in s.pids) / len(s.pids) for s in systems if "2 workers" in s.name}
    bare = sizes[systems[0].name]
    for name, size in sizes.items():
        print(f"{name:44} memory of a worker (main process and child, PSS): {size:.0f} MB ({size - bare:+.0f})")
    print("target: bare Celery + 40 MB\n")
