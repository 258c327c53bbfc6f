"""One run of a recipe: the system under test, who asks it for work, what is done to it, and the verdict at the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from celeriac import Celeriac, Plan
from celeriac.errors import CeleriacError
from celeriac.orchestration.states import SESSION_ENDED
from chaos import ledger, verdict
from chaos.verdict import Broken, Counts
from chaos.workers import Beat, Process, Worker, environment

T = TypeVar("T")
LEASE_SECONDS = 1.0
SWEEP_SECONDS = 0.2
#: What may pass until a dead worker's step is ready again, beside lease and sweep, on two busy cores, in seconds.
MARGIN_SECONDS = 4.0


class Trial:
    """A database, a broker, workers and a driver. All that is random comes from `seed`."""

    def __init__(self, database_url: str, folder: Path, broker_url: str, seed: int, **settings: Any) -> None:
        self.folder = folder
        self.seed = seed
        self.dice = random.Random(seed)
        self.ledger = ledger.Ledger(folder / "ledger")
        self.variables = {ledger.VARIABLE: str(self.ledger.path)}
        self.settings: dict[str, Any] = {
            "data_dir": folder / "data",
            "database_url": database_url,
            "broker_url": broker_url,
            "agents": "chaos.agents",
            "lease_seconds": LEASE_SECONDS,
            "sweep_seconds": SWEEP_SECONDS,
            "inline_result_bytes": 1000,
        } | settings
        self.celeriac = Celeriac(embed=False, **{**self.settings, "agents": ["chaos.agents"]})
        self.workers: list[Worker] = []
        self.beats: list[Beat] = []
        #: What was asked for: key, and the session id that was answered, or None for an error.
        self.intents: list[tuple[str, str | None]] = []
        self._book = folder / "intents"
        self.faults: list[float] = []
        self.counts = Counts()

    # -- who asks ----------------------------------------------------------------------------------------------------

    def start(self, plan: Plan, **options: Any) -> str | None:
        """Ask for a session; what is asked is written down before, the answer after. None: the answer is an error."""
        key = f"k{len(self.intents)}"
        self._note(f"attempt {key}")
        try:
            answer = self.celeriac.sessions.start(plan, key=key, **options).id
        except CeleriacError as fault:
            answer = None
            self._note(f"unknown {key} {fault}")
        else:
            self._note(f"acknowledged {key} {answer}")
        self.intents.append((key, answer))
        return answer

    def _note(self, line: str) -> None:
        with self._book.open("a") as book:
            book.write(f"{time.monotonic():.6f} {line}\n")

    def ended(self) -> list[str]:
        """Ids of the sessions that have ended."""
        return [id_ for id_, status in self.statuses().items() if status in SESSION_ENDED]

    def statuses(self) -> dict[str, str]:
        """Status of every session by id."""
        return {id_: status for id_, _, status in self.query("SELECT id, key, status FROM sessions")}

    def query(self, sql: str) -> list[Any]:
        from sqlalchemy import text

        return self.celeriac.engine.database.read(lambda tx: tx.rows(text(sql)))

    # -- who works ---------------------------------------------------------------------------------------------------

    def worker(
        self, concurrency: int = 1, pool: str = "prefork", app: str = "chaos.worker", **variables: str
    ) -> Worker:
        """Start another worker."""
        env = self._environment(**variables)
        made = Worker(f"w{len(self.workers)}", self.folder, env, concurrency, pool, app)
        self.workers.append(made)
        return made

    def beat(self, app: str) -> Beat:
        """Start another beat."""
        made = Beat(f"beat{len(self.beats)}", self.folder, self._environment(), app)
        self.beats.append(made)
        return made

    def _environment(self, **variables: str) -> dict[str, str]:
        _ = self.celeriac.engine  # the schema is there before anybody looks
        return environment(self.settings, **self.variables, **variables)

    @property
    def processes(self) -> list[Process]:
        """Workers and beats."""
        return [*self.workers, *self.beats]

    def worker_of(self, pid: int) -> Worker:
        """The worker that a process belongs to."""
        return next(w for w in self.workers if w.owns(pid))

    def fault(self) -> None:
        """Note that a fault is made now."""
        self.faults.append(time.time())

    # -- waiting -----------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], T], seconds: float = 20.0, what: str = "") -> T:
        """Wait for a condition; gives its value. Raises Broken when the time is up."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise Broken(f"{what or 'a condition'}: not in {seconds:g} s{self._logs()}")
            time.sleep(0.02)

    def starts(self, at_least: int) -> Callable[[], bool]:
        """Whether so many attempts have started."""
        return lambda: len(self.ledger.lines("start")) >= at_least

    def drain(self, seconds: float) -> float:
        """Wait until every session has ended, at most so long; gives how long it took. What is left is lost."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            if all(status in SESSION_ENDED for status in self.statuses().values()):
                break
            time.sleep(0.03)
        return time.monotonic() - began

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, cap: int = 5, failed: int = 0) -> Counts:
        """Stop the workers, count, and check all that must hold; so many sessions have `failed`. Raises Broken."""
        self.stop()
        engine = self.celeriac.engine
        tables = verdict.Tables(engine)
        counts = verdict.count(tables, self.intents, self.ledger)
        counts.recoveries = self.counts.recoveries or self._recoveries(tables)
        self.counts = counts
        kinds = ("lost", "unexpected", "duplicated", "unknown")
        problems = [f"{n}: {getattr(counts, n)}" for n in kinds if getattr(counts, n)]
        problems += verdict.violations(tables, self.ledger, cap)
        if (found := [id_ for id_, _, status in tables.sessions if status == "failed"]) and len(found) != failed:
            problems.append(f"failed: {len(found)}, expected {failed}: {self.celeriac.sessions.get(found[0]).error}")
        try:
            verdict.check_database(engine)
        except AssertionError as fault:
            problems.append(str(fault))
        if problems:
            raise Broken("\n".join([f"seed {self.seed}:", *problems[:20], repr(counts), self._logs()]))
        return counts

    def _recoveries(self, tables: verdict.Tables) -> list[float]:
        """Seconds from a fault until each step that it hit was ready again, by the machine's clock."""
        found = []
        for event in tables.events:
            before = [at for at in self.faults if at <= event.at]
            if event.type == "step.returned" and before:
                found.append(event.at - before[-1])
        return found

    def _logs(self) -> str:
        return "".join(f"\n--- {w.name}\n{w.log[-1500:]}" for w in self.processes)

    def stop(self) -> None:
        """End what runs, without any manners."""
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        self.stop()
        self.celeriac.close()
