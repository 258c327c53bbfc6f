"""What tests run in processes of their own. A module of its own, so that a spawned process can import it."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from driver import Driver

from celeriac.orchestration import sweeping


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


def remember(url: str, folder: str, session_id: str, seed: int) -> None:
    """Run a session's steps of the agent `recorder`, beside others who do the same; kill this process now and then."""
    driver = Driver(url, Path(folder), lease_seconds=5.0, max_attempts=100)
    rng = random.Random(seed)

    @driver.agent("recorder")
    def recorder(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        memory.history.append(request)
        memory.used("search", found=2)
        memory.setdefault("seen", []).append(request)
        memory[f"k{request}"] = ctx.attempt
        if rng.random() < 0.2:
            memory.save()
        if rng.random() < 0.1:
            os.kill(os.getpid(), signal.SIGKILL)
        if rng.random() < 0.3:
            time.sleep(0.01)

    session = driver.sessions.get(session_id)
    while session.status == "active":
        if not driver.run(session, carry=rng.random() < 0.5):
            sweeping.sweep(driver.engine)
            time.sleep(0.01)
