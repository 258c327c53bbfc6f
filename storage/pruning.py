"""What pruning looks at: sessions that may go, and messages of sessions that may lose some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select

from .database import Database, Query, Row, Transaction
from .histories.tables import conversations, history, history_gaps
from .tables import sessions

_PAGE: Final = 500
_s, _c, _h, _g = sessions.c, conversations.c, history.c, history_gaps.c
#: Neither pinned nor with work to be done.
_free = (_s.pinned == 0, _s.open_steps == 0)
_joined = sessions.outerjoin(conversations, _c.session_id == _s.id)
_mine = (_s.tenant == bindparam("of"),)


class Candidate(NamedTuple):
    """A session that may go. Times are seconds since 1970."""

    id: str
    user: str
    type: str
    status: str
    query: str
    title: str
    changed_at: float
    changes: int


_SESSIONS = Query(
    select(
        _s.id,
        _s.user,
        _s.type,
        _s.status,
        _s.query,
        _s.title,
        _s.updated_at,
        func.coalesce(_c.updated_at, 0.0),
        _s.event_seq + func.coalesce(_c.entries, 0),
    )
    .select_from(_joined)
    .where(*_mine, *_free, _s.id > bindparam("after"))
    .order_by(_s.id)
    .limit(_PAGE)
)
_TALK = Query(select(_s.type).where(_s.id == bindparam("session"), *_free, _s.status != literal_column("'archived'")))
_STANDS = Query(
    select(_s.updated_at, func.coalesce(_c.updated_at, 0.0))
    .select_from(_joined)
    .where(_s.id == bindparam("session"), *_free)
)
_COUNT = Query(select(func.count()).where(*_mine))
_IDS = Query(select(_s.id).where(*_mine).order_by(_s.id))
_SAID = Query(
    select(func.coalesce(func.sum(_c.entries - func.coalesce(_g.gone, 0)), 0))
    .select_from(sessions.join(conversations, _c.session_id == _s.id).outerjoin(history_gaps, _g.session_id == _s.id))
    .where(*_mine)
)
_BYTES_SAID = Query(
    select(func.coalesce(func.sum(_h.size), 0))
    .select_from(sessions.join(history, _h.session_id == _s.id))
    .where(*_mine)
)
_BYTES_OF = Query(select(func.coalesce(func.sum(_h.size), 0)).where(_h.session_id == bindparam("session")))
_BORDER = Query(
    select(_h.number)
    .where(_h.session_id == bindparam("session"))
    .order_by(_h.number.desc())
    .limit(1)
    .offset(bindparam("skipped"))
)
_ROWS = Query(
    select(_h.number, _h.at, _h.mark, _h.size)
    .where(_h.session_id == bindparam("session"), _h.number > bindparam("after"), _h.number < bindparam("before"))
    .order_by(_h.number)
    .limit(_PAGE)
)


def candidates(database: Database, tenant: str) -> Iterator[Candidate]:
    """Sessions of a tenant that are neither pinned nor have work to be done."""
    after = ""
    while rows := database.read(lambda tx: _candidates(tx, tenant, after)):  # noqa: B023
        yield from rows
        after = rows[-1].id


def _candidates(tx: Transaction, tenant: str, after: str) -> list[Candidate]:
    found = []
    for own, user, type_, status, query, title, changed, said, changes in tx.rows(_SESSIONS, of=tenant, after=after):
        texts = (tx.open(query, "sessions.query", own), tx.open(title, "sessions.title", own))
        found.append(Candidate(own, user, type_, status, *texts, max(changed, said), int(changes)))
    return found


def unchanged_since(tx: Transaction, session_id: str, at: float) -> bool:
    """Whether a session may go still, and has not changed after that time."""
    row = tx.row(_STANDS, session=session_id)
    return row is not None and max(row) <= at


def type_of(tx: Transaction, session_id: str) -> str | None:
    """The type of a session that may lose messages; None of one that may not."""
    found: str | None = tx.value(_TALK, session=session_id)
    return found


def count(tx: Transaction, tenant: str) -> int:
    """How many sessions a tenant has."""
    return int(tx.value(_COUNT, of=tenant))


def ids(tx: Transaction, tenant: str) -> list[str]:
    """The ids of all sessions of a tenant."""
    return [row[0] for row in tx.rows(_IDS, of=tenant)]


def said(tx: Transaction, tenant: str) -> int:
    """How many messages a tenant has."""
    return int(tx.value(_SAID, of=tenant))


def bytes_said(tx: Transaction, tenant: str, session_id: str | None) -> int:
    """Bytes of the messages of a session, or of all of a tenant."""
    if session_id is not None:
        return int(tx.value(_BYTES_OF, session=session_id))
    return int(tx.value(_BYTES_SAID, of=tenant))


def border(tx: Transaction, session_id: str, preserve: int) -> int:
    """The number from which on the newest `preserve` messages of a session are."""
    if not preserve:
        return 1 << 62
    found = tx.value(_BORDER, session=session_id, skipped=preserve - 1)
    return 0 if found is None else int(found)


def messages(database: Database, session_id: str, before: int) -> Iterator[Row]:
    """(number, at, mark, bytes) of a session's messages before a number, in order."""
    after = 0
    while rows := database.read(lambda tx: tx.rows(_ROWS, session=session_id, after=after, before=before)):  # noqa: B023
        yield from rows
        after = rows[-1][0]


def talks(database: Database, tenant: str) -> Iterator[tuple[str, str]]:
    """(id, type) of a tenant's sessions that may lose messages."""
    for one in candidates(database, tenant):
        if one.status != "archived":
            yield one.id, one.type
