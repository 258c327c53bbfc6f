"""Steps whose agent this worker does not know, as while a new release is rolled out: put back for one that knows it."""

from __future__ import annotations

import random
import time
from collections import OrderedDict

from ..storage import steps, workers
from .engine import Engine
from .turn import Turn
from .work import Lost, PutBack, Work

#: Seconds for which a step is put back at first, and at most.
FIRST_DELAY, LONGEST_DELAY = 1.0, 5.0
#: Steps that one process remembers.
_MOST = 10_000


class NotServed(PutBack):
    """The step was put back because this worker does not know its agent."""


class Unserved:
    """Puts back the steps of agents that the registry of this engine lacks.

    One that it has met for `unserved_seconds` is let go on, and so fails, if no live worker knows its agent. That time
    is counted by each process for itself. Where many steps wait for few workers, they wait on.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._met: OrderedDict[tuple[str, int, int], tuple[float, float]] = OrderedDict()  # first and last time
        self._alarms: dict[tuple[str, str], float] = {}

    def admit(self, work: Work) -> None:
        """Let a claimed step go on if its agent is known, or nobody will ever know it.

        Otherwise it is put back: raises NotServed, or Lost if its claim is gone.
        """
        engine, c = self._engine, work.claimed
        if c.agent in engine.registry:
            return
        limit = engine.settings.unserved_seconds
        step = (c.session_id, c.number, c.attempts)
        waited = self._waited(step, limit)
        if waited >= limit:
            if not engine.database.read(lambda tx: workers.know(tx, c.agent)):
                return
            self._met.pop(step, None)  # from here on it waits for a worker that is busy
        why = str(engine.registry.lacks(c.agent))
        delay = random.uniform(0.75, 1.25) * min(max(waited / 10, FIRST_DELAY), LONGEST_DELAY)

        def put_back(turn: Turn) -> None:
            if not steps.put_back(turn.tx, c, delay, turn.held):
                raise Lost(f"step {c.name} of session {c.session_id} was taken away before it began")
            turn.event("step.unserved", step=c.name, data={"agent": c.agent, "error": why})

        engine.in_turn(c.session_id, put_back)
        self._hint_later(c, delay)
        raise NotServed(f"step {c.name} was put back: {why}")

    def _waited(self, key: tuple[str, int, int], limit: float) -> float:
        """Seconds since this process first met the step; a meeting longer ago than the limit is of another time."""
        now = time.monotonic()
        first, last = self._met.pop(key, (now, now))
        if now - last > max(limit, 10 * LONGEST_DELAY):
            first = now
        self._met[key] = (first, now)
        if len(self._met) > _MOST:
            self._met.popitem(last=False)
        return now - first

    def _hint_later(self, c: steps.Claimed, delay: float) -> None:
        """Hint a session when the first of the steps that were put back is due; the others are found with it, or by
        the sweeper. A hint for each would come back here for each.
        """
        now = time.monotonic()
        if self._alarms.get((c.session_id, c.queue), 0.0) > now:
            return
        self._engine.hints.later(c, delay)
        self._alarms[c.session_id, c.queue] = now + delay
        if len(self._alarms) > _MOST:
            self._alarms.clear()
