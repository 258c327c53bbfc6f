"""Results that a fork may take over: what the steps of the session that it was made from gave, by what they were asked.

The results stay where they are until a step of the fork takes one over: then it has a row of its own, and the blob, if
it is a large one, is referred to by both. So either session can be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Column, Integer, Table, Text, bindparam, insert, select, update

from .database import Query, Transaction, now
from .steps import known_in_state, this_step
from .tables import metadata, steps

reusable_results = Table(
    "reusable_results",
    metadata,
    Column("session_id", Text, primary_key=True),  # the fork
    Column("key", Text, primary_key=True),  # a hash over agent, version, permissions and request
    Column("number", Integer, primary_key=True),  # of the step in the session that the fork was made from
    Column("epoch", Integer, nullable=False),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)

_s, _u = steps.c, reusable_results.c
_ADD = Query(
    insert(reusable_results).values({c: bindparam(c) for c in ("session_id", "key", "number", "epoch", "name")})
)
_FIND = Query(
    select(_u.number, _u.epoch, _u.name)
    .where(_u.session_id == bindparam("session"), _u.key == bindparam("wanted"))
    .order_by(_u.number)
)
_READY = Query(select(_s.number, _s.name, _s.kind, _s.agent, _s.phase).where(this_step, known_in_state("ready")))
_FINISH = Query(
    update(steps)
    .where(this_step, known_in_state("ready"))
    .values(
        status="done",
        epoch=_s.epoch + 1,
        result_epoch=_s.epoch + 1,
        cached=1,
        progress=1.0,
        started_at=now(),
        finished_at=now(),
    )
    .returning(_s.epoch)
)


class Reusable(NamedTuple):
    """A result that may be taken over: of which step, and its claim."""

    number: int
    epoch: int
    name: str


class Ready(NamedTuple):
    """A step that is ready."""

    number: int
    name: str
    kind: str
    agent: str
    phase: str


def offer(tx: Transaction, session_id: str, found: Iterable[tuple[str, Reusable]]) -> None:
    """Note what a fork may take over, by key."""
    tx.many(_ADD, [{"session_id": session_id, "key": key, **one._asdict()} for key, one in found])


def find(tx: Transaction, session_id: str, key: str, name: str) -> Reusable | None:
    """What a step of a fork may take over: of equal steps the one of its name, else the first."""
    found = [Reusable(*row) for row in tx.rows(_FIND, session=session_id, wanted=key)]
    return next((one for one in found if one.name == name), found[0] if found else None)


def ready(tx: Transaction, session_id: str, number: int) -> Ready | None:
    """A step, if it is ready."""
    row = tx.row(_READY, session=session_id, number=number)
    return Ready(*row) if row else None


def finish(tx: Transaction, session_id: str, number: int) -> int:
    """ready -> done, for a step that takes a result over; gives the epoch that its result is to have."""
    return int(tx.value(_FINISH, session=session_id, number=number))
