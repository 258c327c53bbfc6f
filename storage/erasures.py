"""Receipts of what was erased. They hold numbers and ids of backups, and of whom only a salted hash."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import (
    Column,
    Double,
    Index,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from .access import grants, refusals
from .database import Query, Transaction, now
from .states.tables import state_events
from .tables import metadata, sessions

erasures = Table(
    "erasures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("subject", Text, nullable=False),  # hash of what was erased, with the salt
    Column("salt", Text, nullable=False),
    Column("status", Text, nullable=False),  # running, done
    Column("started_at", Double, nullable=False),
    Column("body", Text, nullable=False),  # JSON
    Index("erasures_by_tenant", "tenant", "id"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A receipt as it is kept; `body` is JSON."""

    id: str
    tenant: str
    subject: str
    salt: str
    status: str
    started_at: float
    body: str


_e = erasures.c
_COLUMNS: Final = tuple(field.name for field in fields(Row))
_ADD = Query(
    insert(erasures).values(
        {name: bindparam(name) for name in _COLUMNS if name != "started_at"} | {"started_at": now()}
    )
)
_LIST = Query(select(*(_e[name] for name in _COLUMNS)).where(_e.tenant == bindparam("of")).order_by(_e.id))
_DROP = Query(delete(erasures).where(_e.id == bindparam("wanted")))
_RUNNING = Query(
    select(*(_e[name] for name in _COLUMNS))
    .where(_e.tenant == bindparam("of"), _e.status == literal_column("'running'"))
    .order_by(_e.id)
)
_WRITE = Query(
    update(erasures).where(_e.id == bindparam("wanted")).values(status=bindparam("new_status"), body=bindparam("text"))
)


def add(tx: Transaction, id: str, tenant: str, subject: str, salt: str, body: str) -> None:
    """Begin a receipt."""
    tx.run(_ADD, id=id, tenant=tenant, subject=subject, salt=salt, status="running", body=body)


def write(tx: Transaction, id: str, status: str, body: str) -> None:
    """Go on with a receipt."""
    tx.run(_WRITE, wanted=id, new_status=status, text=body)


def listing(tx: Transaction, tenant: str) -> list[Row]:
    """All receipts of a tenant, the oldest first."""
    return [Row(*row) for row in tx.rows(_LIST, of=tenant)]


def running(tx: Transaction, tenant: str) -> list[Row]:
    """Those of what was broken off."""
    return [Row(*row) for row in tx.rows(_RUNNING, of=tenant)]


# -- what is of a user, beside sessions --------------------------------------------------------------------------------

_s = sessions.c
_IDS = Query(select(_s.id).where(_s.tenant == bindparam("of"), _s.user == bindparam("whose")).order_by(_s.id.desc()))
_ev = state_events.c
_EVENTS = {
    "session_id": Query(delete(state_events).where(_ev.session_id == bindparam("wanted"))),
    "scope": Query(delete(state_events).where(_ev.scope == bindparam("wanted"))),
}
_COUNT_EVENTS = {
    "session_id": Query(select(func.count()).where(_ev.session_id == bindparam("wanted"))),
    "scope": Query(select(func.count()).where(_ev.scope == bindparam("wanted"))),
}
_OF_USER = {
    table.name: (
        Query(select(func.count()).where(table.c.tenant == bindparam("of"), table.c.principal == bindparam("whose"))),
        Query(delete(table).where(table.c.tenant == bindparam("of"), table.c.principal == bindparam("whose"))),
    )
    for table in (grants, refusals)
}


def sessions_of(tx: Transaction, tenant: str, user: str) -> list[str]:
    """Ids of all sessions of a user of a tenant, the newest first."""
    return [row[0] for row in tx.rows(_IDS, of=tenant, whose=user)]


def drop_changes(tx: Transaction, column: str, value: str, dry_run: bool = False) -> int:
    """Delete the record of changes of state by a session (`session_id`) or of a `scope`; gives how many there were."""
    if dry_run:
        return int(tx.value(_COUNT_EVENTS[column], wanted=value))
    return tx.run(_EVENTS[column], wanted=value)


def drop_of_user(tx: Transaction, tenant: str, user: str, dry_run: bool = False) -> dict[str, int]:
    """Delete a user's grants and what was refused to the user; gives how many there were, by table."""
    counts = {}
    for name, (count, drop) in _OF_USER.items():
        counts[name] = int(tx.value(count, of=tenant, whose=user)) if dry_run else tx.run(drop, of=tenant, whose=user)
    return counts


def drop(tx: Transaction, id: str) -> None:
    """Take back a receipt of what there was nothing of."""
    tx.run(_DROP, wanted=id)
