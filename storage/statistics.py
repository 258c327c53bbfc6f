"""Figures of the whole store, of all tenants: taken now and then, and kept as rows."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Double, Table, Text, bindparam, func, select, text

from . import serial
from .cache.tables import cached_results
from .database import Query, Transaction
from .histories.tables import history
from .states.tables import state_values
from .tables import blobs, checkpoints, metadata, sessions, steps

statistics = Table(
    "statistics",
    metadata,
    Column("at", Double, primary_key=True),
    Column("body", Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)


def _by_status(table: Table) -> Query:
    return Query(select(table.c.status, func.count()).group_by(table.c.status).order_by(table.c.status))


def _sized(column: Any) -> Query:
    return Query(select(func.count(), func.coalesce(func.sum(column), 0)))


def _since(column: Any) -> Query:
    return Query(select(func.count()).where(column > bindparam("since")))


_SESSIONS, _STEPS = _by_status(sessions), _by_status(steps)
_CHECKPOINTS = Query(
    select(func.count(), func.coalesce(func.sum(func.length(checkpoints.c.body)), 0)).select_from(checkpoints)
)
_SIZED: Final = {
    "blobs": _sized(blobs.c.size),
    "history": _sized(history.c.size),
    "state": _sized(state_values.c.size),
    "cache": _sized(cached_results.c.stored),
}
_RECORDED = Query(select(func.coalesce(func.sum(sessions.c.stored_bytes), 0)))
_RATES: Final = {
    "sessions_started": _since(sessions.c.created_at),
    "sessions_ended": _since(sessions.c.completed_at),
    "steps_ended": _since(steps.c.finished_at),
}
_DATABASE: Final = {
    "sqlite": Query(text("SELECT c.page_count * s.page_size FROM pragma_page_count() c, pragma_page_size() s")),
    "postgresql": Query(text("SELECT pg_database_size(current_database())")),
}
_AT = Query(select(func.max(statistics.c.at)))
_ADD = Query(text("INSERT INTO statistics (at, body) VALUES (:moment, :text) ON CONFLICT (at) DO NOTHING"))
_CUT = Query(
    text(
        "DELETE FROM statistics WHERE at <= (SELECT s.at FROM statistics AS s ORDER BY s.at DESC LIMIT 1 OFFSET :keep)"
    )
)
_NEWEST = Query(select(statistics.c.at, statistics.c.body).order_by(statistics.c.at.desc()).limit(bindparam("most")))


def taken(tx: Transaction) -> dict[str, Any]:
    """The figures as of now: counts by status, entries and bytes, and per second what happened since the last row.

    Rates count what is still there. None: there is no row before.
    """
    moment, before = tx.now(), tx.value(_AT)
    seconds = moment - before if before is not None else 0.0
    sized = {name: tx.rows(query)[0] for name, query in _SIZED.items()} | {"checkpoints": tx.rows(_CHECKPOINTS)[0]}
    return {
        "at": moment,
        "seconds": round(seconds, 3) if seconds > 0 else None,
        "sessions": dict(tx.rows(_SESSIONS)),
        "steps": dict(tx.rows(_STEPS)),
        "entries": {name: int(count) for name, (count, _) in sized.items()},
        "bytes": {name: int(size) for name, (_, size) in sized.items()}
        | {"recorded": int(tx.value(_RECORDED)), "database": int(tx.value(_DATABASE[tx.dialect_name]))},
        "per_second": {
            name: round(tx.value(query, since=before) / seconds, 4) if before is not None and seconds > 0 else None
            for name, query in _RATES.items()
        },
    }


def keep(tx: Transaction, figures: dict[str, Any], most: int) -> None:
    """Write a row, and keep the newest `most` rows."""
    tx.run(_ADD, moment=figures["at"], text=serial.encode(figures).decode())
    tx.run(_CUT, keep=most)


def newest(tx: Transaction, most: int) -> list[dict[str, Any]]:
    """The newest rows, the newest first."""
    return [serial.decode(body) for _, body in tx.rows(_NEWEST, most=most)]
