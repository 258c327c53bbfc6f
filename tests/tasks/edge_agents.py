"""Agents that the workers of these tests run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celery import current_app, current_task

from celeriac import agent
from celeriac.errors import CallFailed


@agent("edge.inc")
def inc(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    return {"n": (request.get("n") or 0) + 1, "pid": os.getpid(), "thread": threading.get_ident()}


@agent("edge.list")
def numbers(request: dict[str, Any], ctx: Any) -> list[int]:
    return list(range(request["n"]))


@agent("edge.nap")
def nap(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    if "log" in request:
        with Path(request["log"]).open("a") as log:
            log.write(f"{time.time()} {ctx.step} {ctx.attempt} {os.getpid()}\n")
    time.sleep(request["s"])
    return {"n": 0, "pid": os.getpid(), "attempt": ctx.attempt, "started": time.time() - request["s"]}


@agent("edge.caller")
def caller(request: dict[str, Any], ctx: Any) -> str:
    """Calls the agent `of` with the rest of the request; says how that failed."""
    asked = dict(request)
    try:
        return str(ctx.call(asked.pop("of"), asked))
    except CallFailed as fault:
        return str(fault)


@agent("edge.impatient", timeout=0.5)
def impatient(request: dict[str, Any], ctx: Any) -> str:
    """Calls an agent that never ends."""
    return str(ctx.call("edge.endless", {"how": "loop"}))


@agent("edge.paced", rate_limit="10/s")
def paced(request: dict[str, Any], ctx: Any) -> float:
    return time.time()


@agent("edge.second", retries=1, backoff=0.2)
def second(request: dict[str, Any], ctx: Any) -> int:
    """Succeeds at the second attempt."""
    return 1 // (int(ctx.attempt) - 1)


@agent("edge.limited", timeout=0.5)
def limited(request: dict[str, Any], ctx: Any) -> str:
    """Sleeps, loops or checks for far longer than its limit."""
    end = time.monotonic() + 20
    if request["how"] == "sleep":
        time.sleep(20)
    while time.monotonic() < end:
        if request["how"] == "check":
            ctx.check()
            time.sleep(0.01)
    return "never"


@agent("edge.stubborn", timeout=0.5)
def stubborn(request: dict[str, Any], ctx: Any) -> str:
    end = time.monotonic() + request.get("s", 60)
    while time.monotonic() < end:
        try:
            time.sleep(0.1)
        except Exception:
            continue
    return "never"


@agent("edge.endless")
def endless(request: dict[str, Any], ctx: Any) -> str:
    """Loops or sleeps until it is interrupted."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if request["how"] == "sleep":
            time.sleep(60)
    return "never"


@agent("edge.retried", retries=2, backoff=0.05)
def retried(request: dict[str, Any], ctx: Any) -> int:
    if ctx.attempt < 3:
        raise ValueError(f"attempt {ctx.attempt}")
    return int(ctx.attempt)


@agent("edge.fails")
def fails(request: dict[str, Any], ctx: Any) -> None:
    raise ValueError("no such luck")


@agent("edge.exits")
def exits(request: dict[str, Any], ctx: Any) -> None:
    sys.exit(3)


@agent("edge.dies")
def dies(request: dict[str, Any], ctx: Any) -> str:
    """Kills its process in the first attempt."""
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@agent("edge.request")
def about_request(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """What Celery's current task says inside an agent."""
    r = current_task.request
    shown = {k: getattr(r, k) for k in ("id", "root_id", "hostname", "retries", "called_directly", "celeriac_session")}
    return shown | {"name": current_task.name, "kwargs": r.kwargs, "queue": r.delivery_info["routing_key"]}


@agent("edge.sends")
def sends(request: dict[str, Any], ctx: Any) -> str:
    """Sends an ordinary task from within."""
    return str(current_app.send_task(request["task"], args=request.get("args", []), **request.get("options", {})).id)


@agent("edge.partials")
def partials(request: dict[str, Any], ctx: Any) -> int:
    for n in range(request["n"]):
        ctx.partial({"n": n, "at": time.time()})
        time.sleep(request.get("every", 0.02))
    return int(request["n"])


@agent("edge.slow_once")
def slow_once(request: dict[str, Any], ctx: Any) -> str:
    """Takes twenty seconds the first time, whatever the attempt is called."""
    mark = Path(request["folder"]) / ctx.step.replace("/", "-")
    if not mark.exists():
        mark.touch()
        time.sleep(20)
    return "done"


@agent("edge.remembers")
def remembers(request: dict[str, Any], ctx: Any) -> Any:
    """Changes its memory and takes twenty seconds; where an attempt was stopped, gives what that one left."""
    if ctx.memory.unfinished is not None:
        return {"left": ctx.memory.unfinished["execution"], "memory": dict(ctx.memory)}
    ctx.memory["page"] = 7
    (Path(request["folder"]) / "begun").touch()
    time.sleep(20)
    return "never"
