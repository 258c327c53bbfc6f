"""Events: append-only, numbered 1, 2, 3 ... without a gap in each session. And the outbox of hints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, select

from . import serial
from .database import Query, Transaction, now
from .steps import in_state
from .tables import events, outbox, steps

_e = events.c
_INSERT = Query(
    insert(events).values(
        {
            c: bindparam(c)
            for c in ("session_id", "seq", "type", "component", "step", "data", "correlation_id", "parent", "turn")
        }
        | {"at": now()}
    )
)
_SINCE = Query(
    select(_e.seq, _e.at, _e.type, _e.component, _e.step, _e.data, _e.correlation_id, _e.parent)
    .where(_e.session_id == bindparam("session"), _e.seq > bindparam("beyond"))
    .order_by(_e.seq)
    .limit(bindparam("most"))
)
_DATA = "events.data"
_LAST = Query(select(func.max(_e.seq)).where(_e.session_id == bindparam("session")))


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a session. `at` is seconds since 1970 (UTC); `data` is JSON-able and depends on the type."""

    session_id: str
    seq: int
    at: float
    type: str
    component: str
    step: str | None
    data: Any
    correlation_id: str
    parent: str | None

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able data."""
        return {name: getattr(self, name) for name in self.__slots__}


_TURN = Query(select(_e.turn).where(_e.session_id == bindparam("session"), _e.seq == bindparam("wanted")))


def turn_of(tx: Transaction, session_id: str, seq: int) -> int | None:
    """The name of the transaction that began with that event; None if there is no such event."""
    return tx.value(_TURN, session=session_id, wanted=seq)  # type: ignore[no-any-return]


def append(tx: Transaction, rows: list[dict[str, Any]]) -> None:
    """Insert events whose numbers the caller took from the locked session row."""
    if tx.seals:
        rows = [{**row, "data": tx.seal(row["data"], _DATA, row["session_id"], row["seq"])} for row in rows]
    tx.later(_INSERT, rows)


def since(tx: Transaction, session_id: str, beyond: int, most: int = 500) -> list[Event]:
    """Up to `most` events of a session with a number over `beyond`, in order."""
    return [
        Event(
            session_id,
            seq,
            at,
            type_,
            component,
            step,
            None if data is None else serial.decode(tx.open(data, _DATA, session_id, seq)),
            correlation,
            parent,
        )
        for seq, at, type_, component, step, data, correlation, parent in tx.rows(
            _SINCE, session=session_id, beyond=beyond, most=most
        )
    ]


def last(tx: Transaction, session_id: str) -> int:
    """Number of a session's last event, 0 if it has none."""
    return int(tx.value(_LAST, session=session_id) or 0)


_o = outbox.c
_ADD_HINT = Query(
    insert(outbox)
    .values({c: bindparam(c) for c in ("session_id", "queue", "priority", "hints")} | {"created_at": now()})
    .returning(_o.id)
)
_UNSENT = Query(
    select(_o.id, _o.session_id, _o.queue, _o.priority, _o.hints)
    .where(_o.created_at <= now() - bindparam("age"))
    .order_by(_o.id)
    .limit(bindparam("most"))
)
_STALE = Query(
    select(
        _o.id,
        _o.session_id,
        _o.queue,
        _o.priority,
        _o.hints,
        exists(
            select(1)
            .select_from(steps)
            .where(steps.c.session_id == _o.session_id, in_state("ready"), steps.c.queue == _o.queue)
        ),
    )
    .where(_o.created_at <= now() - bindparam("age"))
    .order_by(_o.id)
    .limit(bindparam("most"))
)
_SENT = Query(delete(outbox).where(_o.id == bindparam("row")))


@dataclass(frozen=True, slots=True)
class Hint:
    """A row of the outbox: tell `hints` workers of `queue` that a session has steps ready. Without an id it is in no
    outbox, and may be lost.
    """

    id: int | None
    session_id: str
    queue: str
    priority: int
    hints: int


def add_hint(tx: Transaction, session_id: str, queue: str, priority: int, hints: int) -> Hint:
    """Write a hint into the outbox, in the transaction of the change that it tells of."""
    row = tx.value(_ADD_HINT, session_id=session_id, queue=queue, priority=priority, hints=hints)
    return Hint(int(row), session_id, queue, priority, hints)


def unsent(tx: Transaction, age: float, most: int = 200) -> list[Hint]:
    """Hints that have waited for `age` seconds: their publisher died before it could send or strike them off."""
    return [Hint(*row) for row in tx.rows(_UNSENT, age=age, most=most)]


def stale(tx: Transaction, age: float, most: int) -> list[tuple[Hint, bool]]:
    """The same, oldest first, each with whether its session still has a ready step on that queue."""
    return [(Hint(*row[:5]), bool(row[5])) for row in tx.rows(_STALE, age=age, most=most)]


def sent(tx: Transaction, ids: list[int]) -> None:
    """Strike hints off that the broker has taken."""
    tx.many(_SENT, [{"row": i} for i in ids])
