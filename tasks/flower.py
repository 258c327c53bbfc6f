"""Celery's task events for steps, so that Flower and `celery events` show agents. Sent behind the steps, in batches."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from typing import Any

from celery import Celery
from celery.utils.nodenames import anon_nodename

logger = logging.getLogger("celeriac.events")

#: Seconds between batches.
BATCH_SECONDS = 0.25
#: So many events may wait; more are dropped, and counted.
MOST_WAITING = 10_000
#: After a failure the broker is left alone for so long, in seconds.
REST_SECONDS = 2.0


class StepEvents:
    """Sends `task-received`, `task-started` and how it ended for each step, if the worker sends task events at all."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.enabled = False
        self.hostname = anon_nodename()
        self.dropped = 0
        self._waiting: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(MOST_WAITING)
        self._pid = 0

    def started(self, task_id: str, name: str, kwargs: dict[str, Any], retries: int) -> None:
        """A step begins to run; `retries` attempts of it have failed before."""
        if self.enabled:
            shown = ", ".join(f"{key}={value}" for key, value in kwargs.items())
            root = {"root_id": kwargs["session"], "parent_id": None}
            self._put(
                "task-received",
                uuid=task_id,
                name=name,
                args="",
                kwargs=shown,
                retries=retries,
                eta=None,
                expires=None,
                **root,
            )
            self._put("task-started", uuid=task_id)

    def ended(self, task_id: str, outcome: tuple[str, str], seconds: float) -> None:
        """A step has ended: `outcome` is the type of the event and what went wrong."""
        if not self.enabled:
            return
        type_, fault = outcome
        fields: dict[str, Any] = {"uuid": task_id}
        if type_ == "task-succeeded":
            fields.update(result="recorded", runtime=seconds)
        elif type_ == "task-revoked":
            fields.update(terminated=False, signum=None, expired=False)
        else:
            fields.update(exception=fault, traceback="")
        self._put(type_, **fields)

    def flush(self, seconds: float) -> None:
        """Wait until all events are sent, at most so long."""
        deadline = time.monotonic() + seconds
        while self._pid == os.getpid() and self._waiting.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.01)

    def _put(self, type_: str, **fields: Any) -> None:
        if self._pid != os.getpid():  # a fork does not take threads along
            self._pid, self._waiting = os.getpid(), queue.Queue(MOST_WAITING)
            threading.Thread(target=self._run, name="celeriac-events", daemon=True).start()
        fields["timestamp"] = time.time()
        try:
            self._waiting.put_nowait((type_, fields))
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        waiting = self._waiting
        while True:
            try:
                with self._app.connection_for_write() as connection, self._dispatcher(connection) as dispatcher:
                    while True:
                        self._send_batch(waiting, dispatcher)
            except Exception as fault:  # the broker is away: events are only a view
                logger.warning("task events were not sent: %s", fault)
                time.sleep(REST_SECONDS)

    def _dispatcher(self, connection: Any) -> Any:
        return self._app.events.Dispatcher(
            connection, hostname=self.hostname, buffer_group={"task"}, buffer_limit=200, buffer_while_offline=False
        )

    def _send_batch(self, waiting: queue.Queue[tuple[str, dict[str, Any]]], dispatcher: Any) -> None:
        batch = [waiting.get()]
        try:
            time.sleep(BATCH_SECONDS)
            while not waiting.empty():
                batch.append(waiting.get())
            for type_, fields in batch:
                dispatcher.send(type_, **fields)
            dispatcher.flush()
        except Exception:
            self.dropped += len(batch)
            raise
        finally:
            for _ in batch:
                waiting.task_done()
