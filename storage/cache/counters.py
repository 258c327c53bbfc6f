"""Sums over all processes: hits, misses and the like; and what each session has saved."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, func, insert, select, text

from ..database import Query, Transaction
from ..steps import Claimed
from ..tables import steps
from .tables import cache_counters, cache_savings

_ADD = Query(
    text(
        "INSERT INTO cache_counters (name, value) VALUES (:name, :value)"
        " ON CONFLICT (name) DO UPDATE SET value = cache_counters.value + excluded.value"
    )
)
_ALL = Query(select(cache_counters.c.name, cache_counters.c.value))
_v = cache_savings.c
_SAVE = Query(
    insert(cache_savings).values({c: bindparam(c) for c in ("session_id", "number", "epoch", "seconds", "cost")})
)
# Only savings whose result counts: a step that was run anew after a restore has saved nothing.
_SAVED = Query(
    select(func.count(), func.coalesce(func.sum(_v.seconds), 0.0), func.coalesce(func.sum(_v.cost), 0.0))
    .select_from(
        cache_savings.join(
            steps,
            (steps.c.session_id == _v.session_id) & (steps.c.number == _v.number) & (steps.c.result_epoch == _v.epoch),
        )
    )
    .where(_v.session_id == bindparam("session"))
)


def add(tx: Transaction, counts: Mapping[str, float]) -> None:
    """Add to sums by name."""
    tx.many(_ADD, [{"name": name, "value": value} for name, value in sorted(counts.items()) if value])


def name_of(name: str, tenant: str) -> str:
    """How a tenant's sum is called."""
    return f"{name}@{tenant}" if tenant else name


def totals(tx: Transaction, tenant: str = "") -> dict[str, float]:
    """All sums of a tenant by name."""
    found = [(*whole.partition("@"), value) for whole, value in tx.rows(_ALL)]
    return {name: value for name, _, of, value in found if of == tenant}


def save(tx: Transaction, c: Claimed, seconds: float, cost: float | None) -> None:
    """Note what a step has saved that was answered from the cache: the time and the cost of the run that it stands
    for.
    """
    values = {"session_id": c.session_id, "number": c.number, "epoch": c.epoch}
    tx.later(_SAVE, [{**values, "seconds": seconds, "cost": cost or 0.0}])


def saved(tx: Transaction, session_id: str) -> tuple[int, float, float]:
    """How many runs a session was spared, and their seconds and cost."""
    runs, seconds, cost = tx.rows(_SAVED, session=session_id)[0]
    return int(runs), float(seconds), float(cost)
