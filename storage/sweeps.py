"""The one query that an idle worker's sweeper asks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, case, exists, literal_column, or_, select

from .database import Query, Transaction, now
from .tables import outbox, steps

_s = steps.c
_ready: Any = literal_column("'ready'")
_running: Any = literal_column("'running'")
_ANYTHING = Query(
    select(
        case(
            (
                or_(
                    exists(select(1).select_from(steps).where(_s.status == _running)),
                    exists(select(1).select_from(outbox).where(outbox.c.created_at <= now() - bindparam("stale"))),
                    exists(
                        select(1)
                        .select_from(steps)
                        .where(
                            _s.status == _ready,
                            _s.held == 0,
                            _s.run_at <= now() - bindparam("age"),
                            _s.hinted_at <= now() - bindparam("quiet"),
                        )
                    ),
                ),
                1,
            ),
            else_=0,
        )
    )
)


def anything(tx: Transaction, stale: float, age: float, quiet: float) -> bool:
    """Whether a step is running, a hint has waited `stale` seconds, or a ready step is due and unseen (see
    `steps.unhinted`).
    """
    return bool(tx.value(_ANYTHING, stale=stale, age=age, quiet=quiet))
