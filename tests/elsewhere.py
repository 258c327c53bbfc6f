"""What tests run in processes of their own. A module of its own, so that a spawned process can import it."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from driver import Driver


def run_echo(url: str, folder: str, session_id: str) -> None:
    """Run a session whose steps are all of the agent `echo`, after a moment."""
    driver = Driver(url, Path(folder))
    driver.agent("echo")(lambda request, ctx: request)
    time.sleep(0.1)
    driver.run(session_id)


def work_off(url: str, folder: str, ids: list[str], ledger: str, seed: int) -> None:
    """Run sessions, beside others who do the same, until all have ended; `note` notes its runs in the ledger."""
    driver = Driver(url, Path(folder))
    rng = random.Random(seed)

    @driver.agent("note")
    def note(request: Any, ctx: Any) -> Any:
        with open(ledger, "ab", buffering=0) as file:
            file.write(f"{ctx.key} {ctx.attempt}\n".encode())
        return request

    todo = list(ids)
    while todo:
        rng.shuffle(todo)
        for session_id in todo:
            driver.run(session_id, carry=rng.random() < 0.5)
        todo = [i for i in todo if driver.sessions.get(i).status == "active"]
