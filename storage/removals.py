"""Deleting a session that has many rows: its own row goes first, in one short transaction, and from then on there is no
such session; the rest goes some rows at a time. What a killed process leaves is noted here, for the next one.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Double, Table, Text, bindparam, delete, insert, select

from . import session_state, sessions
from .database import Query, Transaction, now
from .states.tables import state_values
from .tables import metadata
from .tables import sessions as session_rows

removals = Table(
    "removals",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_with_rowid=False,
)

_r = removals.c
_NOTE = Query(insert(removals).values(session_id=bindparam("session"), tenant=bindparam("of"), at=now()))
_PENDING = Query(select(_r.session_id, _r.tenant).order_by(_r.session_id))
_DONE = Query(delete(removals).where(_r.session_id == bindparam("session")))
_THERE = Query(select(session_rows.c.id).where(session_rows.c.id == bindparam("session")))
_v = state_values.c


def _returning(query: Any, table: Table) -> Query:
    return Query(query.returning(table.c.blob) if "blob" in table.c else query)


def _some(table: Table, owner: Any, key: Any) -> Query:
    """Delete the rows of an owner that come before a place in the order of their keys; none where it has fewer."""
    place = select(key).where(owner).order_by(key).limit(1).offset(bindparam("most")).scalar_subquery()
    return _returning(delete(table).where(owner, key < place), table)


def _ways(table: Table) -> tuple[Query | None, Query, bool]:
    """How some and how all rows of a session are deleted from a table, and whether they name blobs."""
    mine = table.c.session_id == bindparam("session")
    key = list(table.primary_key)
    some = _some(table, mine, key[1]) if len(key) > 1 and key[0].name == "session_id" else None
    return some, _returning(delete(table).where(mine), table), "blob" in table.c


_WAYS: Final = [_ways(table) for table in sessions.OWNED]
_owned = _v.scope == bindparam("owner")
_STATE: Final = (
    _some(state_values, _owned, _v.key),
    _returning(delete(state_values).where(_owned), state_values),
    True,
)


def note(tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete a locked session's own row and what it is found by, and note that the rest has to go."""
    tx.run(_NOTE, session=session_id, of=tenant)
    sessions.erase_row(tx, session_id)


def pending(tx: Transaction) -> list[tuple[str, str]]:
    """(id, tenant) of the sessions whose rest has to go."""
    return [(row[0], row[1]) for row in tx.rows(_PENDING)]


def some(tx: Transaction, session_id: str, tenant: str, most: int, start: int = 0) -> tuple[int, list[str], int | None]:
    """Delete about so many rows of what is left of a session; gives how many, the blobs that they named, and where to
    go on: None where nothing is left.

    Of a session that is there again, as after a restore, nothing is deleted.
    """
    count, blobs = 0, list[str]()
    if tx.row(_THERE, session=session_id) is None:
        owners = [{"session": session_id}] * len(_WAYS) + [{"owner": session_state.scope_of(session_id, tenant)}]
        for place, (way, owner) in enumerate(zip([*_WAYS, _STATE], owners, strict=True)):
            while place >= start and (found := _delete(tx, way, owner, most - count))[0]:
                count += found[0]
                blobs += found[1]
                if count >= most:
                    return count, blobs, place
    tx.run(_DONE, session=session_id)
    return count, blobs, None


def _delete(
    tx: Transaction, way: tuple[Query | None, Query, bool], owner: dict[str, str], most: int
) -> tuple[int, list[str]]:
    part, whole, names_blobs = way
    for query, values in ((part, {**owner, "most": most}), (whole, owner)):
        if query is None:
            continue
        if names_blobs:
            rows = tx.rows(query, **values)
            gone, named = len(rows), [row[0] for row in rows if row[0]]
        else:
            gone, named = tx.run(query, **values), []
        if gone:
            return gone, named
    return 0, []
