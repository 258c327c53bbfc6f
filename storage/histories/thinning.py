"""Taking entries out of the rows of a history, and putting them back. Numbers stay what they were: what is taken out
leaves a gap, and how many there are is counted apart, so that a history without gaps pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import bindparam, delete, func, insert, select, text, update

from .. import trees
from ..blobs import BlobStore
from ..database import Query, Transaction
from ..results import refer_to
from . import rows
from .cold import Stored
from .tables import conversations, history, history_gaps

_h, _g = history.c, history_gaps.c
_mine = _h.session_id == bindparam("session")
_one = (_mine, _h.number == bindparam("wanted"))
_STORED = Query(
    select(_h.number, _h.at, _h.mark, _h.body, _h.blob, _h.size)
    .where(_mine, _h.number > bindparam("after"), _h.number < bindparam("before"))
    .order_by(_h.number)
    .limit(bindparam("most"))
)
_TAKE = Query(delete(history).where(*_one).returning(_h.blob, _h.size))
_PUT = Query(
    insert(history).values(
        {c: bindparam(f"new_{c}") for c in ("session_id", "number", "at", "mark", "body", "blob", "size")}
    )
)
_GROW = Query(
    text(
        "INSERT INTO history_gaps (session_id, gone) VALUES (:session, :more)"
        " ON CONFLICT (session_id) DO UPDATE SET gone = history_gaps.gone + excluded.gone"
    )
)
_GAPS = Query(select(_g.gone).where(_g.session_id == bindparam("session")))
_CLOSED = Query(delete(history_gaps).where(_g.session_id == bindparam("session"), _g.gone == 0))
_THERE = Query(select(func.count()).where(_mine, _h.number > bindparam("after"), _h.number <= bindparam("last")))
_WEIGH = Query(
    update(conversations)
    .where(conversations.c.session_id == bindparam("session"))
    .values(bytes=conversations.c.bytes + bindparam("more"))
)


def gaps(tx: Transaction, session_id: str) -> int:
    """How many numbers no entry has any more."""
    return int(tx.value(_GAPS, session=session_id) or 0)


def there(tx: Transaction, session_id: str, after: int, last: int) -> int:
    """How many entries there are with numbers over `after`, up to `last`."""
    return int(tx.value(_THERE, session=session_id, after=after, last=last))


def stored(tx: Transaction, session_id: str, after: int, before: int, most: int) -> list[Stored]:
    """Entries between two numbers, in order, at most so many."""
    return [
        Stored(number, at, mark, _plain(tx, session_id, number, body), blob, size)
        for number, at, mark, body, blob, size in tx.rows(
            _STORED, session=session_id, after=after, before=before, most=most
        )
    ]


def _plain(tx: Transaction, session_id: str, number: int, body: str | None) -> bytes | None:
    return None if body is None else tx.open(body, rows.BODY, session_id, number).encode()


def take_out(tx: Transaction, session_id: str, numbers: Iterable[int]) -> tuple[list[int], list[str]]:
    """Delete entries; gives the numbers of those that were there, and the blobs that they named.

    Nobody appends meanwhile: the caller holds the conversation.
    """
    gone, blobs, size = [], [], 0
    above = trees.above(tx, session_id)
    shared = trees.shared(tx, session_id) - (above[0][1] if above else 0)  # branches read these
    for number in (one for one in numbers if one > shared):
        row = tx.row(_TAKE, session=session_id, wanted=number)
        if row is not None:
            gone.append(number)
            blobs += [row[0]] if row[0] else []
            size += row[1]
    if gone:
        tx.run(_GROW, session=session_id, more=len(gone))
        tx.run(_WEIGH, session=session_id, more=-size)
    return gone, blobs


def put_in(tx: Transaction, session_id: str, entries: Sequence[Stored]) -> None:
    """Write entries into gaps of a history whose conversation the caller holds."""
    for one in entries:
        body = None if one.body is None else tx.seal(one.body.decode(), rows.BODY, session_id, one.number)
        values = {"session_id": session_id, "body": body}
        values |= {name: getattr(one, name) for name in ("number", "at", "mark", "blob", "size")}
        tx.run(_PUT, **{f"new_{name}": value for name, value in values.items()})
    tx.run(_GROW, session=session_id, more=-len(entries))
    tx.run(_WEIGH, session=session_id, more=sum(one.size for one in entries))
    tx.run(_CLOSED, session=session_id)


def as_stored(tx: Transaction, blobs: BlobStore, number: int, at: float, mark: int, body: bytes, inline: int) -> Stored:
    """A new entry for a gap; a large one as a blob."""
    if len(body) <= inline:
        return Stored(number, at, mark, body, None, len(body))
    blob = blobs.put(body)
    refer_to(tx, blobs, blob, body)
    return Stored(number, at, mark, None, blob, len(body))
