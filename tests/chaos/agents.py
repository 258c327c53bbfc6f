"""Agents whose whole effect is a line in the ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from celeriac import agent
from celeriac.orchestration.research.publishing import write_atomically
from chaos import ledger


@contextmanager
def noted(ctx: Any) -> Iterator[None]:
    """Note that an attempt starts and ends; in between, `effect` is noted when the body is through."""
    book = ledger.here()
    book.write(ctx.key, ctx.attempt, "start")
    yield
    book.write(ctx.key, ctx.attempt, "effect")
    book.write(ctx.key, ctx.attempt, "end")


@agent("chaos.work", retries=0)
def work(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Takes `ms` milliseconds; answers with its attempt."""
    with noted(ctx):
        time.sleep(request.get("ms", 0) / 1000)
    return {"attempt": ctx.attempt}


@agent("chaos.caller")
def caller(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Makes durable calls: two of a function, and one of an agent between them."""

    def paid(n: int) -> dict[str, Any]:
        ledger.here().write(f"{ctx.key}.{n}", ctx.attempt, "effect")
        return {"call": f"{ctx.key}.{n}", "made": ctx.attempt, "text": "large " * 1000 * n}

    with noted(ctx):
        first = ctx.once("paid", paid, 0)
        second = ctx.call("chaos.work", {"ms": request.get("ms", 0)})
        third = ctx.once("paid", paid, 1)
    return {"attempt": ctx.attempt, "calls": [first["made"], second["attempt"], third["made"]]}


@agent("chaos.big")
def big(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Answers with more than fits into a row: a blob."""
    with noted(ctx):
        text = "large " * 1000
    return {"attempt": ctx.attempt, "text": text}


@agent("chaos.report")
def report(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Writes a file as reports are written."""
    with noted(ctx):
        write_atomically(Path(request["path"]), b"a report")
    return {"attempt": ctx.attempt}


@agent("chaos.poison")
def poison(request: dict[str, Any], ctx: Any) -> None:
    """Ends its process, in each attempt."""
    ledger.here().write(ctx.key, ctx.attempt, "start")
    os._exit(9)


@agent("chaos.stubborn")
def stubborn(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Takes `first` seconds in the first attempt and `later` in others, whatever it is told meanwhile."""
    with noted(ctx):
        until = time.monotonic() + request["first" if ctx.attempt == 1 else "later"]
        while time.monotonic() < until:
            with suppress(Exception):
                time.sleep(0.02)
        with suppress(Exception):
            time.sleep(0.2)  # whoever wants to stop it does so now, and not when its result is recorded
    return {"attempt": ctx.attempt}
