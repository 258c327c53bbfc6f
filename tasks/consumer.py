"""Celery's consumer, with a fault mended: a broker that went away at the wrong moment ended the worker."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer as CelerysConsumer

logger = logging.getLogger("celeriac.consumer")

#: What a worker has whose app sets no consumer of its own.
STOCK = "celery.worker.consumer:Consumer"


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
