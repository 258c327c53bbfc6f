"""Moves of all steps of a session at once: hold, cancel, reopen, and putting back what a checkpoint kept."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, literal_column, or_, select, text, update

from .database import Query, Transaction, now
from .graph import INSERT_EDGE, INSERT_INPUT, input_of, seal_input
from .steps import FINAL, in_state, is_final
from .tables import edges, step_inputs, steps

_s = steps.c

_HOLD = Query(
    update(steps)
    .where(
        _s.session_id == bindparam("session"), _s.status.in_([literal_column("'ready'"), literal_column("'blocked'")])
    )
    .values(held=bindparam("paused"))
)
_CANCEL = Query(
    update(steps)
    .where(_s.session_id == bindparam("session"), _s.status.not_in(is_final))
    .values(status="cancelled", epoch=_s.epoch + 1, lease_until=None, finished_at=now(), error=bindparam("why"))
    .returning(_s.number, _s.name)
)
_REOPEN = Query(
    update(steps)
    .where(
        _s.session_id == bindparam("session"),
        or_(
            _s.status.in_([literal_column(f"'{s}'") for s in ("failed", "dead", "cancelled")]),
            and_(in_state("skipped"), _s.doomed == 1),
        ),
        literal_column(
            "NOT (kind = 'call' AND EXISTS (SELECT 1 FROM steps AS caller WHERE caller.session_id = steps.session_id"
            " AND caller.number = steps.member_of AND caller.status = 'done'))"
        ),
    )
    .values(
        status="blocked",
        doomed=0,
        failures=0,
        attempts=0,
        error=None,
        finished_at=None,
        claim=None,
        run_at=0.0,
        hinted_at=0.0,
        held=0,
        progress=0.0,
        epoch=_s.epoch + 1,
    )  # fmt: skip
    .returning(_s.number, _s.name)
)
_RECOUNT = Query(
    text(
        "UPDATE steps SET pending = (SELECT count(*)"
        " FROM edges JOIN steps AS source ON source.session_id = edges.session_id"
        " AND source.number = edges.source WHERE edges.session_id = steps.session_id AND edges.target = steps.number"
        f" AND source.status NOT IN ({', '.join(repr(s) for s in FINAL)})),"
        " doomed = CASE WHEN EXISTS (SELECT 1 FROM edges JOIN steps AS source ON source.session_id = edges.session_id"
        " AND source.number = edges.source WHERE edges.session_id = steps.session_id AND edges.target = steps.number"
        " AND (source.status IN ('failed', 'dead') OR (source.status = 'skipped' AND source.doomed = 1))"
        " AND source.kind <> 'message')"
        " THEN 1 ELSE 0 END"
        " WHERE session_id = :session AND status IN ('blocked', 'waiting')"
    )
)
_REOPEN_GROUPS = Query(
    text(
        "UPDATE steps SET status = 'waiting' WHERE session_id = :session AND kind IN ('each', 'plan')"
        " AND status = 'blocked' AND EXISTS (SELECT 1 FROM steps AS member"
        " WHERE member.session_id = steps.session_id AND member.member_of = steps.number)"
    )
)
_PLAIN_READY = Query(
    update(steps)
    .where(_s.session_id == bindparam("session"), in_state("blocked"), _s.pending == 0, _s.guarded == 0, _s.doomed == 0)
    .values(status="ready")
    .returning(_s.number)
)


def hold(tx: Transaction, session_id: str, held: bool) -> None:
    """Hold back (or let go) all steps that have not started."""
    tx.run(_HOLD, session=session_id, paused=int(held))


def cancel(tx: Transaction, session_id: str, why: str) -> list[tuple[int, str]]:
    """Everything that is not final -> cancelled, running steps too: their later writes are fenced. Gives (number,
    name).
    """
    return tx.rows(_CANCEL, session=session_id, why=why)


def reopen(tx: Transaction, session_id: str) -> list[tuple[int, str]]:
    """failed, dead, cancelled and what was skipped because of them -> blocked, to be run again. Gives (number,
    name).
    """
    return tx.rows(_REOPEN, session=session_id)


def settle_again(tx: Transaction, session_id: str) -> None:
    """After rows were reopened or restored: reopen groups that have members, recount waits, make plain steps ready."""
    tx.run(_REOPEN_GROUPS, session=session_id)
    tx.run(_RECOUNT, session=session_id)
    tx.rows(_PLAIN_READY, session=session_id)


#: What a checkpoint keeps of a step: all but leases and hints, which belong to the moment.
KEPT = (
    "number", "name", "kind", "agent", "phase", "member_of", "position", "status", "doomed", "guarded", "queue",
    "priority", "attempts", "failures", "retries", "backoff", "timeout", "error", "result_epoch", "cached",
    "started_at", "finished_at",
)  # fmt: skip
_ERROR = KEPT.index("error")
_ROWS = Query(select(*(_s[c] for c in KEPT)).where(_s.session_id == bindparam("session")).order_by(_s.number))
_HIGHEST = Query(select(func.max(_s.epoch)).where(_s.session_id == bindparam("session")))
_INPUTS = Query(
    select(step_inputs.c.number, step_inputs.c.body).where(step_inputs.c.session_id == bindparam("session"))
)
_LINKS = Query(
    select(edges.c.source, edges.c.target)
    .where(edges.c.session_id == bindparam("session"))
    .order_by(edges.c.source, edges.c.target)
)
_RESTORE = Query(insert(steps).values({c: bindparam(c) for c in ("session_id", "epoch", "pending", *KEPT)}))
_CLEAR = [Query(delete(t).where(t.c.session_id == bindparam("session"))) for t in (steps, step_inputs, edges)]


def rows(tx: Transaction, session_id: str) -> tuple[list[list[Any]], list[list[Any]], list[list[int]]]:
    """A session's steps (values in the order of `KEPT`), inputs (number, JSON) and edges (source, target)."""
    found = [list(r) for r in tx.rows(_ROWS, session=session_id)]
    for row in found:
        row[_ERROR] = tx.open(row[_ERROR], "steps.error", session_id, row[0])
    inputs = tx.rows(_INPUTS, session=session_id)
    return (
        found,
        [[number, input_of(tx, session_id, number, body)] for number, body in inputs],
        [list(r) for r in tx.rows(_LINKS, session=session_id)],
    )


def highest_epoch(tx: Transaction, session_id: str) -> int:
    """The highest epoch of a session's steps, 0 if it has none."""
    return int(tx.value(_HIGHEST, session=session_id) or 0)


def replace_all(
    tx: Transaction, session_id: str, kept: list[list[Any]], inputs: list[list[Any]], links: list[list[int]], epoch: int
) -> None:
    """Put a session's steps back as `rows` gave them, all at an epoch over any before: no claim from before can
    write.
    """
    for query in _CLEAR:
        tx.run(query, session=session_id)
    rows_ = [{"session_id": session_id, "epoch": epoch, "pending": 0, **dict(zip(KEPT, r, strict=True))} for r in kept]
    for row in rows_:
        row["error"] = tx.seal(row["error"], "steps.error", session_id, row["number"])
    tx.many(_RESTORE, rows_)
    bodies = [(number, seal_input(tx, session_id, number, body)) for number, body in inputs]
    tx.many(INSERT_INPUT, [{"session_id": session_id, "number": n, "body": b} for n, b in bodies])
    tx.many(INSERT_EDGE, [{"session_id": session_id, "source": s, "target": t} for s, t in links])
