"""Following a session to its end, in view of the user: what `research`, `run`, `sessions resume` and `watch` share."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import SessionError
from .board import Board
from .live import View, view_of
from .printing import document, say, told

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..storage.events import Event
    from ..tasks.app import Celeriac

#: After Ctrl-C, running steps have so many seconds to finish.
GRACE_SECONDS = 30.0
#: Seconds between two looks at what has happened.
LOOK_SECONDS = 0.1
#: A session with a broker on which nothing happens for so long, in seconds, may have no worker.
WORKERLESS_SECONDS = 3.0

EXIT_CODES = {"completed": 0, "archived": 0, "failed": 1, "cancelled": 1, "paused": 3}
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Manner:
    """How to follow: `as_json` keeps standard output for one JSON document at the end, `quiet` shows nothing meanwhile,
    `pause` lets Ctrl-C pause the session (else it only stops following)."""

    as_json: bool = False
    quiet: bool = False
    pause: bool = True


class Interrupts:
    """Counts Ctrl-C and SIGTERM, so that they strike nowhere in the middle; the second one leaves at once."""

    def __init__(self) -> None:
        self.count = 0
        self.number = signal.SIGINT
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._strike)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _strike(self, number: int, _frame: object) -> None:
        self.count += 1
        self.number = signal.Signals(number)
        if self.count > 1:
            leave_at_once(128 + number)

    @property
    def code(self) -> int:
        """The exit code of a process that this ended."""
        return 128 + self.number


def leave_at_once(code: int) -> None:
    """End the process without waiting for its threads: their steps are run again, by whoever resumes the session."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            if stream.isatty():
                stream.write("\x1b[?25h\n")  # the view hides the cursor
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def working(c: Celeriac) -> Iterator[None]:
    """Without a broker, run steps in this process for the length of the block."""
    if c.broker:
        yield
        return
    with c.embedded():
        yield


def follow(c: Celeriac, session: Session, manner: Manner, interrupts: Interrupts) -> int:
    """Show a session until it has ended or is paused; gives the exit code. The first Ctrl-C pauses it."""
    offset = session.last_event()
    board = Board(session)
    stream = sys.stderr if manner.as_json else sys.stdout
    view = view_of(board, stream, manner.quiet)
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(session, offset, events), name="celeriac-follow", daemon=True).start()
    with view:
        stopped = _watch(c, session, board, view, events, manner, interrupts)
    if interrupts.count and board.status not in EXIT_CODES:
        return interrupts.code
    if interrupts.count and manner.pause and board.status == "paused":
        _tell_how_to_go_on(session, stopped)
        if not stopped:
            leave_at_once(interrupts.code)
        return interrupts.code
    return EXIT_CODES.get(board.status, 0)  # active: a conversation whose messages were answered


def _read(session: Session, offset: int, events: queue.SimpleQueue[Event | BaseException | None]) -> None:
    try:
        for event in session.stream(offset):
            events.put(event)
        events.put(None)
    except BaseException as fault:
        events.put(fault)


def _watch(
    c: Celeriac,
    session: Session,
    board: Board,
    view: View,
    events: queue.SimpleQueue[Event | BaseException | None],
    manner: Manner,
    interrupts: Interrupts,
) -> bool:
    """Take events in until the session rests, or Ctrl-C; False if steps were still running when patience ended."""
    deadline = 0.0
    quiet_since = time.monotonic()
    while not (board.ended or board.resting):
        if _take(events, board, view):
            quiet_since = time.monotonic()
        elif c.broker and not board.running and time.monotonic() - quiet_since > WORKERLESS_SECONDS:
            quiet_since = float("inf")
            _tell_if_no_worker(c, view)
        if interrupts.count and not manner.pause:
            return True
        if interrupts.count and not deadline:
            deadline = time.monotonic() + GRACE_SECONDS
            _pause(session, view)
        if deadline and time.monotonic() > deadline:
            return False
        view.draw()
    _take(events, board, view, wait=False)
    return True


def _take(events: queue.SimpleQueue[Event | BaseException | None], board: Board, view: View, wait: bool = True) -> bool:
    """Take in all that has come, waiting a moment for the first; False if nothing came."""
    some = False
    with contextlib.suppress(queue.Empty):
        event = events.get(timeout=LOOK_SECONDS) if wait else events.get_nowait()
        until = time.monotonic() + LOOK_SECONDS
        while True:
            if isinstance(event, BaseException):
                raise event
            if event is None:
                break
            some = True
            board.apply(event)
            view.event(event)
            if board.resting or time.monotonic() > until:
                break
            event = events.get_nowait()
    return some


def _pause(session: Session, view: View) -> None:
    try:
        session.pause()
        view.notice("pausing: what runs may finish (Ctrl-C again: leave at once)")
    except SessionError:  # it ended just now
        view.notice("ending")


def _tell_if_no_worker(c: Celeriac, view: View) -> None:
    from ..storage import workers

    if not c.engine.database.read(workers.slots):
        view.notice("no worker is running; start one with `celeriac worker`")


def _tell_how_to_go_on(session: Session, stopped: bool) -> None:
    say(f"\npaused; to go on:  celeriac sessions resume {session.id}")
    if not stopped:
        busy = ", ".join(step["name"] for step in session.steps() if step["status"] == "running")
        say(f"still running, and run again then: {busy}")


def finish(c: Celeriac, session: Session, manner: Manner, interrupts: Interrupts) -> int:
    """Run a session to its end in view of the user, then say what came out; gives the exit code."""
    from .summary import summarise

    with working(c):
        code = follow(c, session, manner, interrupts)
    if manner.as_json:
        document(session.to_dict())
    elif code not in (INTERRUPTED, 143) and not manner.quiet:
        summarise(session)
    elif manner.quiet and code == 1 and (error := session.error):
        say(f"celeriac: {told(error)}")
    return code
