"""Agents of the tests across processes; `CACHE_LEDGER` names a file in which each run leaves a line."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celeriac import agent


def _note(line: str) -> None:
    with Path(os.environ["CACHE_LEDGER"]).open("a") as ledger:
        ledger.write(f"{os.getpid()} {line}\n")


@agent("cache.slow", cache_ttl=60)
def slow(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Takes `s` seconds; where a folder is named, only the first run of all does."""
    _note("slow")
    mark = Path(request["folder"]) / "first" if "folder" in request else None
    if mark is None or not mark.exists():
        if mark is not None:
            mark.touch()
        time.sleep(request["s"])
    return {"by": os.getpid()}


@agent("cache.quick", cache_ttl=60, optional_permissions=["a", "b", "c"])
def quick(request: dict[str, Any], ctx: Any) -> list[str]:
    _note("quick")
    return sorted(ctx.permissions)
