"""The sweeper's thread in every worker: sweeps, says that the worker is alive, looks out for work of others."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time

from ..orchestration import sweeping
from ..orchestration.engine import Engine
from ..storage import events, steps, workers
from ..storage.database import Transaction
from .maintaining import Maintainer
from .relay import Relay

logger = logging.getLogger("celeriac.sweeper")

#: Seconds between two notes that this worker is alive.
SEEN_SECONDS = 20.0
#: What killed writers left in the blob store is removed once it is so old, in seconds; looked for as often.
TIDY_SECONDS = 3600.0
#: A worker without a broker looks so often, in seconds, whether another process has written to SQLite ...
LOOK_SECONDS = 0.05
#: ... and so often to PostgreSQL, where each look is a query.
SLOW_LOOK_SECONDS = 0.5


class Sweeper:
    """Runs `sweeping.sweep` about every `sweep_seconds`; beat may sweep too, and so may every other worker."""

    def __init__(self, engine: Engine, relay: Relay, slots: int, alone: bool, maintainer: Maintainer) -> None:
        self._engine = engine
        self._relay = relay
        self._slots = slots
        self._alone = alone  # there is no broker: hints of other processes reach this worker through the database only
        self._maintainer = maintainer
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self) -> None:
        """Note this worker, and learn how many slots all have; before its pool forks, so that the children know."""
        try:
            self._engine.database.write(self._seen)
        except Exception as fault:
            logger.warning("the worker could not be noted: %s", fault)

    def _seen(self, tx: Transaction) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        engine = self._engine
        workers.seen(tx, engine.presence.token, name, self._slots, engine.settings.queue, engine.registry.names())
        self._engine.hints.count_slots(tx)

    def _forget_the_dead(self) -> None:
        """Remove what tells that dead processes are dead, once none of them has left a step."""
        if not self._engine.database.read(steps.running):
            self._engine.presence.sweep()

    def start(self) -> None:
        """Start the thread, and that of maintenance."""
        self._thread = threading.Thread(target=self._run, name="celeriac-sweeper", daemon=True)
        self._thread.start()
        self._maintainer.start()

    def stop(self) -> None:
        """Stop the threads and strike the worker off."""
        self._stopped.set()
        self._maintainer.stop()
        if self._thread is not None:
            self._thread.join(5.0)
        try:
            self._engine.database.write(lambda tx: workers.gone(tx, self._engine.presence.token))
        except Exception as fault:
            logger.warning("the worker could not be struck off: %s", fault)

    def _run(self) -> None:
        sweep_at = time.monotonic()
        tidy_at, seen_at = sweep_at, sweep_at + SEEN_SECONDS
        newcomers = _Newcomers(self._engine, self._relay) if self._alone else None
        while not self._stopped.wait(newcomers.pause if newcomers else max(sweep_at - time.monotonic(), 0.01)):
            try:
                if newcomers is not None:
                    newcomers.look()
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + self._engine.settings.sweep_seconds * random.uniform(0.8, 1.2)
                    sweeping.sweep(self._engine)
                if time.monotonic() >= seen_at:
                    seen_at = time.monotonic() + SEEN_SECONDS
                    self.note()
                    self._forget_the_dead()
                if time.monotonic() >= tidy_at:
                    tidy_at = time.monotonic() + TIDY_SECONDS
                    self._engine.blobs.sweep_temporary(TIDY_SECONDS)
            except Exception as fault:  # the database is away: the next round tries again
                logger.warning("the sweep failed, it will be made again: %s", fault)
        if newcomers is not None:
            newcomers.close()


class _Newcomers:
    """Finds hints that another process wrote, for a worker that no broker brings them to."""

    def __init__(self, engine: Engine, relay: Relay) -> None:
        self._engine = engine
        self._relay = relay
        self._changes = engine.database.changes()
        self.pause = LOOK_SECONDS if engine.database.is_sqlite else SLOW_LOOK_SECONDS
        self._looks_left = 0

    def look(self) -> None:
        """Publish here what is new; hints that this process has written are left to the one that is publishing them."""
        if self._changes.any():
            self._looks_left = 3  # a hint is let alone until it has waited for one look, so a later look has to find it
        if self._looks_left <= 0:
            return
        self._looks_left -= 1
        hints = self._engine.database.read(lambda tx: events.unsent(tx, self.pause))
        self._engine.hints.publish([hint for hint in hints if not self._relay.is_sent(hint)])

    def close(self) -> None:
        self._changes.close()
