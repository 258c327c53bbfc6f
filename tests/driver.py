"""Drives the engine with a plain loop, without Celery: what a worker does, one call at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from celeriac.config import Settings
from celeriac.errors import StepCancelled
from celeriac.orchestration import runner
from celeriac.orchestration.agents import Registry, agent
from celeriac.orchestration.context import Context
from celeriac.orchestration.engine import Engine, Lost, Work
from celeriac.orchestration.heartbeat import Heartbeat
from celeriac.orchestration.plans import Plan
from celeriac.orchestration.session import Session
from celeriac.orchestration.sessions import Sessions
from celeriac.orchestration.work import PutBack
from celeriac.storage import schema

#: Short enough for tests to wait for.
QUICK = {"lease_seconds": 0.6, "sweep_seconds": 0.05}


class Driver:
    """An engine over a database of the test's own, a registry of the test's own, and a loop that runs steps."""

    def __init__(self, url: str, folder: Path, registry: Registry | None = None, **settings: Any) -> None:
        self.settings = Settings.load({"data_dir": str(folder), "database_url": url, **QUICK, **settings}, environ={})
        self.registry = registry or Registry()
        self.engine = Engine(self.settings, self.registry)
        schema.ensure(self.engine.database)
        self.sessions = Sessions(self.engine)
        self.heartbeat = Heartbeat(self.engine)
        #: Names of the steps that were started here, in order.
        self.started: list[str] = []

    def agent(self, name: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register an agent with this driver's registry."""
        return agent(name, registry=self.registry, **options)

    def start(self, *steps: Any, query: str = "", **options: Any) -> Session:
        """Start a session on a plan of these steps."""
        return self.sessions.start(Plan("test", steps), query, **options)

    def run(self, session: Session | str, carry: bool = True, most: int = 100_000) -> int:
        """Run a session's steps until nothing is ready; gives how many were run."""
        session_id = session if isinstance(session, str) else session.id
        count = 0
        work = self.engine.claim(session_id)
        while work is not None and count < most:
            following = self.perform(work, carry and count + 1 < most)
            count += 1
            if count < most:
                work = following or self.engine.claim(session_id)
        return count

    def perform(self, work: Work, carry: bool = False) -> Work | None:
        """Run one claimed step as a worker does, and record how it ended."""
        self.started.append(work.claimed.name)
        try:
            output = self.call(work)
        except (Lost, PutBack):
            return None
        except StepCancelled:
            return None
        except Exception as fault:
            return self.failed(work, fault, carry)
        try:
            return self.engine.finish(work, output, carry)
        except Lost:
            return None
        except runner.UNRECORDABLE as fault:
            return self.failed(work, fault, carry)

    def make_call(self, work: Work, caller: Context) -> None:
        """Make a durable call as a worker does."""
        self.started.append(work.claimed.name)
        try:
            self.engine.finish(work, self._run(work, caller))
        except Lost:
            return
        except Exception as fault:
            if caller.is_stopped:
                raise
            self.failed(work, fault, False)

    def call(self, work: Work) -> Any:
        """Run a claimed step's agent under the heartbeat; gives its output."""
        return self._run(work)

    def _run(self, work: Work, caller: Context | None = None) -> Any:
        flush = partial(self.heartbeat.flush, work)
        found, context = runner.prepare(self.engine, work, flush, self.make_call, caller)
        with self.heartbeat.over(work, context, work.claimed.timeout):
            return runner.run(found, context, work.request)

    def failed(self, work: Work, fault: Exception, carry: bool) -> Work | None:
        try:
            return self.engine.fail(work, fault, retry=not isinstance(fault, runner.FINAL_FAULTS), carry=carry)
        except Lost:
            return None

    def run_to_end(self, session: Session, seconds: float = 20.0) -> str:
        """Run a session's steps, also those that wait for their next try, until it has ended or is paused."""
        deadline = time.monotonic() + seconds
        while session.status == "active":
            if not self.run(session):
                time.sleep(0.01)
            assert time.monotonic() < deadline, f"still {session.status}: {self.states(session)}"
        return session.status

    def states(self, session: Session) -> dict[str, str]:
        """Status by name of all of a session's steps."""
        return {s["name"]: s["status"] for s in session.steps()}

    def events(self, session: Session) -> list[str]:
        """The types of a session's events, in order."""
        return [e.type for e in session.stream(follow=False)]

    def close(self) -> None:
        self.engine.database.dispose()
