"""Durable calls inside an agent, beside steps of a chain: what one costs, and what replaying it costs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import agents as _agents  # noqa: F401  (registers the agents that plans name)

from celeriac import Celeriac, Plan, agent, step

CALLS = 1000
TEXT = "x" * 1000


class Crash(Exception):
    """Ends the first attempt of a run, so that the second one replays it."""


@agent("bench.calls", retries=1, backoff=0.001)
def calls(request: dict[str, Any], ctx: Any) -> list[float]:
    """Makes `CALLS` durable calls, in a first attempt that ends, and in a second one. Gives both times, in seconds."""
    began = time.perf_counter()
    for n in range(CALLS):
        if request["kind"] == "once":
            ctx.once("text", lambda n: {"n": n, "text": TEXT}, n)
        else:
            ctx.call("bench.text", {"n": n})
    took = time.perf_counter() - began
    _times.append(took)
    if ctx.attempt == 1:
        raise Crash
    return _times[-2:]


@agent("bench.text")
def text(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """About 1 KB."""
    return {"n": request["n"], "text": TEXT}


_times: list[float] = []


def measure(base: Path, rounds: int) -> None:
    """Print milliseconds a step, a call, and a replayed call, of the embedded worker on SQLite."""
    folder = Path(tempfile.mkdtemp(dir=base))
    celeriac = Celeriac(data_dir=folder / "data", concurrency=1)
    first = step("s0", "bench.text", {"n": 0})
    later = [step(f"s{n}", "bench.text", {"n": n}, after=[f"s{n - 1}"]) for n in range(1, CALLS)]
    plan = Plan("chain", [first, *later])
    found: dict[str, list[float]] = {name: [] for name in ("step", "once", "once again", "call", "call again")}
    with celeriac.embedded():
        for _ in range(rounds):
            began = time.perf_counter()
            celeriac.sessions.start(plan).wait(120)
            found["step"].append(time.perf_counter() - began)
            for kind in ("once", "call"):
                session = celeriac.sessions.start(Plan(kind, [step("a", "bench.calls", {"kind": kind})]))
                session.wait(120)
                made, again = session.result
                found[kind].append(made)
                found[f"{kind} again"].append(again)
    celeriac.close()
    took = {name: median(times) / CALLS * 1e3 for name, times in found.items()}
    print(f"{CALLS:,} durable calls in one agent, ~1 KB each (embedded, SQLite, median of {rounds} rounds)")
    print(f"  a step of a chain of {CALLS:,}: {took['step']:.2f} ms")
    for name, what in (("once", "ctx.once"), ("call", "ctx.call")):
        ratio = took[name] / took["step"]
        print(
            f"  {what}: {took[name]:.2f} ms ({ratio:.2f}x a step; to be at most 1);"
            f" recorded before: {took[f'{name} again']:.2f} ms"
        )
    print()
