"""Rows of histories, in a transaction that the caller has opened.

An entry is its own event: it is numbered, timed and never changed, and so it is not told a second time in `events`,
which would double what a conversation costs. Appending takes a lock of its own, the conversation's row, and not the
session's: what is said does not wait for steps, nor they for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import BigInteger, bindparam, cast, delete, func, insert, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from ...errors import CeleriacError, SessionError, SessionNotFound
from ..blobs import BlobStore
from ..database import Query, Row, Transaction, now
from ..results import refer_to
from ..sessions import status
from ..tables import sessions
from .protocol import Item, chunks
from .tables import cold_history, conversations, history, history_gaps, history_reads

#: Asked in the transaction that appends, once so many bytes of JSON are counted; raises what refuses them.
Admit = Callable[[Transaction, int], None]
#: So many rows may travel with the COMMIT; more are not kept in memory until then.
_FEW = 50
#: What a sealed body is bound to, with the session and the number.
BODY = "history.body"
_h = history.c
_c = conversations.c
_mine = _h.session_id == bindparam("session")


def _growing(inserting: Any) -> Query:
    """Only a session that is there and not archived is talked in; asked for in the same statement, that costs least."""
    more = (cast(bindparam(name), BigInteger) for name in ("more", "size"))
    may = select(sessions.c.id, now(), *more).where(
        sessions.c.id == bindparam("session"), sessions.c.status != literal_column("'archived'")
    )
    given = inserting(conversations).from_select(["session_id", "updated_at", "entries", "bytes"], may)
    changed: dict[str, Any] = {name: _c[name] + given.excluded[name] for name in ("entries", "bytes")}
    changed["updated_at"] = given.excluded.updated_at
    done = given.on_conflict_do_update(index_elements=["session_id"], set_=changed)
    return Query(done.returning(_c.entries, _c.updated_at))


_GROW = {"sqlite": _growing(sqlite.insert), "postgresql": _growing(postgresql.insert)}
_COLUMNS = ("session_id", "number", "at", "mark", "body", "blob", "size", "turn")
_ADD = Query(insert(history).values({c: bindparam(c) for c in _COLUMNS}))
# It waits for who deletes the session or puts it away, and holds off who would.
_HOLD_SESSION = Query(
    select(sessions.c.id)
    .where(sessions.c.id == bindparam("session"), sessions.c.status != literal_column("'archived'"))
    .with_for_update(read=True, key_share=True)
)
_TURN = Query(select(_h.turn).where(_mine, _h.number == bindparam("wanted")))
_LENGTH = Query(select(_c.entries).where(_c.session_id == bindparam("session")))
_gone = select(history_gaps.c.gone).where(history_gaps.c.session_id == bindparam("session")).scalar_subquery()
_COUNT = Query(select(_c.entries - func.coalesce(_gone, 0)).where(_c.session_id == bindparam("session")))
_BYTES = Query(select(_c.bytes).where(_c.session_id == bindparam("session")))
_HOLD = Query(select(_c.entries).where(_c.session_id == bindparam("session")).with_for_update())
_BLOBS = Query(select(_h.blob).where(_mine, _h.blob.is_not(None)).distinct())
_CLEAR = [
    Query(delete(one).where(one.c.session_id == bindparam("session")))
    for one in (history, conversations, cold_history, history_gaps, history_reads)
]
_NAMES = Query(
    select(_c.session_id).where(_c.session_id > bindparam("beyond")).order_by(_c.session_id).limit(bindparam("most"))
)


def append(
    tx: Transaction,
    blobs: BlobStore,
    session_id: str,
    items: Iterable[Item],
    inline: int,
    turn: int,
    admit: Admit | None = None,
) -> range:
    """Append entries; gives their numbers. `turn` is the random name of the transaction.

    Raises SessionNotFound, SessionError for a session that is archived, and what `admit` raises.
    """
    grow = _GROW[tx.dialect_name]
    first = last = 0
    for chunk in chunks(items):
        size = sum(len(item.body) for item in chunk)
        grown = tx.row(grow, session=session_id, more=len(chunk), size=size)
        if grown is None:
            raise _refused(tx, session_id)
        last, moment = grown
        if admit is not None:
            admit(tx, size)
        start = last - len(chunk) + 1
        if start == 1 and tx.row(_HOLD_SESSION, session=session_id) is None:
            raise _refused(tx, session_id)
        rows = []
        for number, item in enumerate(chunk, start):
            blob = None
            if len(item.body) > inline:
                blob = blobs.put(item.body)
                refer_to(tx, blobs, blob, item.body)
            rows.append(
                {
                    "session_id": session_id,
                    "number": number,
                    "at": moment if item.at is None else item.at,
                    "mark": item.mark,
                    "body": None if blob else tx.seal(item.body.decode(), BODY, session_id, number),
                    "blob": blob,
                    "size": len(item.body),
                    "turn": None if first else turn,
                }
            )
            first = first or number
        if len(rows) < _FEW:
            tx.later(_ADD, rows)
        else:
            tx.many(_ADD, rows)
    if not first:
        last = length(tx, session_id)
        first = last + 1
    return range(first, last + 1)


def _refused(tx: Transaction, session_id: str) -> CeleriacError:
    if status(tx, session_id) is None:
        return SessionNotFound(f"no session {session_id!r}")
    return SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")


def went_in(tx: Transaction, session_id: str, number: int, turn: int) -> bool:
    """Whether the transaction of that name appended that entry; waits for it if it is still on its way."""
    tx.row(_HOLD, session=session_id)
    return bool(tx.value(_TURN, session=session_id, wanted=number) == turn)


def count(tx: Transaction, session_id: str) -> int:
    """How many entries there are."""
    return int(tx.value(_COUNT, session=session_id) or 0)


def length(tx: Transaction, session_id: str) -> int:
    """The number of the last entry."""
    return int(tx.value(_LENGTH, session=session_id) or 0)


def bytes_of(tx: Transaction, session_id: str) -> int:
    """How many bytes of JSON the entries have."""
    return int(tx.value(_BYTES, session=session_id) or 0)


def _loading(newest: bool, marked: bool) -> Query:
    query = select(_h.number, _h.at, _h.body).where(
        _mine, _h.number >= bindparam("first"), _h.number <= bindparam("last")
    )
    if marked:
        query = query.where(_h.mark == bindparam("wanted"), literal_column("mark > 0"))  # which names the index
    return Query(query.order_by(_h.number.desc() if newest else _h.number).limit(bindparam("most")))


_LOAD = {(newest, marked): _loading(newest, marked) for newest in (False, True) for marked in (False, True)}
#: More than any number.
_ALL = (1 << 62) - 1


def load(
    tx: Transaction, session_id: str, first: int, last: int | None, limit: int | None, newest: bool, mark: int | None
) -> list[Row]:
    """Rows (number, at, body) as `Place.load` chooses them, in order. The body of a large entry is None, and its hash
    is asked for apart: each column more makes reading the small ones 5 % slower.
    """
    rows = tx.rows(
        _LOAD[newest, mark is not None],
        session=session_id,
        first=min(first, _ALL),
        last=_ALL if last is None else min(last, _ALL),
        most=_ALL if limit is None else max(limit, 0),
        **({} if mark is None else {"wanted": mark}),
    )
    rows = rows[::-1] if newest else rows
    if any(body is not None and body[0] != "{" for _, _, body in rows):
        rows = [(number, at, tx.open(body, BODY, session_id, number)) for number, at, body in rows]
    return rows


#: The newest entries, with the newest one first.
NEWEST = Query(select(_h.number, _h.at, _h.body).where(_mine).order_by(_h.number.desc()).limit(bindparam("most")))
_BLOB = Query(select(_h.blob).where(_mine, _h.number == bindparam("wanted")))


def blob_of(tx: Transaction, session_id: str, number: int) -> str | None:
    """The hash of the blob that holds a large entry; None if it is gone."""
    return tx.value(_BLOB, session=session_id, wanted=number)  # type: ignore[no-any-return]


def blobs_of(tx: Transaction, session_id: str) -> list[str]:
    """Hashes of the blobs that a session's history refers to."""
    return [row[0] for row in tx.rows(_BLOBS, session=session_id)]


def hold(tx: Transaction, session_id: str) -> int:
    """Keep others from appending until the transaction ends; gives the number of the last entry."""
    return int(tx.value(_HOLD, session=session_id) or 0)


def clear(tx: Transaction, session_id: str) -> None:
    """Delete all entries; their blobs are the caller's."""
    for query in _CLEAR:
        tx.run(query, session=session_id)


def names(tx: Transaction, beyond: str, most: int) -> Iterator[str]:
    """Up to `most` ids of sessions that have entries and come after `beyond`, in order."""
    return (row[0] for row in tx.rows(_NAMES, beyond=beyond, most=most))


__all__ = ["BODY", "append", "blob_of", "blobs_of", "clear", "count", "hold", "length", "load", "names", "went_in"]
