"""Connections to Redis for what is kept there: one for each thread, and plain words for what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

from ..config.urls import masked
from ..errors import StorageError

#: An answer is waited for so long, in seconds.
TIMEOUT_SECONDS = 5.0
#: A connection that was not used for so long, in seconds, may have been closed by the server.
_IDLE_SECONDS: Final = 1.0


class Wires:
    """Each thread's connection to one Redis, of one process. `what` is kept there, for the text of errors."""

    def __init__(self, url: str, timeout: float, what: str) -> None:
        self._url = url
        self._timeout = timeout
        self._what = what
        self._here = threading.local()

    def mine(self) -> Wire:
        """This thread's connection."""
        wire: Wire | None = getattr(self._here, "wire", None)
        if wire is None or wire.pid != os.getpid():
            wire = self._here.wire = Wire(self._url, self._timeout)
        return wire

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Let the client's faults be StorageError."""
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as fault:
            raise StorageError(f"{self._what} in Redis {masked(self._url)} cannot be used: {fault}") from fault

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with them."""
        wire, self._here = getattr(self._here, "wire", None), threading.local()
        if wire is not None:
            wire.close()


class Wire:
    """One connection to Redis, for one thread of one process. The client's own calls cost more than the answer takes.

    No command is sent twice: a second try could change a value again (reliability: 2.12). After a fault the next call
    connects anew.
    """

    def __init__(self, url: str, timeout: float) -> None:
        from redis import ConnectionPool
        from redis.exceptions import NoScriptError

        self._connection: Any = ConnectionPool.from_url(url, **options(timeout)).make_connection()
        self._no_script = NoScriptError
        self._used_at = 0.0
        self.pid = os.getpid()

    def ask(self, *parts: bytes) -> Any:
        """The answer to one command. Raises RedisError and OSError."""
        connection, moment = self._connection, time.monotonic()
        if moment > self._used_at + _IDLE_SECONDS and (not connection.is_connected or connection.can_read(0)):
            connection.disconnect()  # the server has closed it meanwhile
            connection.connect()
        self._used_at = moment
        try:
            connection.send_packed_command([_framed(parts)], check_health=False)
            return connection.read_response()
        except BaseException as fault:
            if not isinstance(fault, self._no_script):  # an answer may still be on its way
                connection.disconnect()
                self._used_at = 0.0
            raise

    def look(self, *parts: bytes) -> Any:
        """The answer to a command that changes nothing: asked again if the connection turns out to be lost."""
        from redis.exceptions import ConnectionError as Lost

        try:
            return self.ask(*parts)
        except Lost:
            return self.ask(*parts)

    def run(self, script: str, keys: int, given: Sequence[bytes]) -> Any:
        """The answer of a constant script, with so many keys first in `given`."""
        try:
            return self.ask(b"EVALSHA", _sha(script), b"%d" % keys, *given)
        except self._no_script:
            return self.ask(b"EVAL", script.encode(), b"%d" % keys, *given)

    def close(self) -> None:
        self._connection.disconnect()
        self._used_at = 0.0


@lru_cache
def _sha(script: str) -> bytes:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest().encode()


def _framed(parts: Sequence[bytes]) -> bytes:
    """A command as it goes over the wire."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def options(timeout: float) -> dict[str, Any]:
    """How to connect: nothing is tried twice."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
