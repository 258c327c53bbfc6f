"""Ordinary Celery tasks that belong to a session: what Celery's signals say of them is put on the session's timeline.

Signals only observe. What they note is written behind them, in batches; a task is never held up, and never fails by it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import defaultdict
from typing import Any

from ..errors import SessionNotFound
from ..orchestration.engine import Engine

logger = logging.getLogger("celeriac.timeline")

BATCH_SECONDS = 0.02
#: So many notes may wait; more are dropped, and counted.
MOST_WAITING = 10_000
#: Error texts on the timeline are cut to so many characters.
ERROR_CHARACTERS = 500


class Timeline:
    """Writes events of tasks to their sessions from a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: queue.Queue[tuple[str, str, dict[str, Any]]] = queue.Queue(MOST_WAITING)
        self._pid = 0
        self.dropped = 0

    def note(self, session_id: str, type_: str, data: dict[str, Any]) -> None:
        """Put an event on a session's timeline, soon."""
        if self._pid != os.getpid():  # a fork does not take threads along
            self._pid, self._waiting = os.getpid(), queue.Queue(MOST_WAITING)
            threading.Thread(target=self._run, name="celeriac-timeline", daemon=True).start()
        if "error" in data:
            data["error"] = self._engine.guard.text(str(data["error"]))[:ERROR_CHARACTERS]
        try:
            self._waiting.put_nowait((session_id, type_, data))
        except queue.Full:
            self.dropped += 1

    def flush(self, seconds: float) -> None:
        """Wait until what was noted is written, at most so long."""
        deadline = time.monotonic() + seconds
        while self._pid == os.getpid() and self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.005)

    def _run(self) -> None:
        waiting = self._waiting
        while True:
            batch = [waiting.get()]
            time.sleep(BATCH_SECONDS)
            while not waiting.empty() and len(batch) < 500:
                batch.append(waiting.get())
            by_session: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
            for session_id, type_, data in batch:
                by_session[session_id].append((type_, data))
            for session_id, events in by_session.items():
                self._write(session_id, events)
            for _ in batch:
                waiting.task_done()

    def _write(self, session_id: str, events: list[tuple[str, dict[str, Any]]]) -> None:
        try:
            self._engine.note(session_id, "task", events)
        except SessionNotFound:
            self.dropped += len(events)
        except Exception as fault:
            self.dropped += len(events)
            logger.warning("tasks were not put on the timeline of session %s: %s", session_id, fault)
