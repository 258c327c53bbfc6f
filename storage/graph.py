"""The graph of a session's steps: their rows and edges, who waits for whom, and looking one up by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    SmallInteger,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from .database import Call, Query, Row, Transaction, now
from .steps import in_state, is_final, this_step
from .tables import edges, step_inputs, steps

_s = steps.c

_END = Query(
    update(steps)
    .where(this_step, _s.status.not_in(is_final))
    .values(status=bindparam("to"), error=bindparam("why"), finished_at=now(), lease_until=None, epoch=_s.epoch + 1)
)
_GROUP_DONE = Query(
    update(steps).where(this_step, in_state("waiting")).values(status="done", progress=1.0, finished_at=now())
)
_OPEN_GROUP = Query(
    update(steps)
    .where(this_step, in_state("blocked"))
    .values(status="waiting", pending=bindparam("members"), started_at=now())
)
_READY_NOW = Query(update(steps).where(this_step, in_state("blocked")).values(status="ready", held=bindparam("paused")))


def end(tx: Transaction, session_id: str, number: int, to: str, error: str | None) -> bool:
    """Any state that is not final -> a final one; False if it was final already."""
    why = tx.seal(error, "steps.error", session_id, number)
    return tx.run(_END, session=session_id, number=number, to=to, why=why) == 1


def group_done(tx: Transaction, session_id: str, number: int) -> bool:
    """waiting -> done, for a group all of whose members have ended."""
    return tx.run(_GROUP_DONE, session=session_id, number=number) == 1


def open_group(tx: Transaction, session_id: str, number: int, members: int) -> bool:
    """blocked -> waiting, for a group whose members are being added."""
    return tx.run(_OPEN_GROUP, session=session_id, number=number, members=members) == 1


def make_ready(tx: Transaction, session_id: str, number: int, held: bool) -> bool:
    """blocked -> ready, for a step whose condition holds."""
    return tx.run(_READY_NOW, session=session_id, number=number, paused=int(held)) == 1


@dataclass(slots=True)
class Unblocked:
    """A step that nothing keeps waiting any more."""

    number: int
    name: str
    kind: str
    status: str
    guarded: int
    doomed: int
    pending: int
    queue: str
    priority: int
    phase: str


_TARGETS = select(edges.c.target).where(
    edges.c.session_id == bindparam("session"), edges.c.source == bindparam("source")
)

_DUE = (_s.number, _s.name, _s.kind, _s.status, _s.guarded, _s.doomed, _s.pending, _s.queue, _s.priority, _s.phase)
_IS_PAUSED: ColumnElement[int] = literal_column(
    "(SELECT CASE sessions.status WHEN 'active' THEN 0 ELSE 1 END FROM sessions WHERE sessions.id = steps.session_id)"
)


def _count_down(*waiting: ColumnElement[bool]) -> Query:
    ready = and_(_s.pending == 1, in_state("blocked"), _s.guarded == 0, _s.doomed == 0, bindparam("doom") == 0)
    return Query(
        update(steps)
        .where(*waiting)
        .values(
            pending=_s.pending - 1,
            doomed=case((bindparam("doom") == 1, 1), else_=_s.doomed),
            status=case((ready, literal_column("'ready'")), else_=_s.status),
            held=func.coalesce(cast(bindparam("paused"), SmallInteger), _IS_PAUSED),
        )
        .returning(*_DUE)
    )


# PostgreSQL reads all steps of the session for the first form: it takes one row of a session to be as many as all.
_told = _TARGETS.add_columns(edges.c.session_id).cte("told").prefix_with("MATERIALIZED")
_COUNT_DOWN = {
    "sqlite": _count_down(_s.session_id == bindparam("session"), _s.number.in_(_TARGETS)),
    "postgresql": _count_down(_s.session_id == _told.c.session_id, _s.number == _told.c.target),
}
_DUE_NOW = Query(
    select(*_DUE).where(
        _s.session_id == bindparam("session"),
        _s.pending == 0,
        _s.status.in_([literal_column("'blocked'"), literal_column("'waiting'")]),
    )
)


def counting_down(dialect: str, session_id: str, source: int, doom: bool = False, held: bool | None = None) -> Call:
    """Tells the steps that wait for `source` that it has ended; `unblocked` makes of its rows what came of it.

    A plain step among them is made ready in the same statement; groups, guarded and doomed ones are for the caller.
    `held` None: as the session's row says.
    """
    paused = None if held is None else int(held)
    return _COUNT_DOWN[dialect], {"session": session_id, "source": source, "doom": int(doom), "paused": paused}


def unblocked(rows: Sequence[Row]) -> list[Unblocked]:
    """Of the steps that were counted down, those that wait for nothing more."""
    return [Unblocked(*row) for row in rows if row[6] == 0]


def count_down(tx: Transaction, session_id: str, source: int, doom: bool, held: bool) -> list[Unblocked]:
    """Run `counting_down`; gives the steps that wait for nothing more."""
    query, values = counting_down(tx.dialect_name, session_id, source, doom, held)
    return unblocked(tx.rows(query, **values))


def due(tx: Transaction, session_id: str) -> list[Unblocked]:
    """Blocked steps and groups of a session that wait for nothing more."""
    return [Unblocked(*row) for row in tx.rows(_DUE_NOW, session=session_id)]


_INSERT = Query(
    insert(steps).values(
        {
            c: bindparam(c)
            for c in (
                "session_id",
                "number",
                "name",
                "kind",
                "agent",
                "phase",
                "member_of",
                "position",
                "status",
                "epoch",
                "held",
                "guarded",
                "queue",
                "priority",
                "pending",
                "retries",
                "backoff",
                "timeout",
            )
        }
    )
)
INSERT_INPUT = Query(insert(step_inputs).values({c: bindparam(c) for c in ("session_id", "number", "body")}))
INSERT_EDGE = Query(insert(edges).values({c: bindparam(c) for c in ("session_id", "source", "target")}))


def add(
    tx: Transaction,
    session_id: str,
    rows: Sequence[dict[str, Any]],
    inputs: Sequence[tuple[int, str]],
    links: Sequence[tuple[int, int]],
) -> None:
    """Insert steps with their inputs (number, JSON) and edges (source, target)."""
    tx.many(_INSERT, [{"session_id": session_id, **row} for row in rows])
    tx.many(
        INSERT_INPUT,
        [{"session_id": session_id, "number": n, "body": seal_input(tx, session_id, n, b)} for n, b in inputs],
    )
    tx.many(INSERT_EDGE, [{"session_id": session_id, "source": s, "target": t} for s, t in links])


_WAIT_MORE = Query(
    update(steps)
    .where(this_step, or_(in_state("blocked"), in_state("waiting")))
    .values(pending=_s.pending + bindparam("more"))
)


def wait_more(tx: Transaction, session_id: str, number: int, more: int) -> bool:
    """Let a blocked step or a waiting group wait for `more` further steps; False if it no longer waits."""
    return tx.run(_WAIT_MORE, session=session_id, number=number, more=more) == 1


_BODY = "step_inputs.body"
_INPUT = Query(
    select(step_inputs.c.body).where(
        step_inputs.c.session_id == bindparam("session"), step_inputs.c.number == bindparam("number")
    )
)
_TARGETS_OF = Query(_TARGETS)
_FOUND = (_s.name, _s.number, _s.kind, _s.status, _s.result_epoch)
_FIND = Query(select(*_FOUND).where(_s.session_id == bindparam("session"), _s.name == bindparam("called")))
_MEMBERS = Query(
    select(*_FOUND)
    .where(_s.session_id == bindparam("session"), _s.member_of == bindparam("group"))
    .order_by(_s.position)
)
_ENDS = Query(
    select(*_FOUND)
    .where(
        _s.session_id == bindparam("session"),
        _s.member_of.is_(None),
        _s.number.not_in(select(edges.c.source).where(edges.c.session_id == bindparam("session"))),
    )
    .order_by(_s.number)
)
_STARTING = Query(
    select(_s.name).where(
        _s.session_id == bindparam("session"), func.substr(_s.name, 1, bindparam("characters")) == bindparam("start")
    )
)


@dataclass(slots=True)
class Found:
    """A step as others refer to it."""

    name: str
    number: int
    kind: str
    status: str
    result_epoch: int | None


def input_of(tx: Transaction, session_id: str, number: int, known: str | None = None) -> str:
    """The JSON text of a step's input; `known` is how its row has it, if that was read."""
    return tx.open(known or str(tx.value(_INPUT, session=session_id, number=number)), _BODY, session_id, number)


def seal_input(tx: Transaction, session_id: str, number: int, body: str) -> str:
    """A step's input as its row has it."""
    return tx.seal(body, _BODY, session_id, number)


def targets_of(tx: Transaction, session_id: str, source: int) -> list[int]:
    """Numbers of the steps that wait for `source`."""
    return [row[0] for row in tx.rows(_TARGETS_OF, session=session_id, source=source)]


def find(tx: Transaction, session_id: str, name: str) -> Found | None:
    """The step of that name."""
    row = tx.row(_FIND, session=session_id, called=name)
    return Found(*row) if row else None


def names_starting(tx: Transaction, session_id: str, start: str) -> list[str]:
    """Names of a session's steps that start so."""
    return [row[0] for row in tx.rows(_STARTING, session=session_id, start=start, characters=len(start))]


_IN_STATE = Query(
    select(_s.name).where(_s.session_id == bindparam("session"), _s.status == bindparam("state")).order_by(_s.number)
)


def names_in_state(tx: Transaction, session_id: str, status: str) -> list[str]:
    """Names of a session's steps in that state."""
    return [row[0] for row in tx.rows(_IN_STATE, session=session_id, state=status)]


def members(tx: Transaction, session_id: str, group: int) -> list[Found]:
    """A group's members, in order."""
    return [Found(*row) for row in tx.rows(_MEMBERS, session=session_id, group=group)]


def ends(tx: Transaction, session_id: str) -> list[Found]:
    """A session's outermost steps that no other step waits for."""
    return [Found(*row) for row in tx.rows(_ENDS, session=session_id)]


#: Columns of `overview`, in order.
OVERVIEW = (
    "number", "name", "kind", "agent", "phase", "member_of", "status", "attempts", "failures", "progress", "task",
    "error", "started_at", "finished_at", "cached", "queue", "priority", "run_at", "result_epoch",
)  # fmt: skip
_OVERVIEW = Query(select(*(_s[c] for c in OVERVIEW)).where(_s.session_id == bindparam("session")).order_by(_s.number))


def overview(tx: Transaction, session_id: str) -> list[dict[str, Any]]:
    """All steps of a session as dictionaries with the keys of `OVERVIEW`."""
    found = [dict(zip(OVERVIEW, row, strict=True)) for row in tx.rows(_OVERVIEW, session=session_id)]
    for one in found:
        one["task"] = tx.open(one["task"], "steps.task", session_id, one["number"])
        one["error"] = tx.open(one["error"], "steps.error", session_id, one["number"])
    return found
