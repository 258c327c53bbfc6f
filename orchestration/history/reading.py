"""Counting which entries are read, in batches: reading writes nothing but now and then."""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from ...errors import CeleriacError
from ...storage.database import Database
from ...storage.histories import reads
from ..engine import Engine

#: What was counted is written after so many seconds, by who reads then.
_EVERY: Final = 2.0


class Reads:
    """What this process has read and not yet written. What a process that ends has not written is lost."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._written = time.monotonic()

    def note(self, session_id: str, kept: Sequence[tuple[int, float, Any]]) -> None:
        """Count a reading of these entries."""
        blocks = {number // reads.BLOCK for number, _, _ in kept}
        with self._lock:
            self._counts.update((session_id, block) for block in blocks)
        if time.monotonic() - self._written > _EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what was counted. A reading does not fail because of it."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            self._written = time.monotonic()
        if counts:
            try:
                self._database.write(lambda tx: reads.add(tx, counts))
            except CeleriacError:
                return


_all: weakref.WeakKeyDictionary[Engine, Reads] = weakref.WeakKeyDictionary()


def reads_of(engine: Engine) -> Reads | None:
    """What counts the readings of an engine; None where they are not counted."""
    if engine.settings.prune_count_reads == "off":
        return None
    found = _all.get(engine)
    if found is None:
        found = _all[engine] = Reads(engine.database)
    return found
