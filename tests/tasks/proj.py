"""A user's Celery app that Celeriac joins: its own tasks, its own queue, its own signal handlers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import edge_agents  # noqa: F401
from celery import Celery, signals

from celeriac import Celeriac

app = Celery("proj", broker=os.environ["PROJ_BROKER"], backend=os.environ["PROJ_BROKER"])
app.conf.task_default_queue = "proj-tasks"
app.conf.worker_send_task_events = True
c = Celeriac(app)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def outer(depth: int) -> str:
    if depth:
        outer.delay(depth - 1)
    return "sent"


@app.task(bind=True, max_retries=1)
def flaky(self: Any) -> str:
    if self.request.retries == 0:
        raise self.retry(exc=ValueError("once"), countdown=0)
    return "done"


@app.task
def broken() -> None:
    raise ValueError("broken")


def _seen(which: str) -> Any:
    def note(sender: Any = None, task_id: str | None = None, request: Any = None, **_: Any) -> None:
        name = getattr(sender, "name", str(sender))
        if name.startswith("celeriac.agent."):
            line = json.dumps(
                {"signal": which, "name": name, "id": task_id or getattr(request, "id", None) or sender.request.id}
            )
            with Path(os.environ["PROJ_SIGNALS"]).open("a") as log:
                log.write(line + "\n")

    return note


if "PROJ_SIGNALS" in os.environ:
    for which in ("task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"):
        getattr(signals, which).connect(_seen(which), weak=False)
