"""What this process knows of invalidations by others: looked up at most every 50 ms, when it is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ...storage.cache import cutoffs
from ...storage.cache.cutoffs import Cutoff
from ...storage.cache.entries import Entry
from ...storage.database import Database, Transaction

#: What was looked up is taken for true for so long, in seconds. So an invalidation counts everywhere within it.
LOOK_SECONDS = 0.05


class Watch:
    """The generation, the invalidations and the clock of the database, as this process knows them."""

    def __init__(self, database: Database, changed: Callable[[list[Cutoff]], None]) -> None:
        self._database = database
        self._changed = changed
        self.start()

    def start(self) -> None:
        """Know nothing; with a lock that nobody holds."""
        self._lock = threading.Lock()
        self._look_at = 0.0
        self._ahead = 0.0
        self._cut: dict[tuple[str, str, str | None], int] = {}
        self.generation = -1

    def look(self, at_once: bool = False) -> float:
        """See to it that what is known is not older than LOOK_SECONDS; gives the database's clock.

        Raises StorageError when the database does not answer.
        """
        here = time.monotonic()
        if here >= self._look_at or at_once:
            with self._lock:
                if here >= self._look_at or at_once:
                    self._learn()
        return here + self._ahead

    def _learn(self) -> None:
        began = time.monotonic()
        known = self.generation

        def read(tx: Transaction) -> tuple[float, int, list[Cutoff]]:
            clock, generation = cutoffs.moment(tx)
            return clock, generation, cutoffs.since(tx, known) if generation > known else []

        clock, generation, new = self._database.read(read)
        self._ahead = clock - time.monotonic()
        if generation < known:  # another database, or an older one was restored: nothing is known any more
            self._cut = {}
            new = [Cutoff("everything", "", known + 1, None)]
        self._cut.update({(c.kind, c.value, c.tenant): c.generation for c in new})
        self.generation = generation
        if new:
            self._changed(new)
        self._look_at = began + LOOK_SECONDS

    def counts(self, entry: Entry) -> bool:
        """Whether nothing that is known has invalidated an entry."""
        at, cut = entry.generation, self._cut
        if at > self.generation:
            self.look(at_once=True)  # it is newer than what is known here
            if at > self.generation:  # from a database that was replaced by an older one
                return False
        if not cut:
            return True
        of = entry.tenant
        if cut.get(("everything", "", of), 0) > at or cut.get(("everything", "", None), 0) > at:
            return False
        if cut.get(("key", entry.key, of), 0) > at or cut.get(("agent", entry.agent, of), 0) > at:
            return False
        if cut.get(("content", entry.content, of), 0) > at:
            return False
        return all(cut.get(("tag", tag, of), 0) <= at for tag in entry.tags)
