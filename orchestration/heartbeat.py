"""The heartbeat of a worker process: renews leases of long steps, writes progress and partial results, stops lost
steps.

One thread for each process. Steps shorter than a beat cost it nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import SessionNotFound, StepCancelled, StepTimeout
from ..storage import sessions, steps
from .context import Context
from .engine import Engine, Lost, Work
from .interrupting import cancel_in_loop, raise_in_thread
from .memory import remembering
from .turn import Turn

logger = logging.getLogger("celeriac.heartbeat")

#: Seconds between looks at what is waiting to be written: listeners see a partial result within this and a commit.
FLUSH_SECONDS = 0.02
#: A step that does not heed its time limit is given up after so many more seconds.
GRACE_SECONDS = 5.0
#: What an event loop runs is given so long to end once it is cancelled, in seconds; then its thread is interrupted.
LOOP_SECONDS = 1.0
#: Seconds between writes of progress, and between looks at whether a step was cancelled.
BEAT_SECONDS = 0.5


@dataclass
class _Beat:
    work: Work
    context: Context
    thread: int
    deadline: float | None
    last: float = field(default_factory=time.monotonic)
    shown: tuple[float, str | None] = (0.0, None)
    #: When it was told to stop, and whether its thread was interrupted.
    told: float | None = None
    stopped: bool = False
    paused: bool = False
    #: Held while its partial results are written, so that none is written twice: by the beat, the agent, the recording.
    writing: threading.Lock = field(default_factory=threading.Lock)


class Heartbeat:
    """Keeps the steps that this process runs. `with heartbeat.over(work, context, limit):` surrounds an agent's run.

    `interrupt(thread, exception class or None)` stops an agent that does not look; `abandon(work)` is called, after its
    failure was recorded, for one that goes on all the same: a process that runs one step at a time ends itself there.
    """

    def __init__(
        self,
        engine: Engine,
        interrupt: Callable[[int, type[Exception] | None], None] = raise_in_thread,
        abandon: Callable[[Work], None] | None = None,
    ) -> None:
        self._engine = engine
        self.interrupt = interrupt
        self.abandon = abandon
        self._beats: dict[str, _Beat] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._pid = 0

    def over(self, work: Work, context: Context, limit: float | None) -> _Over:
        """Keep a step for the length of the `with` block; `limit` is its time limit in seconds, if it has one."""
        return _Over(self, _Beat(work, context, threading.get_ident(), time.monotonic() + limit if limit else None))

    def works(self) -> list[Work]:
        """The steps that this process is running."""
        return [beat.work for beat in list(self._beats.values())]

    def enter(self, beat: _Beat) -> None:
        if self._pid != os.getpid():
            self._start()
        self._beats[beat.work.claimed.claim] = beat
        self._wake.set()

    def leave(self, beat: _Beat) -> None:
        with beat.writing:
            self._beats.pop(beat.work.claimed.claim, None)

    def flush(self, work: Work) -> None:
        """Write a running step's partial results now; for an agent that makes them faster than the beat."""
        beat = self._beats.get(work.claimed.claim)
        if beat is not None:
            with beat.writing:
                self.write(work)

    def _start(self) -> None:
        """Start this process's thread; a fork does not take threads along."""
        with self._lock:
            if self._pid == os.getpid():
                return
            self._beats, self._wake = {}, threading.Event()
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="celeriac-heartbeat", daemon=True).start()

    def _run(self) -> None:
        while True:
            if not self._beats:
                self._wake.wait()
            self._wake.clear()
            time.sleep(FLUSH_SECONDS)
            for beat in list(self._beats.values()):
                try:
                    with beat.writing:
                        self._look(beat)
                except Exception as fault:  # the next look tries again; the step itself must not be disturbed
                    logger.warning("heartbeat of step %s failed: %s", beat.work.claimed.name, fault)

    def _look(self, beat: _Beat) -> None:
        work, now = beat.work, time.monotonic()
        if beat.deadline is not None and now > beat.deadline:
            self._stop(beat, StepTimeout)
            if now > beat.deadline + GRACE_SECONDS:
                self._give_up(beat)
                return
        shown = (work.progress, work.task)
        waited = now - beat.last
        if (
            work.partials
            or (waited >= BEAT_SECONDS and shown != beat.shown)
            or waited >= min(2 * BEAT_SECONDS, self._engine.settings.lease_seconds / 3)
        ):
            beat.last = now
            if not self.write(work, shown != beat.shown):
                self._stop(beat, StepCancelled)
            elif work.memory is not None:
                self._keep_if_paused(beat)
            beat.shown = shown

    def _keep_if_paused(self, beat: _Beat) -> None:
        """When the session has been paused, keep what the step has changed in its agent's memory: once a pause."""
        found = self._engine.database.read(lambda tx: sessions.status(tx, beat.work.session_id))
        paused = found is not None and found[0] == "paused"
        if paused and not beat.paused:
            remembering.save(self._engine, beat.work)
        beat.paused = paused

    def write(self, work: Work, progress: bool = False) -> bool:
        """Write a running step's partial results and progress and renew its lease; False if its claim is lost."""
        c, lease = work.claimed, self._engine.settings.lease_seconds
        if not work.partials and not progress:
            database = self._engine.database
            return database.write(lambda tx: steps.renew(tx, c, lease, work.progress, work.task), synced=False)

        def record(turn: Turn) -> bool:
            if not steps.renew(turn.tx, c, lease, work.progress, work.task):
                return False
            self._engine.write_partials(turn, work)
            if progress:
                shown = {"progress": work.progress, "task": work.task}
                turn.event("step.progress", step=c.name, component="agent", data=shown)
            return True

        try:
            return self._engine.in_turn(c.session_id, record)
        except SessionNotFound:
            return False

    def _stop(self, beat: _Beat, why: type[Exception]) -> None:
        """Ask the agent to stop: `ctx.check()` raises; what its event loop runs is cancelled; where there is none, or
        that does not help, its thread raises at its next line of Python.
        """
        if beat.stopped or beat.work.leaving or self._beats.get(beat.work.claimed.claim) is not beat:
            return
        now = time.monotonic()
        if beat.told is None:
            beat.told = now
            beat.context.stop(why)
            if cancel_in_loop(beat.thread):
                return
        elif now < beat.told + LOOP_SECONDS:
            return
        beat.stopped = True
        self.interrupt(beat.thread, why)

    def _give_up(self, beat: _Beat) -> None:
        """The agent heeds nothing: record its failure in its place. What it may still return is refused as lost."""
        self._beats.pop(beat.work.claimed.claim, None)
        with contextlib.suppress(Lost):
            self._engine.fail(
                beat.work, StepTimeout(f"step {beat.work.claimed.name} ran past its limit and did not stop")
            )
        if self.abandon is not None:
            self.abandon(beat.work)


class _Over:
    __slots__ = ("_beat", "_heartbeat")

    def __init__(self, heartbeat: Heartbeat, beat: _Beat) -> None:
        self._heartbeat = heartbeat
        self._beat = beat

    def __enter__(self) -> None:
        self._heartbeat.enter(self._beat)

    def __exit__(self, *_: object) -> None:
        try:
            self._heartbeat.leave(self._beat)
        except (StepCancelled, StepTimeout):  # it hit just here
            self._heartbeat.leave(self._beat)
            raise
        finally:
            if self._beat.stopped:
                # An exception that was asked for but not raised yet must not hit what the thread does next.
                self._heartbeat.interrupt(self._beat.thread, None)
