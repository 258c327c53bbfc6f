"""Finding sessions: listing by what describes them, and full-text search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, false, func, or_, select, text

from .database import Query, Transaction
from .sessions import opened
from .tables import session_tags, sessions

_s = sessions.c

#: What `listing` can order by.
ORDERS = {"created": _s.id, "updated": _s.updated_at, "priority": _s.priority}


@dataclass(frozen=True, slots=True)
class Whose:
    """Sessions of one tenant; of these, where `user` is not None, only that user's (if it is not empty) and those whose
    ids are of a pattern, in which `*` stands for any characters.
    """

    tenant: str = ""
    user: str | None = None
    patterns: tuple[str, ...] = ()

    def conditions(self) -> list[Any]:
        """What holds for their rows."""
        if self.user is None:
            return [_s.tenant == self.tenant]
        own = [_s.user == self.user] if self.user else []
        # An id holds none but these characters, so LIKE has none to escape, and no case to fold.
        fitting = [one for one in self.patterns if set(one) <= _OF_IDS]
        among = [_s.id.like(one.replace("*", "%")) if "*" in one else _s.id == one for one in fitting]
        return [_s.tenant == self.tenant, or_(*own, *among) if own or among else false()]


_OF_IDS = set("0123456789abcdef-*")


def starting_with(tx: Transaction, whose: Whose, start: str) -> list[tuple[str, str]]:
    """(id, user) of up to three of these sessions whose ids start with that text, which holds only what ids are made
    of.
    """
    wanted = [*whose.conditions(), _s.id.like(start + "%")]
    return [(row[0], row[1]) for row in tx.rows(select(_s.id, _s.user).where(*wanted).limit(3))]


def active_count(tx: Transaction, whose: Whose) -> int:
    """How many of these sessions are active."""
    return int(tx.value(select(func.count()).where(*whose.conditions(), _s.status == "active")))


def listing(
    tx: Transaction,
    whose: Whose,
    *,
    status: Sequence[str] = (),
    user: str | None = None,
    tag: str | None = None,
    type_: str | None = None,
    pinned: bool | None = None,
    since: float | None = None,
    until: float | None = None,
    order: str = "created",
    ascending: bool = False,
    after: tuple[Any, str] | None = None,
    limit: int = 100,
    words: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of these sessions that match all that is given. `after` is (order value, id) of the row before the page."""
    column = ORDERS[order]
    query = select(*sessions.columns)
    wanted = whose.conditions()
    if status:
        wanted.append(or_(*(_s.status == one for one in status)))  # IN would need parameters made anew for each run
    for one, value in ((_s.user, user), (_s.type, type_)):
        if value is not None:
            wanted.append(one == value)
    if pinned is not None:
        wanted.append(_s.pinned == int(pinned))
    if since is not None:
        wanted.append(_s.created_at >= since)
    if until is not None:
        wanted.append(_s.created_at < until)
    if tag is not None:
        wanted.append(_s.id.in_(select(session_tags.c.session_id).where(session_tags.c.tag == tag)))
    if words is not None:
        wanted.append(_s.id.in_(_matching(tx, words)))
    if after is not None:
        beyond = column > after[0] if ascending else column < after[0]
        tie = _s.id > after[1] if ascending else _s.id < after[1]
        wanted.append(or_(beyond, and_(column == after[0], tie)))
    orders = [c.asc() if ascending else c.desc() for c in (column, _s.id)]
    query = query.where(*wanted).order_by(*orders).limit(limit)
    return [opened(tx, row) for row in tx.rows(query)]


_MATCHING = {
    "sqlite": "SELECT session_id FROM session_search WHERE session_search MATCH :words",
    "postgresql": "SELECT session_id FROM session_search"
    " WHERE to_tsvector('simple', body) @@ to_tsquery('simple', :words)",
}


def _matching(tx: Transaction, words: str) -> Any:
    terms = words.replace("\0", " ").split()
    wanted = _fts_terms(terms) if tx.dialect_name == "sqlite" else _ts_terms(terms)
    return text(_MATCHING[tx.dialect_name]).bindparams(words=wanted)


def _fts_terms(terms: list[str]) -> str:
    """Every word quoted, the last as a prefix: no input can be a syntax error."""
    quoted = ['"' + term.replace('"', '""') + '"' for term in terms]
    return " ".join(quoted) + ("*" if quoted else '""')


def _ts_terms(terms: list[str]) -> str:
    quoted = ["'" + term.replace("\\", " ").replace("'", "''") + "'" for term in terms]
    return " & ".join(quoted) + (":*" if quoted else "")


_SEARCH_DROP = Query(text("DELETE FROM session_search WHERE session_id = :session"))
_SEARCH_ADD = Query(text("INSERT INTO session_search (session_id, body) VALUES (:session, :body)"))


def index(tx: Transaction, session_id: str, body: str, fresh: bool = False) -> None:
    """Make a session findable by the words of `body`; where all is sealed, they are not to be found anywhere."""
    if not fresh:
        tx.run(_SEARCH_DROP, session=session_id)
    if tx.seals:
        return
    tx.run(_SEARCH_ADD, session=session_id, body=body)
