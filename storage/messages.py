"""Rows of messages to a session: steps that answer one each, in the order in which they were sent."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import bindparam, literal_column, select

from .database import Query, Transaction
from .sessions import Hot, document
from .tables import steps

#: The kind of such a step, and the phase of a session while it runs.
MESSAGE: Final = "message"
PHASE: Final = "conversation"
#: Phases in which the last step of a conversation can end.
_PHASES: Final = (PHASE, "resumed")

_s = steps.c
_LAST = Query(
    select(_s.number, _s.name, _s.status)
    .where(_s.session_id == bindparam("session"), _s.kind == literal_column(f"'{MESSAGE}'"))
    .order_by(_s.number.desc())
    .limit(1)
)


def keep_open(tx: Transaction, hot: Hot) -> bool:
    """Whether a session whose steps have all ended is a conversation, in which more may be said: it has no plan.
    Others are not asked for theirs.
    """
    return hot.phase in _PHASES and document(tx, hot.id, "plan") is None


class Sent(NamedTuple):
    """A message that was sent, as its step."""

    number: int
    name: str
    status: str


def last(tx: Transaction, session_id: str) -> Sent | None:
    """The message that was sent last. Only the rows that came after it are gone through."""
    row = tx.row(_LAST, session=session_id)
    return Sent(*row) if row else None
