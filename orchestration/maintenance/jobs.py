"""What maintenance does: the jobs by name. Each bears to be begun again, and to run where another run was cut off."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...errors import ArchiveError, SessionError, SessionNotFound
from ...storage import checkpoints, results, sessions, statistics
from ...storage.states.sql import SqlBackend
from .. import control, sweeping
from ..cache import ResultCache
from ..engine import Engine
from ..guard.access import Housekeeper
from ..turn import Turn

#: Rows that one transaction deletes, and sessions that one query finds.
BATCH: Final = 500


class Interrupted(Exception):
    """The run is to end before its job is done: its runner stops, or has lost the job."""


@dataclass(slots=True)
class Run:
    """What a job is handed: the time that it is due (seconds since 1970), its fencing epoch, and what it works on.

    Any of `stops` ends it.
    """

    job: str
    scheduled_at: float
    epoch: int
    engine: Engine
    cache: ResultCache
    stops: Sequence[threading.Event] = ()

    def check(self) -> None:
        """Raise Interrupted if the run is to end. Jobs call it between their batches."""
        if any(stop.is_set() for stop in self.stops):
            raise Interrupted


@dataclass(frozen=True, slots=True)
class Job:
    """A job: what it does, in a sentence, and how. What `work` gives is kept with the run, as JSON."""

    name: str
    what: str
    work: Callable[[Run], dict[str, Any]]


def sweep(run: Run) -> dict[str, Any]:
    """Take back the steps of lost workers, send hints that were lost, remove what killed writers left."""
    swept = sweeping.sweep(run.engine)
    return {"returned": swept.returned, "dead": swept.dead, "hinted": swept.hinted}


def expiry(run: Run) -> dict[str, Any]:
    """Delete cached results and values of state whose time is over; cancel sessions that nobody goes on with."""
    cached = 0
    while count := run.cache.tidy():
        cached += count
        run.check()
    values, backend = 0, run.engine.state.places.backend
    while isinstance(backend, SqlBackend) and (count := backend.forget_past(BATCH)):
        values += count
        run.check()
    return {"cached": cached, "state": values, "sessions": _cancel_inactive(run)}


def _cancel_inactive(run: Run) -> int:
    engine, idle = run.engine, run.engine.settings.inactive_days * 86400
    count = 0
    for session_id, _ in engine.database.read(lambda tx: sessions.inactive(tx, None, idle)) if idle else ():
        run.check()
        with contextlib.suppress(SessionError, SessionNotFound):  # it has ended, or was deleted, just now
            control.cancel(engine, session_id)
            count += 1
    return count


def keep_checkpoints(run: Run) -> dict[str, Any]:
    """Delete the checkpoints that sessions have over `checkpoints_kept`, also of sessions that still run."""
    engine, after, count, touched = run.engine, "", 0, 0
    keep = engine.settings.checkpoints_kept
    while ids := engine.database.read(lambda tx, after=after: checkpoints.prunable(tx, keep, after, BATCH)):  # type: ignore[misc]
        for session_id in ids:
            run.check()
            with contextlib.suppress(SessionNotFound):
                gone = engine.in_turn(session_id, lambda turn: _prune(engine, turn))
                count, touched = count + gone, touched + bool(gone)
        after = ids[-1]
    return {"checkpoints": count, "sessions": touched}


def _prune(engine: Engine, turn: Turn) -> int:
    before = checkpoints.count(turn.tx, turn.hot.id)
    freed = checkpoints.prune(turn.tx, turn.hot, engine.settings.checkpoints_kept)
    results.let_go(turn.tx, engine.database, engine.blobs, freed)
    gone = before - checkpoints.count(turn.tx, turn.hot.id)
    if gone:
        turn.event("checkpoints.pruned", component="maintenance", data={"count": gone})
    return gone


def back_up(run: Run) -> dict[str, Any]:
    """Make a backup of what has changed since the last one."""
    from ..backups.backups import Backups

    made = Backups(run.engine, Housekeeper()).create(label="scheduled")
    return {"id": made.id, "rows": made.rows, "written": made.written}


def keep_backups(run: Run) -> dict[str, Any]:
    """Delete the backups that the settings `backups_kept...` do not keep."""
    from ..backups.backups import Backups

    pruned = Backups(run.engine, Housekeeper()).prune()
    return {"deleted": len(pruned.deleted), "kept": len(pruned.kept), "bytes": pruned.size}


def archive(run: Run) -> dict[str, Any]:
    """Put sessions into archives that ended `archive_days` ago, and finish what killed processes left of archives."""
    from ..archives import making
    from ..archives.archives import Archives
    from ..sessions import Sessions

    engine, count, age = run.engine, 0, run.engine.settings.archive_days * 86400
    tidied = Archives(engine, Housekeeper(), Sessions(engine, caller=Housekeeper())).tidy()
    for session_id in engine.database.read(lambda tx: sessions.ended_before(tx, age)) if age else ():
        run.check()
        with contextlib.suppress(SessionError, SessionNotFound, ArchiveError):  # it has moved on just now
            making.create(engine, session_id)
            count += 1
    return {"sessions": count, "settled": tidied.settled, "files": tidied.files}


def prune(run: Run) -> dict[str, Any]:
    """Prune sessions and messages of all tenants as the settings `prune_...` say; by default they do not."""
    if run.engine.settings.prune_strategy == "off":
        return {}
    from ..keeping.pruning import Pruning

    found: Counter[str] = Counter()
    for tenant in run.engine.database.read(sessions.tenants):
        run.check()
        report = Pruning(run.engine, Housekeeper(tenant=tenant)).run().to_dict()
        found.update(_figures(report | report["counts"]))
    return dict(found)


def let_go(run: Run) -> dict[str, Any]:
    """Take away what the settings `retention_...` do not keep, and give the room back to the disk."""
    from ..keeping.retention import Retention

    return _figures(Retention(run.engine, Housekeeper()).run().to_dict())


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    """The sums of a report, without the list of what went."""
    return {name: value for name, value in report.items() if isinstance(value, int | float) and name != "dry_run"}


def take_statistics(run: Run) -> dict[str, Any]:
    """Write a row of figures: counts by status, bytes, rates."""
    database = run.engine.database
    figures = database.read(statistics.taken)
    database.write(lambda tx: statistics.keep(tx, figures, run.engine.settings.maintenance_kept))
    return {"sessions": sum(figures["sessions"].values()), "bytes": figures["bytes"]["database"]}


def _named(jobs: dict[str, Callable[[Run], dict[str, Any]]]) -> dict[str, Job]:
    return {name: Job(name, (work.__doc__ or "").strip(), work) for name, work in jobs.items()}


#: In the order in which those that are due together run. The setting `maintenance` has a schedule for each.
JOBS: Final = _named(
    {
        "sweep": sweep,
        "expiry": expiry,
        "statistics": take_statistics,
        "archive": archive,
        "checkpoints": keep_checkpoints,
        "backup": back_up,
        "backup_retention": keep_backups,
        "pruning": prune,
        "retention": let_go,
    }
)
