"""Bare Celery for comparison: the same work as chains and chords over the same Redis, results in Redis, events on."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chain, chord
from celery.result import AsyncResult, allow_join_result

PAD = "x" * 1000

app = Celery("bare", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_default_queue="bare",
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,  # as Celeriac's workers do, for Flower
    broker_connection_retry_on_startup=True,
)


@app.task
def grow(value: dict[str, object] | None = None) -> dict[str, object]:
    return {"n": int(str((value or {}).get("n", 0))) + 1, "pad": PAD}


@app.task
def total(values: list[dict[str, int]]) -> int:
    return sum(v["n"] for v in values)


def _get(result: AsyncResult) -> Any:
    with allow_join_result():  # an embedded worker in this process makes Celery think that this is a task
        return result.get(timeout=60, interval=0.002)


def sequence(steps: int) -> int:
    """A chain of `steps` tasks; gives the last number."""
    result = chain(*[grow.s({}) if i == 0 else grow.s() for i in range(steps)]).apply_async()
    return int(_get(result)["n"])


def fan(width: int) -> int:
    """A chord of `width` tasks; gives their sum."""
    return int(_get(chord([grow.s({}) for _ in range(width)])(total.s())))


def many(sessions: int, steps: int) -> None:
    """`sessions` chains of `steps` tasks at once."""
    started = [
        chain(*[grow.s({}) if i == 0 else grow.s() for i in range(steps)]).apply_async() for _ in range(sessions)
    ]
    for result in started:
        _get(result)
