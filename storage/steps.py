"""Rows of steps that are claimed: by whom, until when, and how the claim ends.

Every move of a step is one conditional UPDATE that says where it comes from. Moves of waiting steps are in `graph`,
moves of all steps of a session at once in `bulk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal_column, select, update

from .database import Call, Query, Transaction, now
from .tables import steps

#: States in which a step stays for good; the first one that it reaches wins.
FINAL = ("done", "failed", "dead", "skipped", "cancelled")
is_final: list[Any] = [literal_column(f"'{s}'") for s in FINAL]
_s = steps.c
this_step = and_(_s.session_id == bindparam("session"), _s.number == bindparam("number"))


def in_state(status: str) -> Any:
    """A condition on a step's status. Written out, not bound: the planner only uses a partial index whose condition
    it can read.
    """
    return _s.status == literal_column(f"'{status}'")


def known_in_state(status: str) -> Any:
    """The same for a step that is found by its key, written so that no partial index answers it.

    PostgreSQL takes the smallest index that seems to do, and reads all of a session's ready steps for one of them.
    """
    return func.coalesce(_s.status, "") == literal_column(f"'{status}'")


@dataclass(slots=True)
class Claimed:
    """A step that this process has claimed, as its row says."""

    session_id: str
    number: int
    name: str
    agent: str
    epoch: int
    attempts: int
    failures: int
    retries: int
    backoff: float
    timeout: float | None
    queue: str
    claim: str
    phase: str
    kind: str = "agent"
    input: str | None = None  # the JSON text of its input, where it was read with the claim


_COLUMNS = (
    _s.session_id,
    _s.number,
    _s.name,
    _s.agent,
    _s.epoch,
    _s.attempts,
    _s.failures,
    _s.retries,
    _s.backoff,
    _s.timeout,
    _s.queue,
    _s.claim,
    _s.phase,
    _s.kind,
)


_IS_ACTIVE: ColumnElement[bool] = literal_column(
    "EXISTS (SELECT 1 FROM sessions WHERE sessions.id = steps.session_id AND sessions.status = 'active')"
)
# As text: in a RETURNING clause SQLAlchemy leaves the table's name out, also where it is needed.
_INPUT_OF: ColumnElement[str] = literal_column(
    "(SELECT i.body FROM step_inputs AS i WHERE i.session_id = steps.session_id AND i.number = steps.number)"
)


_CLAIMED: dict[Any, Any] = {
    "status": "running",
    "epoch": _s.epoch + 1,
    "attempts": _s.attempts + 1,
    "claim": bindparam("owner"),
    "lease_until": now() + bindparam("lease"),
    "started_at": now(),
    "error": None,
    "progress": 0.0,
    "task": None,
}


def _claim(*more: Any) -> Query:
    best = (
        select(_s.number)
        .where(_s.session_id == bindparam("session"), in_state("ready"), _s.held == 0, _s.run_at <= now(), *more)
        .order_by(_s.priority.desc(), _s.number)
        .limit(1)
        .scalar_subquery()
    )
    return Query(
        update(steps)
        .where(_s.session_id == bindparam("session"), _s.number == best, known_in_state("ready"), _IS_ACTIVE)
        .values(_CLAIMED)
        .returning(*_COLUMNS, _INPUT_OF)
    )


_CLAIM_THIS = Query(
    update(steps)
    .where(this_step, known_in_state("ready"), _s.run_at <= now())
    .values(_CLAIMED)
    .returning(*_COLUMNS, _INPUT_OF)
)
_CLAIM = _claim()
_CLAIM_ON_QUEUE = _claim(_s.queue == bindparam("on"))


def claiming(session_id: str, owner: str, lease: float, queue: str | None = None) -> Call:
    """Claims the best ready step (of one queue, or of any) of a session that is active and locked by the caller."""
    values = {"session": session_id, "owner": owner, "lease": lease}
    return (_CLAIM, values) if queue is None else (_CLAIM_ON_QUEUE, {**values, "on": queue})


def claim(tx: Transaction, session_id: str, owner: str, lease: float, queue: str | None = None) -> Claimed | None:
    """Run `claiming`; gives the step, or None."""
    query, values = claiming(session_id, owner, lease, queue)
    row = tx.row(query, **values)
    return Claimed(*row) if row else None


def claim_this(tx: Transaction, session_id: str, number: int, owner: str, lease: float) -> Claimed | None:
    """Claim one step if it is ready and due, also in a session that is paused; gives the step, or None."""
    row = tx.row(_CLAIM_THIS, session=session_id, number=number, owner=owner, lease=lease)
    return Claimed(*row) if row else None


_mine = and_(this_step, known_in_state("running"), _s.epoch == bindparam("at_epoch"))
_FINISH = Query(
    update(steps)
    .where(_mine)
    .values(
        status="done",
        result_epoch=_s.epoch,
        lease_until=None,
        progress=1.0,
        finished_at=now(),
        cached=bindparam("from_cache"),
    )
    .returning(_s.number)
)
_FAIL = Query(
    update(steps)
    .where(_mine)
    .values(
        status=bindparam("to"),
        failures=_s.failures + 1,
        epoch=_s.epoch + 1,
        error=bindparam("why"),
        lease_until=None,
        run_at=now() + bindparam("delay"),
        finished_at=case((bindparam("to") == "ready", None), else_=now()),
        held=bindparam("paused"),
    )
)


_HOLDING = Query(select(_s.number).where(_mine))


def holding(c: Claimed) -> Call:
    """Gives a row if the claim is still its worker's."""
    return _HOLDING, {"session": c.session_id, "number": c.number, "at_epoch": c.epoch}


def finishing(c: Claimed, cached: bool = False) -> Call:
    """running -> done for this claim; no row if the claim is no longer the step's."""
    return _FINISH, {"session": c.session_id, "number": c.number, "at_epoch": c.epoch, "from_cache": int(cached)}


def fail(tx: Transaction, c: Claimed, to: str, error: str, delay: float = 0.0, held: bool = False) -> bool:
    """running -> ready (after `delay` seconds) or failed, for this claim; False if the claim is lost."""
    return (
        tx.run(
            _FAIL,
            session=c.session_id,
            number=c.number,
            at_epoch=c.epoch,
            to=to,
            why=tx.seal(error, "steps.error", c.session_id, c.number),
            delay=delay,
            paused=int(held),
        )
        == 1
    )


_RENEW = Query(
    update(steps)
    .where(_mine)
    .values(lease_until=now() + bindparam("lease"), progress=bindparam("part"), task=bindparam("line"))
)
_TAKE_BACK = Query(
    update(steps)
    .where(_mine)
    .values(
        status=bindparam("to"),
        epoch=_s.epoch + 1,
        lease_until=None,
        error=bindparam("why"),
        attempts=_s.attempts - bindparam("uncount"),
        finished_at=case((bindparam("to") == "ready", None), else_=now()),
        held=bindparam("paused"),
    )
)
_EXPIRED = Query(
    select(*_COLUMNS).where(in_state("running"), _s.lease_until < now()).order_by(_s.lease_until).limit(200)
)
_RUNNING = Query(select(*_COLUMNS).where(in_state("running"), _s.lease_until.is_not(None)))


def renew(tx: Transaction, c: Claimed, lease: float, progress: float, task: str | None) -> bool:
    """Put off the end of a claim's lease and note its progress; False if the claim is lost."""
    line = tx.seal(task, "steps.task", c.session_id, c.number)
    return (
        tx.run(_RENEW, session=c.session_id, number=c.number, at_epoch=c.epoch, lease=lease, part=progress, line=line)
        == 1
    )


def take_back(tx: Transaction, c: Claimed, to: str, why: str | None, uncount: bool = False, held: bool = False) -> bool:
    """running -> ready or dead, for a claim whose worker is gone or gives it back (then its attempt does not count)."""
    return (
        tx.run(
            _TAKE_BACK,
            session=c.session_id,
            number=c.number,
            at_epoch=c.epoch,
            to=to,
            why=why,
            uncount=int(uncount),
            paused=int(held),
        )
        == 1
    )


_PUT_BACK = Query(
    update(steps)
    .where(_mine)
    .values(
        status="ready",
        epoch=_s.epoch + 1,
        attempts=_s.attempts - 1,
        lease_until=None,
        started_at=None,
        run_at=now() + bindparam("delay"),
        held=bindparam("paused"),
    )
)


def put_back(tx: Transaction, c: Claimed, delay: float, held: bool) -> bool:
    """running -> ready after `delay` seconds, for a claim whose agent was not called: no attempt is counted. False if
    the claim is lost.
    """
    values = {"session": c.session_id, "number": c.number, "at_epoch": c.epoch, "delay": delay, "paused": int(held)}
    return tx.run(_PUT_BACK, **values) == 1


def expired(tx: Transaction) -> list[Claimed]:
    """Running steps whose lease has ended by the database's clock, the longest first, 200 at most."""
    return [Claimed(*row) for row in tx.rows(_EXPIRED)]


_PROGRESS = Query(
    select(_s.number, _s.progress, _s.task).where(
        _s.session_id == bindparam("session"), _s.status == bindparam("state")
    )
)


def progress(tx: Transaction, session_id: str) -> dict[int, tuple[float, str | None]]:
    """(progress, task) of a session's running steps by number: what is written without a turn."""
    found = tx.rows(_PROGRESS, session=session_id, state="running")
    return {number: (part, tx.open(line, "steps.task", session_id, number)) for number, part, line in found}


def running(tx: Transaction) -> list[Claimed]:
    """All running steps."""
    return [Claimed(*row) for row in tx.rows(_RUNNING)]
