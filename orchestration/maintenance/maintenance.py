"""`Celeriac.maintenance`: what users hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ...config.schedules import OFF
from ...errors import MaintenanceError
from ...storage import maintenance, serial, statistics
from ...storage.database import Transaction
from ...storage.maintenance import Held
from ..engine import Engine
from ..guard.access import EVERYTHING, Caller
from .keeper import Ended, Keeper

#: Runs that are shown where nobody says how many.
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as it stands. Times are seconds since 1970 by the database's clock.

    `seconds` is how long the last run took, `schedule` the text of the setting. `last_outcome` is running, done,
    failed, lost or stopped; None: it never ran.
    """

    name: str
    what: str
    schedule: str
    next_run: float | None
    last_run: float | None
    last_outcome: str | None
    seconds: float | None
    runner: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of a job. `source` is who had it made: beat, worker or hand; `detail` what it did."""

    job: str
    scheduled_at: float
    epoch: int
    runner: str
    source: str
    started_at: float
    finished_at: float | None
    outcome: str
    detail: Any
    error: str | None

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs, and where nobody knows."""
        return None if self.finished_at is None else self.finished_at - self.started_at


class Maintenance:
    """The jobs that keep everything small: when they run, how they ran, running one now. They are of all tenants."""

    def __init__(self, engine: Engine, keeper: Keeper, caller: Caller) -> None:
        engine.access.require(caller, "admin", EVERYTHING)
        if caller.tenant:
            raise MaintenanceError(
                f"maintenance is of all tenants; it cannot be looked at or run within {caller.tenant!r}"
            )
        self._engine = engine
        self._keeper = keeper

    def jobs(self) -> list[JobState]:
        """All jobs, with their last and next run."""

        def read(tx: Transaction) -> list[JobState]:
            held, clock = maintenance.held(tx)
            return [self._state(tx, name, held.get(name), clock) for name in self._keeper.jobs]

        return self._engine.database.read(read)

    def _state(self, tx: Transaction, name: str, held: Held | None, clock: float) -> JobState:
        schedule = self._keeper.schedules.get(name)
        newest = _newest(tx, name, held, 1)
        last = newest[0] if newest else None
        return JobState(
            name=name,
            what=self._keeper.jobs[name].what,
            schedule=self._engine.settings.maintenance.get(name, OFF),
            next_run=schedule.following(clock) if schedule is not None else None,
            last_run=last.started_at if last else None,
            last_outcome=last.outcome if last else None,
            seconds=last.seconds if last else None,
            runner=last.runner if last else None,
            error=last.error if last else None,
        )

    def run(self, name: str) -> Ended:
        """Run a job here and now; gives how that ended. Raises MaintenanceError where somebody is at it already."""
        return self._keeper.run_now(name)

    def history(self, name: str, limit: int = SHOWN) -> list[PastRun]:
        """The newest runs of a job, the newest first. Raises MaintenanceError for a job that there is not."""
        if name not in self._keeper.jobs:
            raise MaintenanceError(f"there is no job {name!r:.60}; there are: {', '.join(self._keeper.jobs)}")
        return self._engine.database.read(lambda tx: _newest(tx, name, maintenance.held(tx)[0].get(name), limit))

    def stats(self, limit: int = 1) -> list[dict[str, Any]]:
        """The newest rows of statistics, the newest first: {at, seconds (since the row before), sessions and steps
        (numbers by status), entries, bytes, per_second}.
        """
        return self._engine.database.read(lambda tx: statistics.newest(tx, limit))


def _newest(tx: Transaction, name: str, held: Held | None, most: int) -> list[PastRun]:
    """The newest runs of a job; one whose runner is silent is lost, though nobody has noted that yet."""
    found = []
    for row in maintenance.history(tx, name, most):
        runs = held is not None and held.live and held.epoch == row["epoch"]
        if row["outcome"] == "running" and not runs:
            row["outcome"] = "lost"
        found.append(PastRun(**{**row, "detail": serial.decode(row["detail"]) if row["detail"] else None}))
    return found


__all__ = ["Ended", "JobState", "Maintenance", "PastRun"]
