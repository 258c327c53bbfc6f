"""What retention and pruning have taken away so far, as sums by name."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Column, Double, Table, Text, bindparam, select, text

from .database import Query, Transaction
from .tables import metadata

reclaimed = Table(
    "reclaimed",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # what did it, a slash, and what is counted
    Column("value", Double, nullable=False),
    sqlite_with_rowid=False,
)

_ADD = Query(
    text(
        "INSERT INTO reclaimed (tenant, name, value) VALUES (:of, :name, :value)"
        " ON CONFLICT (tenant, name) DO UPDATE SET value = reclaimed.value + excluded.value"
    )
)
_ALL = Query(select(reclaimed.c.name, reclaimed.c.value).where(reclaimed.c.tenant == bindparam("of")))


def add(tx: Transaction, tenant: str, source: str, counts: Mapping[str, float]) -> None:
    """Add what a run of `source` has taken away."""
    values = [{"of": tenant, "name": f"{source}/{name}", "value": float(n)} for name, n in sorted(counts.items())]
    tx.many(_ADD, values)


def totals(tx: Transaction, tenant: str) -> dict[str, dict[str, float]]:
    """All sums of a tenant: {source: {name: sum}}."""
    found: dict[str, dict[str, float]] = {}
    for whole, value in sorted(tx.rows(_ALL, of=tenant)):
        source, _, name = whole.partition("/")
        found.setdefault(source, {})[name] = value
    return found
