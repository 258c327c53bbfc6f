"""Who runs which job of maintenance: one row a job with its lease, and one a run, keyed by the time it was due.

A job is taken by one conditional UPDATE of its row. It raises the row's epoch, which all later writes of the run name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    Double,
    Integer,
    Table,
    Text,
    and_,
    bindparam,
    case,
    or_,
    select,
    text,
    update,
)

from . import serial
from .database import Query, Transaction, now
from .tables import metadata

#: A due time is given up after so many runs of it that were lost: a job may be what kills its runners.
MOST_ATTEMPTS: Final = 3

maintenance_jobs = Table(
    "maintenance_jobs",
    metadata,
    Column("job", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),  # rises each time that the job is taken
    Column("scheduled_at", Double, nullable=False),  # the due time that was taken last
    Column("attempts", Integer, nullable=False),  # how often that one was taken
    Column("claim", Text),  # who runs it; none: nobody
    Column("lease_until", Double),
    sqlite_with_rowid=False,
)
#: The key says "at most once": a due time of a job has one run, whose result is that of the last epoch.
maintenance_runs = Table(
    "maintenance_runs",
    metadata,
    Column("job", Text, primary_key=True),
    Column("scheduled_at", Double, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("runner", Text, nullable=False),  # host:pid
    Column("source", Text, nullable=False),  # beat, worker, hand
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("outcome", Text, nullable=False),  # running, done, failed, lost, stopped
    Column("detail", Text),  # what it did, as JSON
    Column("error", Text),
    sqlite_with_rowid=False,
)

_j, _r = maintenance_jobs.c, maintenance_runs.c
_HELD = Query(select(_j.job, _j.epoch, _j.scheduled_at, _j.attempts, _j.claim, _j.lease_until, now()).order_by(_j.job))
_ADD = Query(
    text(
        "INSERT INTO maintenance_jobs (job, epoch, scheduled_at, attempts) VALUES (:job, 0, :scheduled, 0)"
        " ON CONFLICT (job) DO NOTHING"
    )
)
_this = _j.job == bindparam("named")
_mine = and_(_this, _j.epoch == bindparam("own"), _j.claim == bindparam("who"))
_due = bindparam("due", type_=Double)
_TAKE = Query(
    update(maintenance_jobs)
    .where(
        _this,
        or_(
            and_(_j.claim.is_(None), _j.scheduled_at < _due),
            and_(
                _j.claim.is_not(None),
                or_(_j.lease_until <= now(), _j.claim == bindparam("dead")),
                or_(
                    _j.scheduled_at < _due,
                    and_(_j.scheduled_at == _due, _j.attempts < MOST_ATTEMPTS),
                ),
            ),
        ),
    )
    .values(
        epoch=_j.epoch + 1,
        attempts=case((_j.scheduled_at == _due, _j.attempts + 1), else_=1),
        scheduled_at=_due,
        claim=bindparam("who"),
        lease_until=now() + bindparam("lease"),
    )
    .returning(_j.epoch)
)
_TAKEN = Query(select(_j.epoch).where(_this, _j.claim == bindparam("who")))
_LOSE = Query(
    update(maintenance_runs).where(_r.job == bindparam("named"), _r.outcome == "running").values(outcome="lost")
)
_RUN = Query(
    text(
        "INSERT INTO maintenance_runs (job, scheduled_at, epoch, runner, source, started_at, outcome)"
        " VALUES (:named, :due, :own, :runner, :source, :moment, 'running')"
        " ON CONFLICT (job, scheduled_at) DO UPDATE SET epoch = excluded.epoch, runner = excluded.runner,"
        " source = excluded.source, started_at = excluded.started_at, finished_at = NULL, outcome = 'running',"
        " detail = NULL, error = NULL"
    )
)
_RENEW = Query(update(maintenance_jobs).where(_mine).values(lease_until=now() + bindparam("lease")))
_FREE = Query(update(maintenance_jobs).where(_mine).values(claim=None, lease_until=None))
_GIVE_BACK = Query(update(maintenance_jobs).where(_mine).values(lease_until=now(), attempts=_j.attempts - 1))
_END = Query(
    update(maintenance_runs)
    .where(_r.job == bindparam("named"), _r.epoch == bindparam("own"))
    .values(finished_at=now(), outcome=bindparam("ended"), detail=bindparam("told"), error=bindparam("fault"))
)
_ENDED = Query(
    select(_r.outcome).where(_r.job == bindparam("named"), _r.epoch == bindparam("own"), _r.finished_at.is_not(None))
)
_CUT = Query(
    text(
        "DELETE FROM maintenance_runs WHERE job = :named AND scheduled_at <= (SELECT r.scheduled_at"
        " FROM maintenance_runs AS r WHERE r.job = :named ORDER BY r.scheduled_at DESC LIMIT 1 OFFSET :keep)"
    )
)
_COLUMNS: Final = (
    "job", "scheduled_at", "epoch", "runner", "source", "started_at", "finished_at", "outcome", "detail", "error"
)  # fmt: skip
_HISTORY = Query(
    select(*(_r[name] for name in _COLUMNS))
    .where(_r.job == bindparam("named"))
    .order_by(_r.scheduled_at.desc())
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Held:
    """A job's row. Times are seconds since 1970 by the database's clock; `live`: its lease has not ended."""

    epoch: int
    scheduled_at: float
    attempts: int
    claim: str | None
    lease_until: float | None
    live: bool


def held(tx: Transaction) -> tuple[dict[str, Held], float]:
    """The rows of all jobs by name, and the database's clock. One query, unless there is no row."""
    found = tx.rows(_HELD)
    moment = float(found[0][6]) if found else tx.now()
    rows = {
        job: Held(epoch, scheduled_at, attempts, claim, until, until is not None and until > moment)
        for job, epoch, scheduled_at, attempts, claim, until, _ in found
    }
    return rows, moment


def add(tx: Transaction, jobs: dict[str, float]) -> None:
    """Note jobs that are not there yet, as if their time that is given had been taken."""
    tx.many(_ADD, [{"job": job, "scheduled": at} for job, at in sorted(jobs.items())])


def take(tx: Transaction, job: str, due: float, claim: str, lease: float, source: str, dead: str = "") -> int | None:
    """Take a job for the time that it is due; gives the epoch of the run.

    None: that time or a later one was taken, or somebody is at it. `dead`: a claim whose process is known to be gone.
    """
    epoch = tx.value(_TAKE, named=job, due=due, who=claim, lease=lease, dead=dead)
    if epoch is None:
        return None
    tx.run(_LOSE, named=job)
    runner = claim.rpartition(":")[0] or claim
    tx.run(_RUN, named=job, due=due, own=epoch, runner=runner, source=source, moment=tx.now())
    return int(epoch)


def taken(tx: Transaction, job: str, claim: str) -> int | None:
    """The epoch with which that claim holds a job."""
    return tx.value(_TAKEN, named=job, who=claim)  # type: ignore[no-any-return]


def renew(tx: Transaction, job: str, epoch: int, claim: str, lease: float) -> bool:
    """Let a run's lease begin anew; False if it is no longer this runner's."""
    return tx.run(_RENEW, named=job, own=epoch, who=claim, lease=lease) == 1


def end(
    tx: Transaction, job: str, epoch: int, claim: str, outcome: str, detail: Any, error: str | None, keep: int
) -> bool:
    """Record how a run ended, and keep the newest `keep` runs; False, and nothing is written, if the run is no longer
    this runner's. One that was stopped is free to be taken again for the same time.
    """
    stopped = outcome == "stopped"
    if tx.run(_GIVE_BACK if stopped else _FREE, named=job, own=epoch, who=claim) != 1:
        return False
    told = None if detail is None else serial.encode(detail).decode()
    tx.run(_END, named=job, own=epoch, ended=outcome, told=told, fault=error)
    tx.run(_CUT, named=job, keep=keep)
    return True


def ended(tx: Transaction, job: str, epoch: int) -> bool:
    """Whether the end of that run is recorded."""
    return tx.row(_ENDED, named=job, own=epoch) is not None


def history(tx: Transaction, job: str, most: int) -> list[dict[str, Any]]:
    """The newest runs of a job, the newest first; `detail` is JSON text."""
    return [dict(zip(_COLUMNS, row, strict=True)) for row in tx.rows(_HISTORY, named=job, most=most)]
