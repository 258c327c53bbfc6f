"""Rows of templates: what sessions can be started from, by tenant and name."""

from __future__ import annotations

from sqlalchemy import Column, Double, Table, Text, bindparam, delete, insert, select

from .database import Query, Transaction, now
from .tables import metadata

templates = Table(
    "templates",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),  # JSON
    Column("updated_at", Double, nullable=False),
)

_t = templates.c
_BODY = "templates.body"
_this = (_t.tenant == bindparam("of"), _t.name == bindparam("called"))
_REMOVE = Query(delete(templates).where(*_this))
_ADD = Query(
    insert(templates).values(tenant=bindparam("of"), name=bindparam("called"), body=bindparam("text"), updated_at=now())
)
_GET = Query(select(_t.body, _t.updated_at).where(*_this))
_ALL = Query(select(_t.name, _t.body, _t.updated_at).where(_t.tenant == bindparam("of")).order_by(_t.name))


def put(tx: Transaction, tenant: str, name: str, body: str) -> None:
    """Write a template (JSON text), in the place of the one of that name."""
    tx.run(_REMOVE, of=tenant, called=name)
    tx.run(_ADD, of=tenant, called=name, text=tx.seal(body, _BODY, tenant, name))


def get(tx: Transaction, tenant: str, name: str) -> tuple[str, float] | None:
    """A template (JSON text), and when it was written."""
    row = tx.row(_GET, of=tenant, called=name)
    return None if row is None else (tx.open(row[0], _BODY, tenant, name), row[1])


def listing(tx: Transaction, tenant: str) -> list[tuple[str, str, float]]:
    """(name, JSON text, when it was written) of a tenant's templates, by name."""
    return [(name, tx.open(body, _BODY, tenant, name), at) for name, body, at in tx.rows(_ALL, of=tenant)]


def remove(tx: Transaction, tenant: str, name: str) -> bool:
    """Delete a template; False if there is none of that name."""
    return tx.run(_REMOVE, of=tenant, called=name) == 1
