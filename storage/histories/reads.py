"""How often entries of histories are read: by blocks of their numbers, where the setting `prune_count_reads` is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import bindparam, func, select, text

from ..database import Query, Transaction
from .tables import history_reads

#: So many numbers are one block.
BLOCK: Final = 50
_r = history_reads.c
#: Only of a session that is there: it may have been deleted since it was read.
_NOTE = Query(
    text(
        "INSERT INTO history_reads (session_id, block, reads, read_at)"
        " SELECT s.id, CAST(:block AS BIGINT), CAST(:more AS BIGINT), CAST(:at AS DOUBLE PRECISION)"
        " FROM sessions s WHERE s.id = :session"
        " ON CONFLICT (session_id, block) DO UPDATE"
        " SET reads = history_reads.reads + excluded.reads, read_at = excluded.read_at"
    )
)
_OF = Query(select(_r.block, _r.reads, _r.read_at).where(_r.session_id == bindparam("session")))
_SUM = Query(
    select(func.coalesce(func.sum(_r.reads), 0), func.max(_r.read_at)).where(_r.session_id == bindparam("session"))
)


def add(tx: Transaction, counts: Mapping[tuple[str, int], int]) -> None:
    """Add reads of (session, block)."""
    at = tx.now()
    values: list[dict[str, Any]] = [
        {"session": session_id, "block": block, "more": more, "at": at}
        for (session_id, block), more in sorted(counts.items())
    ]
    tx.many(_NOTE, values)


def of(tx: Transaction, session_id: str) -> dict[int, tuple[int, float]]:
    """(reads, when last) of a session's entries by block."""
    return {block: (int(reads), float(at)) for block, reads, at in tx.rows(_OF, session=session_id)}


def total(tx: Transaction, session_id: str) -> tuple[int, float]:
    """How often a session's entries were read, and when last (0: never)."""
    reads, at = tx.rows(_SUM, session=session_id)[0]
    return int(reads), float(at or 0.0)
