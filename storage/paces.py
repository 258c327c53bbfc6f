"""How fast the steps of an agent may begin, across all workers: one row an agent, and the turns that steps wait for.

Each step is given its turn once, so that however many wait, none is looked at before it is due.
"""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, Table, Text, bindparam, delete, select, text, update

from .database import Query, Transaction, now
from .steps import Claimed, this_step
from .tables import metadata, steps

#: A turn that was not taken is forgotten so many seconds later: its step was cancelled, or its session is paused.
_KEPT_SECONDS = 3600.0

#: When the next step of an agent may begin, if it comes alone.
agent_paces = Table(
    "agent_paces",
    metadata,
    Column("agent", Text, primary_key=True),
    Column("interval", Double, nullable=False),  # seconds between two steps, as the last worker that started said
    Column("free_at", Double, nullable=False),
    sqlite_with_rowid=False,
)
#: When steps that were put back may begin.
agent_turns = Table(
    "agent_turns",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("agent", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index("agent_turns_by_agent", "agent", "at"),
    sqlite_with_rowid=False,
)

_p = agent_paces.c
_t = agent_turns.c
_s = steps.c
_mine = (_t.session_id == bindparam("session"), _t.number == bindparam("number"))
_TURN = Query(select(_t.at - now()).where(*_mine))
_TAKE_TURN = Query(delete(agent_turns).where(*_mine))
_NEXT = Query(
    text(
        "INSERT INTO agent_paces (agent, interval, free_at) VALUES (:agent, :interval, :moment + :interval)"
        " ON CONFLICT (agent) DO UPDATE SET free_at = :interval"
        " + CASE WHEN agent_paces.free_at > :moment THEN agent_paces.free_at ELSE :moment END RETURNING free_at"
    )
)
_GIVE_TURN = Query(
    text(
        "INSERT INTO agent_turns (session_id, number, agent, at) VALUES (:session, :number, :agent, :due)"
        " ON CONFLICT (session_id, number) DO UPDATE SET agent = excluded.agent, at = excluded.at"
    )
)
_FORGET = Query(delete(agent_turns).where(_t.agent == bindparam("named"), _t.at < now() - _KEPT_SECONDS))


def take(tx: Transaction, c: Claimed, interval: float) -> float:
    """Ask for a claimed step's turn, `interval` seconds after the one before it.

    Gives 0 if it may begin now; else how many seconds it has to wait, and the turn at the end of them is its own.
    """
    mine = {"session": c.session_id, "number": c.number}
    left = tx.value(_TURN, **mine)
    if left is not None:
        if left > 0:
            return float(left)
        tx.run(_TAKE_TURN, **mine)
        return 0.0
    moment = tx.now()
    due = float(tx.value(_NEXT, agent=c.agent, interval=interval, moment=moment)) - interval
    if due <= moment:
        return 0.0
    tx.run(_FORGET, named=c.agent)
    tx.run(_GIVE_TURN, **mine, agent=c.agent, due=due)
    return due - moment


_PACE = Query(select(_p.interval, _p.free_at).where(_p.agent == bindparam("named")).with_for_update())
_SET_PACE = Query(
    update(agent_paces)
    .where(_p.agent == bindparam("named"))
    .values(interval=bindparam("pace"), free_at=bindparam("free"))
)
_WAITING = Query(
    select(_t.session_id, _t.number).where(_t.agent == bindparam("named")).order_by(_t.session_id, _t.number)
)
_WAKE = Query(update(steps).where(this_step, _s.status == "ready", _s.run_at > now()).values(run_at=now()))
_DROP = Query(delete(agent_turns).where(_t.agent == bindparam("named")))


def declare(tx: Transaction, agent: str, interval: float) -> None:
    """Say how fast an agent's steps may begin. If that is faster than before, those that wait are given new turns."""
    row = tx.row(_PACE, named=agent)
    if row is None or row[0] == interval:
        return
    known, free_at = row
    if interval < known:
        free_at = min(free_at, tx.now() + interval)
        for session_id, number in tx.rows(_WAITING, named=agent):
            tx.run(_WAKE, session=session_id, number=number)
        tx.run(_DROP, named=agent)
    tx.run(_SET_PACE, named=agent, pace=interval, free=free_at)
