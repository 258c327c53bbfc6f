"""The transport of the embedded worker: kombu's memory transport, but a message wakes its consumer at once.

kombu's own polls: between two looks it sleeps `polling_interval`, which every first step of a session would wait for.
"""

from __future__ import annotations

import threading
import time
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, memory

#: The broker URL that stands for this transport.
URL = "celeriac://localhost/"
#: A consumer whose threads were all busy looks again after so long, in seconds: that one is free rings no bell.
LOOK_SECONDS = 0.01

_arrived = threading.Event()


class Channel(memory.Channel):
    """A channel that rings when it puts a message."""

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        super()._put(queue, message, **options)  # type: ignore[no-untyped-call]
        _arrived.set()

    def _put_fanout(self, exchange: str, message: Any, routing_key: str | None = None, **options: Any) -> None:
        super()._put_fanout(exchange, message, routing_key, **options)  # type: ignore[no-untyped-call]
        _arrived.set()


class Transport(memory.Transport):
    """kombu's memory transport with a wait that a message ends."""

    Channel = Channel

    cycle: Any

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Deliver one message; raises TimeoutError if none comes within `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            _arrived.clear()
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except Empty:
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError from None
                _arrived.wait(LOOK_SECONDS)
            else:
                return


TRANSPORT_ALIASES["celeriac"] = f"{__name__}:Transport"
