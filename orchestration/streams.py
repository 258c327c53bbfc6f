"""Following a session from outside: waiting for its end, and its events in order, live and without a gap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from ..errors import SessionError, SessionNotFound
from ..storage import events, sessions
from ..storage.database import Transaction
from .engine import Engine
from .states import AT_REST, SESSION_ENDED

#: Seconds between looks at the database while waiting for other processes, at first and after a minute.
LOOK_SECONDS = 0.005
LAZY_SECONDS = 0.02


class Waker(Protocol):
    """Something that tells sooner than a look at the database that a session changed elsewhere."""

    def wait(self, session_id: str, beyond: int, seconds: float) -> None:
        """Return when the session may have events after `beyond`, or after so many seconds."""


class Follower:
    """Waits for changes of one session, or only for it to be `at_rest`: rings in this process, else looks that cost
    next to nothing while nothing changes.
    """

    def __init__(self, engine: Engine, session_id: str, waker: Waker | None, at_rest: bool = False) -> None:
        self._engine = engine
        self._id = session_id
        self._waker = waker
        self._listening = engine.bell.listen(session_id, at_rest)
        self._started = time.monotonic()

    def __enter__(self) -> Follower:
        self._listening.__enter__()
        self._changes = self._engine.database.changes()
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()
        self._listening.__exit__()

    def wait(self, beyond: int, seconds: float) -> None:
        """Wait until the session may have changed, at most so long."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            if self._waker is not None:
                self._waker.wait(self._id, beyond, min(left, 1.0))
                return
            pause = LOOK_SECONDS if time.monotonic() - self._started < 60 else LAZY_SECONDS
            if self._listening.wait(min(pause, left)) or self._changes.any():
                return


def _allowed() -> None:
    pass


def wait(
    engine: Engine,
    session_id: str,
    timeout: float | None,
    waker: Waker | None = None,
    check: Callable[[], None] = _allowed,
) -> str:
    """Wait until a session has ended or is paused; gives its status then. `check` is called before each look.

    Raises TimeoutError, SessionNotFound.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with Follower(engine, session_id, waker, at_rest=True) as follower:
        while True:
            check()
            hot = engine.database.read(lambda tx: sessions.status(tx, session_id))
            if hot is None:
                raise SessionNotFound(f"no session {session_id!r}")
            status, seq = hot
            if status in AT_REST:
                return status
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"session {session_id} is still {status} after {timeout:g} s")
            follower.wait(seq, left)


def stream(
    engine: Engine,
    session_id: str,
    from_offset: int = 0,
    follow: bool = True,
    waker: Waker | None = None,
    check: Callable[[], None] = _allowed,
) -> Iterator[events.Event]:
    """A session's events after number `from_offset`, in order, none missing and none twice. `check` is called before
    each look.

    With `follow` it goes on live and ends after the event that ends the session; without, it ends with the last one
    there is. To go on after a break, pass the `seq` of the last event that was seen.
    """
    if not (isinstance(from_offset, int) and 0 <= from_offset < 2**62):
        raise SessionError(f"from_offset is {from_offset!r:.60}; it must be a whole number of 0 or more")
    seen = from_offset
    with Follower(engine, session_id, waker) as follower:
        while True:
            check()
            # First how it stands, then what happened: the other way round its last events could slip in between.
            status, found = engine.database.read(partial(_look, session_id=session_id, beyond=seen))
            if status is None:
                raise SessionNotFound(f"no session {session_id!r}")
            yield from found
            if found:
                seen = found[-1].seq
                continue
            if not follow or status[0] in SESSION_ENDED:
                return
            follower.wait(seen, 3600.0)


def _look(tx: Transaction, session_id: str, beyond: int) -> tuple[tuple[str, int] | None, list[events.Event]]:
    return sessions.status(tx, session_id), events.since(tx, session_id, beyond)
