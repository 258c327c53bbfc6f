"""Copies of cached results in Redis: reading one there is quicker than from the database. They may be lost.

A Redis that does not answer costs one timeout, and is then left alone for a while.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from .entries import Entry

logger = logging.getLogger("celeriac.cache")

#: After a failure Redis is left alone for so long, in seconds; twice as long after each further failure.
REST_SECONDS = 1.0
LONGEST_REST = 15.0
#: Keys are deleted in batches of so many.
BATCH = 1000
PREFIX = "celeriac:cache:"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class FastCopies:
    """Entries in Redis, each until it may not be served any more. Nothing raises or waits longer than `timeout`.

    `space` is the name of the database that the entries belong to: one Redis may serve several.
    """

    def __init__(self, url: str, timeout: float, space: str) -> None:
        self._url = url
        self._timeout = timeout
        self._prefix = f"{PREFIX}{space}:"
        self._client: Any = None
        self._failures = 0
        self._resting_until = 0.0

    def _connected(self) -> Any:
        if self._client is None:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            # One connection for all threads, in turns: taking one from a pool costs as long as the answer.
            self._client = Redis.from_url(
                self._url,
                single_connection_client=True,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
            )
        return self._client

    @property
    def resting(self) -> bool:
        """Whether Redis is left alone, because it did not answer."""
        return bool(self._failures) and time.monotonic() < self._resting_until

    def get(self, key: str) -> Entry | None:
        """The copy of an entry, if it is there."""
        if self.resting:
            return None
        try:
            found = self._connected().get(self._prefix + key)
        except Exception as fault:
            self._failed(fault)
            return None
        self._failures = 0
        if found is None:
            return None
        try:
            return _decode(found)
        except msgspec.MsgspecError:  # cut, or written by another release
            return None

    def put(self, entry: Entry, seconds: float) -> None:
        """Keep a copy for so long."""
        if self.resting or seconds <= 0:
            return
        try:
            self._connected().set(self._prefix + entry.key, _encode(entry), px=max(int(seconds * 1000), 1))
            self._failures = 0
        except Exception as fault:
            self._failed(fault)

    def remove(self, keys: Sequence[str]) -> None:
        """Delete copies. What Redis does not hear of is refused when it is read: see `cutoffs`."""
        for start in range(0, len(keys), BATCH):
            if self.resting:
                return
            try:
                self._connected().unlink(*(self._prefix + key for key in keys[start : start + BATCH]))
                self._failures = 0
            except Exception as fault:
                self._failed(fault)

    def _failed(self, fault: Exception) -> None:
        if not self._failures:
            logger.warning("cached results are read from the database, Redis does not answer: %s", fault)
        self._failures += 1
        self._resting_until = time.monotonic() + min(REST_SECONDS * 2 ** (self._failures - 1), LONGEST_REST)

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close()
