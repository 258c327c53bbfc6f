"""Ready steps from outside: which sessions have some, and which of them nobody was told of lately."""

from __future__ import annotations

from sqlalchemy import Text, bindparam, func, or_, select, update

from .database import Query, Transaction, now
from .steps import in_state
from .tables import steps

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
_WAITING = Query(
    select(_s.session_id, _s.priority)
    .where(
        in_state("ready"),
        _s.held == 0,
        _s.run_at <= now(),
        or_(bindparam("on", type_=Text).is_(None), _s.queue == bindparam("on", type_=Text)),
    )
    .order_by(_s.session_id)
    .limit(bindparam("most"))
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


def waiting(tx: Transaction, queue: str | None, most: int = 50) -> list[tuple[str, int]]:
    """(session, priority) of steps on a queue, or on any, that can be claimed now: those of the oldest sessions."""
    return tx.rows(_WAITING, on=queue, most=most)


def ready_left(tx: Transaction, session_id: str) -> list[tuple[str, int, int]]:
    """(queue, priority, count) of a session's steps that can be claimed now."""
    return tx.rows(_READY_LEFT, session=session_id)
