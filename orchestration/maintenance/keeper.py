"""Running jobs of maintenance: which are due, taking one, keeping its lease, recording its end."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ...config import Settings, schedules
from ...config.schedules import Schedule
from ...errors import CeleriacError, MaintenanceError
from ...storage import maintenance, serial
from ...storage.maintenance import Held
from ..cache import ResultCache
from ..engine import Engine
from ..expansion import ERROR_CHARACTERS
from .jobs import JOBS, Interrupted, Job, Run

logger = logging.getLogger("celeriac.maintenance")

Source = Literal["beat", "worker", "hand"]
#: Workers leave a job that is due to beat for half of its period, but for no longer than so many seconds.
LONGEST_GRACE: Final = 10.0
#: Whoever waits for the next due time looks at its clock again after so many seconds.
LONGEST_WAIT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was made here: `outcome` is done, failed, lost or stopped; `detail` what the job said that it did."""

    job: str
    scheduled_at: float
    epoch: int
    outcome: str
    seconds: float
    detail: Any = None
    error: str | None = None


class Keeper:
    """Runs jobs as they are due. Any number of keepers in any number of processes may look at the same database."""

    def __init__(self, engine: Engine, cache: ResultCache, jobs: Mapping[str, Job] = JOBS) -> None:
        self._engine = engine
        self._cache = cache
        self.jobs = jobs
        #: When each job is due; those that are off are not in it.
        self.schedules = planned(engine.settings, jobs)
        self._known: dict[str, float] = {}  # the time that each job was taken for, as far as this process knows
        self._look_again: dict[str, float] = {}  # somebody is at these; by the database's clock
        self._ahead = 0.0  # how far the database's clock is ahead of this machine's

    # -- by schedule -------------------------------------------------------------------------------------------------

    def run_if_due(self, name: str, source: Source, ending: threading.Event | None = None) -> Ended | None:
        """Run a job if it is due and nobody is at it."""
        schedule = self.schedules.get(name)
        if schedule is None:
            return None
        held = self._look()[name]
        due = schedule.last(self._clock())
        if held.scheduled_at >= due and held.claim is None or held.live and not self._is_dead(held):
            return None
        return self._take(name, due, held, source, ending or threading.Event())

    def attend(self, ending: threading.Event) -> float:
        """Run what has been due for a while, one after the other; gives the seconds until there may be something.

        Asks the database only when a job is due that it does not know to be taken.
        """
        waiting = self._overdue()
        if waiting:
            held = self._look()
            clock = self._clock()
            for name, due in waiting.items():
                known, schedule = held[name], self.schedules[name]
                self._known[name] = known.scheduled_at
                if known.claim is None and known.scheduled_at >= due:
                    continue
                due = schedule.last(clock)
                if known.live and not self._is_dead(known):
                    period = schedule.following(due) - due
                    self._look_again[name] = clock + min(self._engine.settings.lease_seconds, period)
                    continue
                if known.claim is not None and known.scheduled_at >= due:
                    due = known.scheduled_at  # it was lost: the same time once more, if it was not tried often enough
                    if known.attempts >= maintenance.MOST_ATTEMPTS:
                        continue
                if ending.is_set():
                    return 0.0
                self._take(name, due, known, "worker", ending)
        return self._pause()

    def _overdue(self) -> dict[str, float]:
        """The due times that are not known to be taken, in the order of the jobs."""
        clock, found = self._clock(), {}
        for name, schedule in self.schedules.items():
            due = schedule.last(clock - self._grace(schedule, clock))
            again = self._look_again.get(name)
            if again is not None and again > clock:
                continue
            if again is not None or due > self._known.get(name, -1.0):
                self._look_again.pop(name, None)
                found[name] = due
        return found

    def _pause(self) -> float:
        clock = self._clock()
        ahead = [LONGEST_WAIT, *(at - clock for at in self._look_again.values())]
        for schedule in self.schedules.values():
            grace = self._grace(schedule, clock)
            ahead.append(schedule.following(clock - grace) + grace - clock)
        return max(min(ahead), 0.01)

    def _grace(self, schedule: Schedule, clock: float) -> float:
        last = schedule.last(clock)
        return min((schedule.following(last) - last) / 2, LONGEST_GRACE)

    def _clock(self) -> float:
        """The database's clock, as far as this process knows it."""
        return time.time() + self._ahead

    def _look(self) -> dict[str, Held]:
        """The rows of all jobs; where some are missing, they are added as if their last time had been taken."""
        held, moment = self._engine.database.read(maintenance.held)
        self._ahead = moment - time.time()
        missing = {name: schedule.last(moment) for name, schedule in self.schedules.items() if name not in held}
        missing |= {name: 0.0 for name in self.jobs if name not in held and name not in missing}
        if missing:
            self._engine.database.write(lambda tx: maintenance.add(tx, missing))
            held = self._engine.database.read(maintenance.held)[0]
        return held

    def _is_dead(self, held: Held) -> bool:
        return held.claim is not None and self._engine.presence.is_dead(held.claim)

    # -- by hand -----------------------------------------------------------------------------------------------------

    def run_now(self, name: str) -> Ended:
        """Run a job whether or not it is due, as of now. Raises MaintenanceError where somebody is at it."""
        if name not in self.jobs:
            raise MaintenanceError(f"there is no job {name!r:.60}; there are: {', '.join(self.jobs)}")
        held = self._look()[name]
        due = max(self._clock(), held.scheduled_at + 0.001)
        ended = self._take(name, due, held, "hand", threading.Event())
        if ended is None:
            raise MaintenanceError(f"the job {name} is at work already: {held.claim or 'it was begun just now'}")
        return ended

    # -- one run -----------------------------------------------------------------------------------------------------

    def _take(self, name: str, due: float, held: Held, source: Source, ending: threading.Event) -> Ended | None:
        engine = self._engine
        claim, lease = engine.presence.claim(), engine.settings.lease_seconds
        dead = held.claim or "" if self._is_dead(held) else ""
        epoch = engine.database.write(
            lambda tx: maintenance.take(tx, name, due, claim, lease, source, dead),
            settled=lambda tx: maintenance.taken(tx, name, claim),
        )
        if epoch is None:
            return None
        self._known[name] = due
        began, lost = time.monotonic(), threading.Event()
        with self._lease(name, epoch, claim, lost):
            run = Run(name, due, epoch, engine, self._cache, (ending, lost))
            try:
                outcome, detail, error = self._work(run, source)
            except BaseException:  # the process is to end: who had it run by hand means this run, others any
                with contextlib.suppress(Exception):
                    broken_off = ("failed", None, "interrupted") if source == "hand" else ("stopped", None, None)
                    self._record(name, epoch, claim, *broken_off)
                raise
        seconds = time.monotonic() - began
        if lost.is_set() or not self._record(name, epoch, claim, outcome, detail, error):
            logger.warning("the job %s was taken from this process after %.1f s", name, seconds)
            return Ended(name, due, epoch, "lost", seconds)
        return Ended(name, due, epoch, outcome, seconds, detail, error)

    def _work(self, run: Run, source: Source) -> tuple[str, Any, str | None]:
        try:
            return "done", self.jobs[run.job].work(run), None
        except Interrupted:
            return "stopped", None, None
        except Exception as fault:
            expected = isinstance(fault, CeleriacError)  # as of a folder that cannot be written
            if not (expected and source == "hand"):  # else it is told to who ran it
                logger.warning("the job %s failed: %s", run.job, fault, exc_info=not expected)
            said = self._engine.guard.text(f"{type(fault).__name__}: {fault}")
            return "failed", None, serial.storable(said[:ERROR_CHARACTERS])

    def _record(self, name: str, epoch: int, claim: str, outcome: str, detail: Any, error: str | None) -> bool:
        kept = self._engine.settings.maintenance_kept
        return self._engine.database.write(
            lambda tx: maintenance.end(tx, name, epoch, claim, outcome, detail, error, kept),
            settled=lambda tx: maintenance.ended(tx, name, epoch) or None,
        )

    @contextlib.contextmanager
    def _lease(self, name: str, epoch: int, claim: str, lost: threading.Event) -> Iterator[None]:
        """Renew the lease as long as the block runs; sets `lost` when that is no longer sure to succeed."""
        over, lease = threading.Event(), self._engine.settings.lease_seconds

        def renew() -> None:
            sure_until = time.monotonic() + lease
            while not over.wait(lease / 3):
                asked = time.monotonic()
                try:
                    if self._engine.database.write(lambda tx: maintenance.renew(tx, name, epoch, claim, lease)):
                        sure_until = asked + lease
                        continue
                except Exception as fault:
                    logger.warning("the lease of the job %s could not be renewed: %s", name, fault)
                    if time.monotonic() < sure_until:
                        continue
                lost.set()
                return

        thread = threading.Thread(target=renew, name=f"celeriac-lease-{name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def planned(settings: Settings, jobs: Mapping[str, Job] = JOBS) -> dict[str, Schedule]:
    """The schedules of the jobs that are not off."""
    found = {name: schedules.parse(settings.maintenance.get(name, schedules.OFF)) for name in jobs}
    return {name: schedule for name, schedule in found.items() if schedule is not None}
