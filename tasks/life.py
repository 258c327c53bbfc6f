"""The life of a worker of an app, in its main process and in the children of its pool; told by signals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from billiard.process import current_process
from celery import Celery

from ..orchestration import sweeping
from ..orchestration.cache import ResultCache
from ..orchestration.engine import Engine
from ..orchestration.heartbeat import Heartbeat
from ..orchestration.maintenance.keeper import Keeper
from . import consumer
from .embedded import DaemonPool
from .flower import StepEvents
from .maintaining import Maintainer
from .relay import Relay
from .serving import Flag, Serving, end_this_process
from .sweeper import Sweeper
from .timeline import Timeline

#: What still waits to be shown when a worker or a child of it ends is waited for so long, in seconds.
FLUSH_SECONDS = 0.5


@dataclass
class WorkerLife:
    """What one Celeriac does when a worker of its app starts, forks and ends."""

    app: Celery
    attached: bool  # whether the app is the user's own
    broker: bool
    prepare: Callable[[], None]
    engine: Engine
    cache: ResultCache
    keeper: Keeper
    serving: Serving
    relay: Relay
    heartbeat: Heartbeat
    events: StepEvents
    timeline: Timeline
    sweeper: Sweeper | None = None

    def starts(self, worker: Any) -> None:
        """In the main process, before its pool forks."""
        self.events.hostname = worker.hostname
        self.events.enabled = self.broker and bool(
            getattr(worker, "task_events", None) or self.app.conf.worker_send_task_events
        )
        self.serving.loud = worker.pool_cls is not DaemonPool
        consumer.mend(worker)
        if not self.attached:
            consumer.hurry_children()
        self.serving.worker_limit = worker.soft_time_limit or worker.time_limit or None
        self.prepare()
        self.serving.stopping = Flag()
        slots = int(worker.concurrency or 1)
        self.sweeper = Sweeper(self.engine, self.relay, slots, not self.broker, Maintainer(self.keeper))
        self.sweeper.note()

    def is_ready(self) -> None:
        """In the main process: start to sweep."""
        if self.sweeper is not None:
            self.sweeper.start()

    def child_starts(self, interrupter: Callable[[int, type[Exception] | None], None]) -> None:
        """In a fresh child of the pool, or where a solo worker runs its steps."""
        self.heartbeat.interrupt = interrupter
        if current_process()._name != "MainProcess":
            self.heartbeat.abandon = end_this_process

    def send_what_waits(self) -> None:
        """What is still to be shown, also in a child of the pool that ends in good order."""
        self.events.flush(FLUSH_SECONDS)
        self.timeline.flush(FLUSH_SECONDS)
        self.cache.flush()

    def stops(self) -> None:
        """In the main process, when it is told to stop: nothing more is carried on with."""
        self.serving.stopping.set()

    def has_stopped(self) -> None:
        """In the main process, at its end: give back what still runs, and what its children left."""
        if self.sweeper is not None:
            self.sweeper.stop()
            self.sweeper = None
        with contextlib.suppress(Exception):
            self.send_what_waits()
            self.serving.give_all_back()
            self.relay.strike_off()
            sweeping.sweep(self.engine)
            self.engine.presence.sweep()
