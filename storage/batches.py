"""Long work in short transactions: so that nobody who writes beside it waits for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from .database import Database, Transaction
from .vacuum import checkpoint

T = TypeVar("T")
R = TypeVar("R")

#: How long a transaction should take, in seconds: on SQLite, where others wait for it, a fifth of what they may.
TARGET: Final = {"sqlite": 0.01, "postgresql": 0.04}
#: Items of the first transaction, and of the largest one.
_FIRST: Final = 20
_MOST: Final = 1000
#: After so many transactions SQLite's log is written into its file, while no transaction is open: else who commits
#: after us would have to.
_CHECKPOINT_EVERY: Final = 8


class Batches:
    """Runs work in transactions that each take about `TARGET`; after each it rests for as long as that took."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._target = TARGET[database.dialect.name]
        self._size = _FIRST
        self._done = 0
        #: The longest transaction so far, in seconds, from when it was begun until it was committed.
        self.longest = 0.0

    def run(self, items: Iterable[T], work: Callable[[Transaction, list[T]], R]) -> Iterator[R]:
        """Give the items to `work`, some in each transaction; gives what it gives.

        A transaction may be run again after a fault: `work` asks whether what it is given still stands.
        """
        left = iter(items)
        self._size = min(self._size, _FIRST)
        while batch := list(islice(left, self._size)):
            yield self._one(lambda tx, batch=batch: work(tx, batch), len(batch))  # type: ignore[misc]

    def again(self, work: Callable[[Transaction, int], R]) -> Iterator[R]:
        """Let `work` do so much, again and again, for as long as it is asked; gives what it gives."""
        self._size = min(self._size, _FIRST)
        while True:
            yield self._one(lambda tx: work(tx, self._size), self._size)

    def _one(self, work: Callable[[Transaction], R], count: int) -> R:
        began = 0.0

        def timed(tx: Transaction) -> R:
            nonlocal began
            began = time.perf_counter()
            return work(tx)

        result = self._database.write(timed)
        took = time.perf_counter() - began
        self.longest = max(self.longest, took)
        self._fit(took, count)
        self._done += 1
        if self._done % _CHECKPOINT_EVERY == 0:
            checkpoint(self._database)
        time.sleep(min(took, 0.05))
        return result

    def _fit(self, took: float, count: int) -> None:
        if took > self._target:
            self._size = max(int(count * self._target / took), 1)
        elif took < self._target / 2 and count >= self._size:
            self._size = min(self._size * 2, _MOST)
