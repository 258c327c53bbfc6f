"""Faults of Celery that are mended in our workers: in its consumer, and in how its pool ends."""

from __future__ import annotations

import logging
from typing import Any

from billiard import pool
from celery.worker.consumer import Consumer as CelerysConsumer

logger = logging.getLogger("celeriac.consumer")

#: What a worker has whose app sets no consumer of its own.
STOCK = "celery.worker.consumer:Consumer"
#: A child that ends waits so often, 0.1 s at a time, for its parent to read what it had to say.
LOOKS = 20


class Consumer(CelerysConsumer):
    """Takes messages as Celery's does, and outlives every loss of its connection."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give up the connection that broke; the caller then connects anew.

        Celery 5.7 closes it twice. If the first close broke off while messages were not acknowledged yet, the second
        has kombu put them back by a transport that is no longer there: an AttributeError, with which the worker ended.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as fault:
            logger.warning("the broken connection could not be closed in good order: %s", fault)


def mend(worker: Any) -> None:
    """Have a worker that is being set up use this consumer, unless its app brings one."""
    if worker.consumer_cls == STOCK:
        worker.consumer_cls = Consumer


def hurry_children() -> None:
    """Have the children of a pool not wait half a minute for a parent that no longer listens.

    When a worker is told to stop just after a task has ended, its event loop may be left before it has counted that
    end, and billiard's children wait up to 30 s for the count. What our steps have to say is in the database by then,
    so for workers of our own app two seconds will do; where the user's tasks may still be acknowledged, it stays.
    """
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LOOKS
