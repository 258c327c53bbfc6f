"""What an agent keeps from one step of a session to the next: one JSON object for each agent."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from .database import Query, Transaction, now
from .tables import agent_states

_a = agent_states.c
_this = (_a.session_id == bindparam("session"), _a.agent == bindparam("named"))
_GET = Query(select(_a.body).where(*_this))
_ALL = Query(select(_a.agent, _a.body).where(_a.session_id == bindparam("session")).order_by(_a.agent))
_UPDATE = Query(
    update(agent_states).where(*_this).values(body=bindparam("text"), version=_a.version + 1, updated_at=now())
)
_INSERT = Query(
    insert(agent_states).values(
        session_id=bindparam("session"),
        agent=bindparam("named"),
        body=bindparam("text"),
        version=1,
        created_at=now(),
        updated_at=now(),
    )
)
_CLEAR = Query(delete(agent_states).where(_a.session_id == bindparam("session")))


def get(tx: Transaction, session_id: str, agent: str) -> str | None:
    """An agent's state in a session as JSON text, or None."""
    body: str | None = tx.value(_GET, session=session_id, named=agent)
    return body


def all_of(tx: Transaction, session_id: str) -> dict[str, str]:
    """The state (JSON text) of every agent of a session."""
    return dict(tx.rows(_ALL, session=session_id))


def put(tx: Transaction, session_id: str, agent: str, body: str) -> None:
    """Write an agent's state; its version rises by one."""
    if not tx.run(_UPDATE, session=session_id, named=agent, text=body):
        tx.run(_INSERT, session=session_id, named=agent, text=body)


def replace_all(tx: Transaction, session_id: str, bodies: dict[str, str]) -> None:
    """Put these states in place of all of a session's agent states."""
    tx.run(_CLEAR, session=session_id)
    tx.many(_INSERT, [{"session": session_id, "named": agent, "text": body} for agent, body in bodies.items()])
