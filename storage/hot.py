"""The hot layer: one Redis stream of events for each session, for those who follow it live. It only hurries; it may be
lost.

The publisher works behind the steps: they never wait for it and never fail by it. What it cannot deliver is counted and
left out; followers read the database, and use the stream only to be woken.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..config.urls import masked
from ..errors import StorageError
from . import serial
from .events import Event
from .keys.codec import Codec

logger = logging.getLogger("celeriac.hot")

#: A session's stream is kept so long after its last event, in seconds; and so long after the one that ends the session.
KEEP_SECONDS = 24 * 3600
KEEP_ENDED_SECONDS = 60
ENDINGS = ("session.completed", "session.failed", "session.cancelled")
#: After a failure the hot layer is left alone for so long, in seconds; twice as long after each further failure.
REST_SECONDS = 1.0
LONGEST_REST = 15.0
#: Events are read and published in batches of so many.
BATCH = 500
#: A follower waits for Redis so long, in seconds, before it looks at the database itself: what Redis has lost is not
#: late by more.
BLOCK_SECONDS = 0.25
#: So many sessions may wait to be published; the oldest is dropped beyond that.
MOST_WAITING = 10_000


def stream_key(session_id: str) -> str:
    """The key of a session's stream. The braces keep a session's keys on one node of a cluster."""
    return f"celeriac:{{{session_id}}}:events"


def _client(url: str, timeout: float) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # No retries: a command that is sent twice would be written twice (reliability: 2.12).
    return Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=min(timeout, 1.0), retry=Retry(NoBackoff(), 0)
    )


def forget(url: str, timeout: float, session_ids: Sequence[str]) -> int:
    """Delete the streams of sessions; gives how many there were. Raises StorageError."""
    from redis.exceptions import RedisError

    count = 0
    try:
        with _client(url, timeout) as client:
            for start in range(0, len(session_ids), BATCH):
                count += int(client.unlink(*(stream_key(one) for one in session_ids[start : start + BATCH])))
    except (RedisError, OSError) as fault:
        raise StorageError(f"streams of sessions in Redis {masked(url)} cannot be deleted: {fault}") from fault
    return count


def _rest(failures: int) -> float:
    return float(min(REST_SECONDS * 2 ** (failures - 1), LONGEST_REST))


class HotStreams:
    """Publishes events to Redis streams from a thread of its own."""

    def __init__(
        self,
        url: str,
        timeout: float,
        kept: int,
        read: Callable[[str, int, int], Sequence[Event]],
        codec: Codec | None = None,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._kept = kept
        self._read = read  # (session, beyond, most) -> events
        self._codec = codec if codec is not None and codec.whole else None
        self._pid = 0
        self._start()
        #: Notes that were not followed up.
        self.dropped = 0

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._waiting: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._client: Any = None
        self._failures = 0

    def note(self, session_id: str, seq: int) -> None:
        """Tell that a session has events up to `seq`. Costs the caller a few microseconds."""
        if self._pid != os.getpid():  # a fork does not take threads along
            self._start()
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="celeriac-hot", daemon=True).start()
        with self._lock:
            self._put(session_id, seq)
        self._wake.set()

    def _put(self, session_id: str, seq: int) -> None:
        self._waiting[session_id] = max(seq, self._waiting.get(session_id, 0))
        while len(self._waiting) > MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self.dropped += 1

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            try:
                while waiting:
                    session_id, seq = next(iter(waiting.items()))
                    self._publish(session_id, seq)
                    del waiting[session_id]
                self._failures = 0
            except Exception as fault:
                self._fail(waiting, fault)
            time.sleep(0.002)  # one round for what comes in a burst

    def _fail(self, waiting: dict[str, int], fault: Exception) -> None:
        """Put back what was not published, and leave Redis alone for a while."""
        if not self._failures:
            logger.warning("live progress is behind: %s", fault)
        self._failures += 1
        self._client = None
        time.sleep(_rest(self._failures))
        with self._lock:
            for session_id, seq in waiting.items():
                self._put(session_id, seq)
        self._wake.set()

    def _publish(self, session_id: str, seq: int) -> None:
        if self._client is None:
            self._client = _client(self._url, self._timeout)
        key = stream_key(session_id)
        beyond = self._published.get(session_id)
        if beyond is None:
            beyond = _last(self._client, key)
        while beyond < seq:
            found = self._read(session_id, beyond, BATCH)
            if not found:  # deleted since
                return
            self._add(key, found)
            beyond = self._published[session_id] = found[-1].seq
            if found[-1].type in ENDINGS:
                self._published.pop(session_id)
        while len(self._published) > MOST_WAITING:
            self._published.pop(next(iter(self._published)))

    def _add(self, key: str, found: Sequence[Event]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for event in found:
            pipe.xadd(key, {"event": self._body(event)}, id=f"{event.seq}-0", maxlen=self._kept, approximate=True)
        pipe.expire(key, KEEP_ENDED_SECONDS if found[-1].type in ENDINGS else KEEP_SECONDS)
        # Another worker may have published some of them: their ids are refused, which is what explicit ids are for.
        for answer in pipe.execute(raise_on_error=False):
            if isinstance(answer, Exception) and "equal or smaller" not in str(answer):
                raise answer

    def _body(self, event: Event) -> bytes:
        """An event as JSON; sealed, where all is."""
        body = serial.encode(event.to_dict())
        if self._codec is None:
            return body
        return self._codec.seal_bytes(body, "stream", event.session_id, event.seq)


def _last(client: Any, key: str) -> int:
    """The number of the last event on a stream, 0 if it is not there."""
    found = client.xrevrange(key, count=1)
    return int(found[0][0].decode().partition("-")[0]) if found else 0


class RedisWaker:
    """Wakes followers of sessions as soon as Redis has an event; where Redis does not answer they look for
    themselves.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._here = threading.local()
        self._resting_until = 0.0
        self._failures = 0

    def wait(self, session_id: str, beyond: int, seconds: float) -> None:
        """Return when the session's stream has an event after `beyond`, or after so many seconds."""
        if time.monotonic() < self._resting_until:
            time.sleep(min(seconds, 0.02))
            return
        here = self._here
        try:
            if getattr(here, "pid", 0) != os.getpid():
                here.client = _client(self._url, BLOCK_SECONDS + self._timeout)  # longer than the longest block
                here.pid, here.last = os.getpid(), None
            block = max(int(min(seconds, BLOCK_SECONDS) * 1000), 1)
            found = here.client.xread({stream_key(session_id): f"{beyond}-0"}, count=1, block=block)
            self._failures = 0
        except Exception as fault:
            if not self._failures:
                logger.warning("no live progress: %s", fault)
            self._failures += 1
            self._resting_until = time.monotonic() + _rest(self._failures)
            here.pid = 0
            return
        if found and here.last == (session_id, beyond):
            time.sleep(0.02)  # the stream is ahead of the database, as after a restore of it: do not spin
        here.last = (session_id, beyond)
