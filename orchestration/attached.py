"""Sessions that another one has attached: their results and history can be read there, and nothing of them written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ..errors import SessionError, SessionNotFound
from ..storage import attached as rows
from ..storage import sessions
from ..storage.database import Transaction
from .engine import Engine
from .turn import Turn

if TYPE_CHECKING:
    from .session import Session

#: So many sessions can be attached to one.
MOST: Final = 100


class Attached:
    """A session as another one reads it. Each reading asks whether the reader may still read it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.id = session.id
        #: What was said in it.
        self.history = ReadOnlyHistory(session)

    def __repr__(self) -> str:
        return f"<Attached {self.id}>"

    @property
    def status(self) -> str:
        """active, paused, completed, failed, cancelled or archived."""
        return self._session.status

    @property
    def query(self) -> str:
        return self._session.query

    @property
    def title(self) -> str:
        """What it is called; a branch by its name."""
        return str(self._session.to_dict(details=False)["title"])

    @property
    def result(self) -> Any:
        """As `Session.result`."""
        return self._session.result

    @property
    def report(self) -> Any:
        """As `Session.report`."""
        return self._session.report

    def output(self, name: str) -> Any:
        """As `Session.output`."""
        return self._session.output(name)

    def steps(self) -> list[dict[str, Any]]:
        """As `Session.steps`."""
        return self._session.steps()

    def findings(self) -> list[dict[str, Any]]:
        """As `Session.findings`."""
        return self._session.findings()


class ReadOnlyHistory:
    """A session's history, to be read."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, last: int | None = None) -> list[dict[str, Any]]:
        """The last so many entries in order, or all of them."""
        return self._session.history(last)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._session.history.all()

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True

    def range(self, first: int, last: int | None = None) -> list[dict[str, Any]]:
        """The entries with the numbers `first` to `last` (both are in; None: to the end)."""
        return self._session.history.range(first, last)

    def all(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Entries in order, read page by page; those with numbers over `after`."""
        return self._session.history.all(after)

    def count(self) -> int:
        """How many entries there are."""
        return self._session.history.count()


def attach(engine: Engine, session_id: str, other: str) -> bool:
    """Let a session read another one; False if it did. The caller has seen to it that it may."""
    if other == session_id:
        raise SessionError(f"session {session_id} cannot be attached to itself")

    def work(turn: Turn) -> bool:
        if turn.hot.status == "archived":
            raise SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")
        if sessions.status(turn.tx, other) is None:
            raise SessionNotFound(f"no session {other!r}")
        if not rows.add(turn.tx, session_id, other):
            return False
        if len(rows.of(turn.tx, session_id)) > MOST:
            raise SessionError(f"session {session_id} has {MOST} sessions attached; more are not allowed")
        turn.event("session.attached", component="sessions", data={"session": other})
        return True

    return engine.in_turn(session_id, work)


def detach(engine: Engine, session_id: str, other: str) -> bool:
    """Let a session read another one no longer; False if it did not."""

    def work(turn: Turn) -> bool:
        gone = rows.remove(turn.tx, session_id, other)
        if gone:
            turn.event("session.detached", component="sessions", data={"session": other})
        return gone

    return engine.in_turn(session_id, work)


def ids(engine: Engine, session_id: str) -> list[str]:
    """The ids of the sessions that are attached to one."""

    def read(tx: Transaction) -> list[str]:
        return rows.of(tx, session_id)

    return engine.database.read(read)
