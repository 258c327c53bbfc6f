"""Ready steps from outside: which sessions have some, and which of them nobody was told of lately."""

from __future__ import annotations

from sqlalchemy import bindparam, func, select, update

from .database import Query, Transaction, now
from .steps import in_state
from .tables import sessions, steps

_s = steps.c

_UNHINTED = Query(
    select(_s.session_id, _s.queue, func.max(_s.priority), func.count())
    .select_from(steps)
    .where(
        in_state("ready"),
        _s.held == 0,
        _s.run_at <= now() - bindparam("age"),
        _s.hinted_at <= now() - bindparam("quiet"),
    )
    .group_by(_s.session_id, _s.queue)
    .limit(200)
)
_HINTED = Query(
    update(steps)
    .where(
        _s.session_id == bindparam("session"),
        _s.queue == bindparam("on"),
        in_state("ready"),
        _s.hinted_at <= now() - bindparam("quiet"),
    )
    .values(hinted_at=now())
)
_ANY_READY = Query(
    select(_s.session_id)
    .select_from(steps.join(sessions, sessions.c.id == _s.session_id))
    .where(in_state("ready"), _s.held == 0, _s.run_at <= now(), sessions.c.status == "active")
    .order_by(_s.session_id)
    .limit(bindparam("most"))
    .distinct()
)
_READY_LEFT = Query(
    select(_s.queue, func.max(_s.priority), func.count())
    .where(_s.session_id == bindparam("session"), in_state("ready"), _s.held == 0, _s.run_at <= now())
    .group_by(_s.queue)
)


def unhinted(tx: Transaction, age: float, quiet: float) -> list[tuple[str, str, int, int]]:
    """(session, queue, priority, count) of ready steps due for `age` seconds with no hint in the last `quiet`
    seconds.
    """
    return tx.rows(_UNHINTED, age=age, quiet=quiet)


def hinted(tx: Transaction, session_id: str, queue: str, quiet: float) -> int:
    """Note that this session's ready steps on that queue are hinted now; gives how many had no hint for `quiet`
    seconds.
    """
    return tx.run(_HINTED, session=session_id, on=queue, quiet=quiet)


def sessions_with_work(tx: Transaction, most: int) -> list[str]:
    """Ids of sessions that have a step to be claimed now, oldest session first."""
    return [row[0] for row in tx.rows(_ANY_READY, most=most)]


def ready_left(tx: Transaction, session_id: str) -> list[tuple[str, int, int]]:
    """(queue, priority, count) of a session's steps that can be claimed now."""
    return tx.rows(_READY_LEFT, session=session_id)
