"""Rows of durable calls: steps that an agent adds while it runs, whose results it is given at once.

Their kind is `call` (of another agent) or `once` (of a function). They are members of the step that makes them, at the
position of the call; nothing waits for them, so their end lets nothing begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import and_, bindparam, insert, literal_column, select, update

from .database import Query, Transaction, now
from .graph import INSERT_INPUT, input_of, seal_input
from .steps import Claimed, is_final, this_step
from .tables import step_inputs, steps

CALL: Final = "call"
ONCE: Final = "once"
#: So many calls of earlier attempts are read at a time; their results one by one.
AT_ONCE: Final = 200

_s = steps.c
_COLUMNS = (
    "number", "name", "kind", "agent", "phase", "member_of", "position", "epoch", "queue", "priority", "retries",
    "backoff", "timeout",
)  # fmt: skip
_COMMON: dict[str, Any] = {name: bindparam(name) for name in ("session_id", *_COLUMNS)}
_COMMON |= {"attempts": 1, "started_at": now()}
_ADD_RUNNING = Query(
    insert(steps).values(
        _COMMON | {"status": "running", "claim": bindparam("owner"), "lease_until": now() + bindparam("lease")}
    )
)
_ADD_DONE = Query(
    insert(steps).values(
        _COMMON | {"status": "done", "result_epoch": bindparam("epoch"), "progress": 1.0, "finished_at": now()}
    )
)
_BEGUN = Query(
    select(_s.position, _s.number, _s.name, _s.kind, _s.agent, step_inputs.c.body)
    .join(step_inputs, and_(step_inputs.c.session_id == _s.session_id, step_inputs.c.number == _s.number))
    .where(
        _s.session_id == bindparam("session"),
        _s.member_of == bindparam("parent"),
        _s.position >= bindparam("first"),
        _s.kind.in_([literal_column(f"'{CALL}'"), literal_column(f"'{ONCE}'")]),
    )
    .order_by(_s.position)
    .limit(AT_ONCE)
)
_STANDING = Query(select(_s.status, _s.result_epoch, _s.error, _s.run_at <= now()).where(this_step))


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that was begun; `input` is JSON text."""

    position: int
    number: int
    name: str
    kind: str
    agent: str
    input: str


def add_running(tx: Transaction, c: Claimed, row: Mapping[str, Any], lease: float) -> None:
    """Insert the call of an agent, claimed from the start as `c` says, with its input."""
    values = {"session_id": c.session_id, **{name: row[name] for name in _COLUMNS}}
    tx.later(_ADD_RUNNING, [values | {"owner": c.claim, "lease": lease}])
    _add_input(tx, c.session_id, c.number, c.input or "")


def add_done(tx: Transaction, session_id: str, row: Mapping[str, Any], body: str) -> None:
    """Insert a call that was made, with its input; its result is that of its epoch."""
    tx.later(_ADD_DONE, [{"session_id": session_id, **{name: row[name] for name in _COLUMNS}}])
    _add_input(tx, session_id, row["number"], body)


def _add_input(tx: Transaction, session_id: str, number: int, body: str) -> None:
    sealed = seal_input(tx, session_id, number, body)
    tx.later(INSERT_INPUT, [{"session_id": session_id, "number": number, "body": sealed}])


def begun(tx: Transaction, session_id: str, parent: int, first: int) -> list[Begun]:
    """The calls of a step from that position on, in order, `AT_ONCE` at most."""
    found = [Begun(*row) for row in tx.rows(_BEGUN, session=session_id, parent=parent, first=first)]
    return [replace(one, input=input_of(tx, session_id, one.number, one.input)) for one in found]


_CANCEL = Query(
    update(steps)
    .where(
        _s.session_id == bindparam("session"),
        _s.member_of == bindparam("parent"),
        _s.kind == literal_column(f"'{CALL}'"),
        _s.status.not_in(is_final),
    )
    .values(status="cancelled", epoch=_s.epoch + 1, lease_until=None, finished_at=now(), error=bindparam("why"))
    .returning(_s.number, _s.name)
)


def cancel(tx: Transaction, session_id: str, parent: int, why: str) -> list[tuple[int, str]]:
    """Cancel the calls of a step that have not ended; gives their numbers and names."""
    return tx.rows(_CANCEL, session=session_id, parent=parent, why=why)


def standing(tx: Transaction, session_id: str, number: int) -> tuple[str, int | None, str | None, bool] | None:
    """How a call stands: (status, epoch of its result, error, whether it is due); None if it is gone."""
    row = tx.row(_STANDING, session=session_id, number=number)
    return None if row is None else (row[0], row[1], tx.open(row[2], "steps.error", session_id, number), row[3])
