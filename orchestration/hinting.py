"""Hints: which there are to be of steps that became ready, and handing them on once they are committed."""

from __future__ import annotations

from collections.abc import Callable

from ..storage import events, ready, steps, workers
from ..storage.database import Transaction
from ..storage.faults import point
from .alarms import Alarms
from .expansion import Settling
from .turn import Turn


class Hints:
    """Writes hints in the transactions of an engine, and gives committed ones to whoever publishes them."""

    def __init__(self) -> None:
        #: Given the hints of each commit, to publish them; without a publisher the sweeper does.
        self.publisher: Callable[[list[events.Hint]], None] | None = None
        self._slots = 0
        self._alarms = Alarms(self._ring)

    def write(
        self, turn: Turn, settling: Settling, following: steps.Claimed | None = None, keep: bool = False
    ) -> list[events.Hint]:
        """Write hints for steps that became ready: about as many as can run at once, not one for each step.

        A worker that carries on (`keep`) takes one itself; one that stops hands over all that is left.
        """
        if turn.held:
            return []
        new = settling.ready
        if not keep and turn.hot.open_steps:
            new = {q: (count, priority) for q, priority, count in ready.ready_left(turn.tx, turn.hot.id)}
        written = []
        for on, (count, priority) in new.items():
            if following is not None and on == following.queue:
                count -= 1
            if count > 0:
                most = self.at_most(count, busy=following is not None)
                written.append(events.add_hint(turn.tx, turn.hot.id, on, max(priority, turn.hot.priority), most))
        return written

    def at_most(self, count: int, busy: bool = False) -> int:
        """How many hints `count` ready steps are worth: no more than there are workers to run them (`busy`: but
        one).
        """
        return min(count, max(self._slots - busy, 1))

    def publish(self, hints: list[events.Hint]) -> None:
        """Hand committed hints to the publisher."""
        point("after-commit-before-publish")
        if self.publisher is not None:
            self.publisher(hints)

    def later(self, c: steps.Claimed, delay: float) -> None:
        """Hint a step that was put back when it is due again."""
        self._alarms.set(c.session_id, c.queue, delay)

    def _ring(self, due: dict[tuple[str, str], int]) -> None:
        self.publish([events.Hint(None, on[0], on[1], 0, self.at_most(count)) for on, count in due.items()])

    def close(self) -> None:
        """Stop waiting for steps to become due: the sweeper of another process finds them."""
        self._alarms.close()

    def count_slots(self, tx: Transaction) -> None:
        """Learn how many steps can run at once, for the number of hints of a fan-out."""
        self._slots = max(workers.slots(tx), 4)
