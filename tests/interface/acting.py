"""Agents for the tests of the command line. `CLI_LEDGER` names a file in which each run of an agent leaves a line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celeriac import AgentOutput, Finding, agent


def _note(line: str) -> None:
    if "CLI_LEDGER" in os.environ:
        with Path(os.environ["CLI_LEDGER"]).open("a") as ledger:
            ledger.write(line + "\n")


@agent("cli.list")
def list_(request: dict[str, Any], ctx: Any) -> Any:
    _note("list")
    return {"items": list(range(request["count"]))}


@agent("cli.work")
def work(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Takes `seconds`; finds something that every third item says otherwise."""
    item = request["item"]
    _note(f"work {item}")
    ctx.progress(0.5, f"half of item {item}")
    time.sleep(request.get("seconds", 0))
    ctx.partial({"text": f"item {item} is \x1b[31mread\x1b[0m", "path": "a/b.txt", "line": item + 1})
    return AgentOutput({"item": item}, [Finding("thing", "colour", "red" if item % 3 else "blue", 0.9)])


@agent("cli.fail")
def fail(request: dict[str, Any], ctx: Any) -> Any:
    _note("fail")
    if "CLI_MENDED" in os.environ:
        return {"mended": True}
    raise ValueError("the disk is on fire")


@agent("cli.join")
def join(request: dict[str, Any], ctx: Any) -> Any:
    _note("join")
    return {"count": len(request["parts"]), "query": request.get("query")}


@agent("cli.secret", permissions=["docs:read"])
def secret(request: dict[str, Any], ctx: Any) -> Any:
    return {"granted": sorted(ctx.permissions)}
