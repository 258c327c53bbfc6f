"""The relay: publishes hints to the broker after the commit that wrote them, and strikes them off the outbox.

A broker that is away never holds up a step or an enqueue: after a failure the relay rests, and the sweeper sends later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery
from kombu.pools import ProducerPool

from ..orchestration.engine import Engine
from ..storage import events
from ..storage.faults import point

logger = logging.getLogger("celeriac.relay")

#: After a failed publish the broker is left alone for so long, in seconds; twice as long after each further failure.
REST_SECONDS = 1.0
LONGEST_REST = 5.0
#: Published hints are struck off together, this long after the first of them, in seconds.
STRIKE_SECONDS = 0.1
#: A publish waits no longer for the broker than this, in seconds.
PUBLISH_SECONDS = 1.0
#: Connections that a process publishes hints over at once.
CONNECTIONS = 10


class Publisher:
    """Connections of our own to the broker: short timeouts and no second try, because the outbox is the retry.

    Celery's own pool would have a publish wait for the broker for as long as it is away.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._pool: Any = None
        self._pid = 0
        self._lock = threading.Lock()
        _fresh_after_fork(self)

    def forget(self) -> None:
        """After a fork: the connections are the parent's."""
        self._pool, self._lock = None, threading.Lock()

    @contextlib.contextmanager
    def producer(self) -> Iterator[Any]:
        """A producer for one publish."""
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool, self._pid = self._new_pool(), os.getpid()
            pool = self._pool
        try:
            with pool.acquire(block=True, timeout=PUBLISH_SECONDS) as producer:
                yield producer
        except Exception:
            self.close()  # a connection with an answer outstanding is of no more use
            raise

    def _new_pool(self) -> Any:
        impatient = {"max_retries": 0, "socket_timeout": PUBLISH_SECONDS, "socket_connect_timeout": PUBLISH_SECONDS}
        options = dict(self._app.conf.broker_transport_options or {})
        url = self._app.conf.broker_write_url or self._app.conf.broker_url or ""
        if isinstance(url, str) and not url.startswith(("redis", "rediss", "sentinel")):
            impatient = {"max_retries": 0}
        connection = self._app.connection_for_write(
            transport_options=options | impatient, connect_timeout=PUBLISH_SECONDS
        )
        return ProducerPool(  # type: ignore[no-untyped-call]
            connections=connection.Pool(limit=CONNECTIONS), limit=CONNECTIONS
        )

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.connections.force_close_all()


class Relay:
    """Sends hints with `send(hint)`, which publishes one message or raises."""

    def __init__(self, engine: Engine, send: Callable[[events.Hint], None]) -> None:
        self._engine = engine
        self._send = send
        self._rests_until = 0.0
        self._failures = 0
        self._lock = threading.Lock()
        self._sent: set[int] = set()
        self._timer: threading.Timer | None = None
        _fresh_after_fork(self)

    def forget(self) -> None:
        """After a fork: what the parent sent, the parent strikes off; a thread of it may have held the lock."""
        self._lock, self._sent, self._timer = threading.Lock(), set(), None

    def publish(self, hints: list[events.Hint]) -> None:
        """Publish hints now if the broker can be reached; else they stay in the outbox for the sweeper."""
        if time.monotonic() < self._rests_until:
            return
        done = []
        try:
            for hint in hints:
                for _ in range(hint.hints):
                    self._send(hint)
                if hint.id is not None:
                    done.append(hint.id)
            self._failures = 0
        except Exception as fault:
            self._failures += 1
            self._rests_until = time.monotonic() + min(REST_SECONDS * 2 ** (self._failures - 1), LONGEST_REST)
            logger.warning("the broker did not take a hint, the sweeper will send it again: %s", fault)
        point("after-publish-before-mark")
        if done:
            self._strike_off_soon(done)

    def is_sent(self, hint: events.Hint) -> bool:
        """Whether this process has published the hint and is about to strike it off."""
        return hint.id in self._sent

    def _strike_off_soon(self, ids: list[int]) -> None:
        with self._lock:
            self._sent.update(ids)
            if self._timer is None or not self._timer.is_alive():
                self._timer = threading.Timer(STRIKE_SECONDS, self._strike_off_quietly)
                self._timer.daemon = True
                self._timer.start()

    def _strike_off_quietly(self) -> None:
        try:
            self.strike_off()
        except Exception as fault:  # the rows stay, and are sent again: harmless
            logger.warning("published hints could not be struck off: %s", fault)

    def strike_off(self) -> None:
        """Delete the hints that were published from the outbox now."""
        with self._lock:
            ids = list(self._sent)
        if ids:
            self._engine.database.write(lambda tx: events.sent(tx, ids))
            with self._lock:
                self._sent.difference_update(ids)


_forked: weakref.WeakSet[Any] = weakref.WeakSet()


def _fresh_after_fork(one: Publisher | Relay) -> None:
    _forked.add(one)


def _after_fork() -> None:
    for one in _forked:
        one.forget()


os.register_at_fork(after_in_child=_after_fork)
