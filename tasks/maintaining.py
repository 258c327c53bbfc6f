"""Maintenance in every worker: a thread that runs jobs which beat has not had run."""

from __future__ import annotations

import logging
import random
import threading

from ..orchestration.maintenance.keeper import Keeper

logger = logging.getLogger("celeriac.maintenance")

#: A worker looks for the first time after so many seconds; a process that ends before that has nothing to do with it.
FIRST_SECONDS = 1.0
#: After a fault, such as a database that is away, the next look is so many seconds later.
FAULT_SECONDS = 5.0
#: A job that runs when the worker stops is given so long to come to an end, in seconds.
STOP_SECONDS = 1.0


class Maintainer:
    """Runs jobs of maintenance one after the other, in a thread of its own, beside the steps."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless every job is off."""
        if self._keeper.schedules:
            self._thread = threading.Thread(target=self._run, name="celeriac-maintenance", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread. A job that does not come to its end is taken over by another worker."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        pause = FIRST_SECONDS * random.uniform(0.8, 1.2)
        while not self._stopped.wait(pause):
            try:
                pause = self._keeper.attend(self._stopped)
            except Exception as fault:
                logger.warning("maintenance could not be looked after, it will be tried again: %s", fault)
                pause = FAULT_SECONDS
