"""Counters of this process, added now and then to the sums that all processes share."""

from __future__ import annotations

import logging
import threading

from ...errors import CeleriacError
from ...storage.cache import counters, entries
from ...storage.database import Database, Transaction

logger = logging.getLogger("celeriac.cache")

#: What a process has counted joins the sums after so many seconds. When it is killed before, that much is not counted.
FLUSH_SECONDS = 5.0


class Counting:
    """Counts without a lock, so in rare cases one too few; flushed by a thread that lives only while there is
    something to flush.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.start()

    def start(self) -> None:
        """Begin at nothing."""
        self._counts: dict[str, float] = {}
        self._used: dict[str, int] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def count(self, name: str, value: float = 1, key: str | None = None, tenant: str = "") -> None:
        """Add to a counter of a tenant; with `key`, that entry was used."""
        counts, name = self._counts, counters.name_of(name, tenant) if tenant else name
        counts[name] = counts.get(name, 0) + value
        if key is not None:
            used = self._used
            used[key] = used.get(key, 0) + 1
        if self._timer is None:
            self._schedule()

    def _schedule(self) -> None:
        with self._lock:
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.name, self._timer.daemon = "celeriac-cache", True
                self._timer.start()

    def taken(self) -> tuple[dict[str, float], dict[str, int]]:
        """What was counted since the last time, to be written by the caller."""
        with self._lock:
            counts, self._counts = self._counts, {}
            used, self._used = self._used, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return counts, used

    def flush(self) -> None:
        """Add what was counted here to the sums. What the database does not take is left out."""
        counts, used = self.taken()
        if not counts and not used:
            return

        def write(tx: Transaction) -> None:
            counters.add(tx, counts)
            entries.used(tx, used)

        try:
            self._database.write(write)
        except CeleriacError as fault:
            logger.warning("figures of the cache were not written: %s", fault)
