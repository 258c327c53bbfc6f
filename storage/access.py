"""Rows of access: grants, the mark that tells that they have changed, and what was refused."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    literal_column,
    or_,
    select,
    text,
)

from .database import Query, Row, Transaction, now
from .tables import metadata

_TOGETHER: Any = {"sqlite_with_rowid": False}

grants = Table(
    "grants",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("principal", Text, primary_key=True),  # a name, or a pattern with *
    Column("resource", Text, primary_key=True),  # likewise
    Column("level", Text, primary_key=True),  # read, write, admin
    Column("wild", SmallInteger, nullable=False),  # 1: the principal is a pattern
    Column("granted_by", Text, nullable=False),
    Column("at", Double, nullable=False),
    Index("grants_wild", "tenant", sqlite_where=text("wild = 1"), postgresql_where=text("wild = 1")),
    **_TOGETHER,
)

#: One row a tenant: another random number with each change of its grants, so that no number comes twice.
grant_marks = Table(
    "grant_marks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("mark", BigInteger, nullable=False),
    **_TOGETHER,
)

#: One row for each thing that was refused to a principal: how often, and when first and last.
refusals = Table(
    "refusals",
    metadata,
    Column("id", Text, primary_key=True),  # digest of the four after it
    Column("tenant", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("times", Integer, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    Index("refusals_by_time", "tenant", "last_at"),
    **_TOGETHER,
)

#: So many refusals of a tenant are kept, the newest.
MOST_REFUSALS = 10_000

_g, _r = grants.c, refusals.c
_mine = _g.tenant == bindparam("of")
#: The number that changes with each change of a tenant's grants; no row before the first.
MARK = Query(select(grant_marks.c.mark).where(grant_marks.c.tenant == bindparam("of")))
_SET_MARK = Query(
    text(
        "INSERT INTO grant_marks (tenant, mark) VALUES (:of, :mark)"
        " ON CONFLICT (tenant) DO UPDATE SET mark = excluded.mark"
    )
)
_MEANT = Query(
    select(_g.principal, _g.resource, _g.level).where(
        _mine, or_(_g.principal == bindparam("name"), _g.wild == literal_column("1"))
    )
)
_ALL = Query(
    select(_g.principal, _g.level, _g.resource, _g.granted_by, _g.at)
    .where(_mine)
    .order_by(_g.principal, _g.resource, _g.level)
)
_this = (_mine, _g.principal == bindparam("name"), _g.resource == bindparam("what"), _g.level == bindparam("right"))
_FIND = Query(select(_g.at).where(*_this))
_ADD = Query(
    insert(grants).values(
        tenant=bindparam("of"),
        principal=bindparam("name"),
        resource=bindparam("what"),
        level=bindparam("right"),
        wild=bindparam("pattern"),
        granted_by=bindparam("by"),
        at=now(),
    )
)
_REMOVE = Query(delete(grants).where(*_this))
_ADMINS = Query(
    select(_g.principal).where(_mine, _g.level == literal_column("'admin'"), _g.resource == literal_column("'*'"))
)


def mark(tx: Transaction, tenant: str) -> int | None:
    """What changes with every change of a tenant's grants; None before the first one."""
    found: int | None = tx.value(MARK, of=tenant)
    return found


def meant(tx: Transaction, tenant: str, principal: str) -> list[Row]:
    """(principal, resource, right) of the grants to a principal by name, and of all those to patterns."""
    return tx.rows(_MEANT, of=tenant, name=principal)


def listing(tx: Transaction, tenant: str) -> list[Row]:
    """(principal, right, resource, granted by, at) of all grants of a tenant, in order."""
    return tx.rows(_ALL, of=tenant)


def add(tx: Transaction, tenant: str, principal: str, right: str, resource: str, by: str) -> bool:
    """Give a grant; False if it was given before."""
    _change(tx, tenant)
    this = {"of": tenant, "name": principal, "what": resource, "right": right}
    if tx.row(_FIND, **this) is not None:
        return False
    tx.run(_ADD, **this, pattern=int("*" in principal), by=by)
    return True


def remove(tx: Transaction, tenant: str, principal: str, right: str, resource: str) -> bool:
    """Take back a grant; False if there is none."""
    _change(tx, tenant)
    return bool(tx.run(_REMOVE, of=tenant, name=principal, what=resource, right=right))


def admins(tx: Transaction, tenant: str) -> list[str]:
    """The principals that hold admin on everything of a tenant. Whoever changes grants waits until this one is done."""
    _change(tx, tenant)
    return [row[0] for row in tx.rows(_ADMINS, of=tenant)]


def _change(tx: Transaction, tenant: str) -> None:
    tx.run(_SET_MARK, of=tenant, mark=secrets.randbits(62))


_REFUSE = Query(
    text(
        "INSERT INTO refusals (id, tenant, principal, level, resource, times, first_at, last_at)"
        " VALUES (:id, :of, :name, :right, :what, 1, :at, :at) ON CONFLICT (id) DO UPDATE"
        " SET times = refusals.times + 1, last_at = excluded.last_at RETURNING times"
    )
)
_FORGET = Query(
    text(
        "DELETE FROM refusals WHERE id IN"
        " (SELECT id FROM refusals WHERE tenant = :of ORDER BY last_at DESC, id LIMIT 100 OFFSET :most)"
    )
)
_REFUSED = Query(
    select(_r.principal, _r.level, _r.resource, _r.times, _r.first_at, _r.last_at)
    .where(_r.tenant == bindparam("of"))
    .order_by(_r.last_at.desc(), _r.id)
    .limit(bindparam("most"))
)


def refuse(tx: Transaction, tenant: str, principal: str, right: str, resource: str) -> None:
    """Note a refusal."""
    parts = (tenant, principal, right, resource)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
    values = {"id": digest, "of": tenant, "name": principal, "right": right, "what": resource, "at": tx.now()}
    if tx.value(_REFUSE, **values) == 1:
        tx.run(_FORGET, of=tenant, most=MOST_REFUSALS)


def refused(tx: Transaction, tenant: str, most: int) -> list[Row]:
    """(principal, right, resource, times, first at, last at) of a tenant's refusals, the latest first."""
    return tx.rows(_REFUSED, of=tenant, most=most)
