"""Rows of attachments: which other sessions a session may read."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Table, Text, bindparam, delete, select, text

from .database import Query, Transaction, now
from .tables import metadata

attached_sessions = Table(
    "attached_sessions",
    metadata,
    Column("session_id", Text, primary_key=True),  # which reads
    Column("other", Text, primary_key=True),  # which is read
    Column("created_at", Double, nullable=False),
    Index("attached_sessions_by_other", "other"),
    sqlite_with_rowid=False,
)

_a = attached_sessions.c
_mine = _a.session_id == bindparam("session")
_INTO = "INSERT INTO attached_sessions (session_id, other, created_at)"
_ADD = {
    "sqlite": Query(
        text(
            f"{_INTO} VALUES (:session, :other, (julianday('now') - 2440587.5) * 86400.0)"
            " ON CONFLICT (session_id, other) DO NOTHING"
        )
    ),
    "postgresql": Query(
        text(
            f"{_INTO} VALUES (:session, :other, extract(epoch from clock_timestamp())::float8)"
            " ON CONFLICT (session_id, other) DO NOTHING"
        )
    ),
}
_REMOVE = Query(delete(attached_sessions).where(_mine, _a.other == bindparam("other")))
_OF = Query(select(_a.other).where(_mine).order_by(_a.created_at, _a.other))
_COPY = Query(
    attached_sessions.insert().from_select(
        ["session_id", "other", "created_at"], select(bindparam("target", type_=Text()), _a.other, now()).where(_mine)
    )
)
_FORGET = Query(delete(attached_sessions).where(_a.other == bindparam("session")))


def add(tx: Transaction, session_id: str, other: str) -> bool:
    """Attach another session; False if it was attached."""
    return tx.run(_ADD[tx.dialect_name], session=session_id, other=other) == 1


def remove(tx: Transaction, session_id: str, other: str) -> bool:
    """Detach a session; False if it was not attached."""
    return tx.run(_REMOVE, session=session_id, other=other) == 1


def of(tx: Transaction, session_id: str) -> list[str]:
    """The ids of the sessions that are attached to one, in the order in which they were."""
    return [row[0] for row in tx.rows(_OF, session=session_id)]


def copy(tx: Transaction, session_id: str, target: str) -> None:
    """Attach to a new session what is attached to another one."""
    tx.run(_COPY, session=session_id, target=target)


def forget(tx: Transaction, session_id: str) -> None:
    """Detach a session that is deleted from all others."""
    tx.run(_FORGET, session=session_id)
