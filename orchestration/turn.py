"""A turn: one transaction on one session, with its row locked. Collects events and the checkpoint's changes, writes
them at the end.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from ..errors import SessionNotFound
from ..storage import checkpoints, events, serial, sessions
from ..storage.database import Call, Database, Transaction

T = TypeVar("T")
#: Told after the commit: (session id, number of its last event, its status).
Listener = Callable[[str, int, str], None]


class Turn:
    """One transaction on one locked session.

    All writes to a session go through a turn, so its events are numbered without a gap, its counters are right and
    its checkpoints follow each other, whatever else goes on in the database.
    """

    __slots__ = ("_listener", "_rows", "change", "first_seq", "found", "hot", "kind", "label", "name", "tx")

    def __init__(
        self, tx: Transaction, session_id: str, listener: Listener | None = None, first: Sequence[Call] = ()
    ) -> None:
        hot, found = sessions.lock_then(tx, session_id, first)
        if hot is None:
            raise SessionNotFound(f"no session {session_id!r}")
        self.tx = tx
        self.hot = hot
        #: Rows of the statements that were run `first`, behind the lock, in its round trip.
        self.found = found
        #: What has changed since the last checkpoint, as `storage.checkpoints` keeps it.
        self.change = checkpoints.Change()
        #: Kind and label of the checkpoint to be written; none: only if `change` says something.
        self.kind: str | None = None
        self.label = ""
        #: A random name and the number of its first event: together they tell later whether the COMMIT went in.
        self.name = secrets.randbits(63)
        self.first_seq = hot.event_seq + 1
        self._rows: list[dict[str, Any]] = []
        self._listener = listener

    @property
    def held(self) -> bool:
        """Whether steps that become ready have to wait, because the session is not active."""
        return self.hot.status != "active"

    def event(
        self,
        type_: str,
        *,
        step: str | None = None,
        component: str = "engine",
        data: Any = None,
        parent: str | None = None,
    ) -> int:
        """Add an event; gives its number."""
        hot = self.hot
        hot.event_seq += 1
        self._rows.append(
            {
                "session_id": hot.id,
                "seq": hot.event_seq,
                "type": type_,
                "component": component,
                "step": step,
                "data": None if data is None else serial.encode(data, what=f"event {type_}").decode(),
                "correlation_id": hot.correlation_id,
                "parent": parent,
                "turn": None if self._rows else self.name,
            }
        )
        return hot.event_seq

    def close(self) -> None:
        """Write what was collected; nothing, if nothing happened. Call it last, inside the transaction."""
        if not (self._rows or self.kind or self.change):
            return
        events.append(self.tx, self._rows)
        if self.kind or self.change:
            hot = self.hot
            hot.checkpoint_seq += 1
            checkpoints.append(self.tx, hot, self.kind or "step", self.label, self.change)
        sessions.save(self.tx, self.hot)
        if self._listener is not None and self._rows:
            told = self.hot.id, self.hot.event_seq, self.hot.status
            self.tx.after_commit.append(partial(self._listener, *told))


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[T]):
    """A turn that was run up to its COMMIT: its name, the number of its first event, and what it gave."""

    name: int
    seq: int
    result: T
    after_commit: list[Callable[[], None]]


def once(
    database: Database,
    opened: Callable[[Transaction, Sequence[Call]], Turn],
    work: Callable[[Turn], T],
    first: Sequence[Call],
    synced: bool = True,
) -> T:
    """Run `work` in a turn, in a transaction of its own; it goes in once, whatever happens to the COMMIT.

    After a COMMIT whose outcome is unknown the session's row is locked anew, which waits until that outcome is
    settled; then the event that the turn began with tells whether it went in. A turn without an event changes
    nothing that could not be done twice.
    """
    before: list[_Attempt[T]] = []

    def transaction(tx: Transaction) -> T:
        turn = opened(tx, () if before else first)
        if before:
            last = before[-1]
            if events.turn_of(tx, turn.hot.id, last.seq) == last.name:
                tx.after_commit += last.after_commit
                return last.result
            turn.found = tx.together(first)
        result = work(turn)
        turn.close()
        before.append(_Attempt(turn.name, turn.first_seq, result, tx.after_commit))
        return result

    return database.write(transaction, synced=synced)
