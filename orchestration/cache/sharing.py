"""Steps and the cache: a step whose answer is there is not run, and of equal ones that are due at once, one is run.

Where the answer is being computed, a step is put back, as for a retry that counts no attempt, and is ready again when
that flight lands. It holds no worker meanwhile, so that waiting for slow agents cannot use up the workers that are to
run them. A flight that was lost is taken over by whichever step looks next; one that waits looks after LOOK_AGAIN
seconds by itself.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from typing import Final

from ...errors import CeleriacError
from ...storage import events
from ...storage.cache import cutoffs, flights
from ...storage.database import Transaction
from ..agents import Agent, AgentOutput
from ..engine import Engine
from ..turn import Turn
from ..work import Lost, PutBack, Work
from .hit import Hit
from .keys import Key
from .refreshing import Refresher
from .results import ResultCache

logger = logging.getLogger("celeriac.cache")

#: A step that waits looks again after about so many seconds, if nobody has told it to before.
LOOK_AGAIN = 5.0
#: When a run has shown that its result is not for others, nobody waits for that request for so many seconds.
APART_SECONDS = 30.0
_ALL: Final = 1 << 31


@dataclass(slots=True)
class Flight:
    """A step that computes what others may wait for."""

    key: Key
    agent: Agent
    generation: int
    began: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of a step that found nothing in the cache at first."""

    how: str
    generation: int = 0
    hit: Hit | None = None


class StepCache:
    """The cache as the steps of one engine use it. No trouble of the cache fails a step: it is run then."""

    def __init__(self, engine: Engine, cache: ResultCache) -> None:
        self._engine = engine
        self._refresher = Refresher(engine, cache)
        self.cache = cache

    # -- before the run ------------------------------------------------------------------------------------------------

    def look(self, work: Work, agent: Agent, permissions: frozenset[str]) -> Hit | None:
        """What is cached for a claimed step, or None: then it is to be run, and `landed` or `crashed` told.

        Raises PutBack where the step was put back, and Lost where its claim is gone.
        """
        session_id = work.session[0]
        if agent.cache_ttl is None or not work.may_cache or not session_id:
            return None
        try:
            key = self.cache.key(
                agent.name, work.request, permissions=permissions, version=agent.version, tenant=work.session[4]
            )
            hit = self.cache.get(key) or self._first(work, agent, key)
        except (Lost, PutBack):
            raise
        except CeleriacError as fault:
            logger.warning("step %s is run without the cache: %s", work.claimed.name, fault)
            return None
        if hit is not None:
            work.hit = hit
            if hit.stale:
                self._refresher.refresh(work, agent, permissions, key)
        return hit

    def _first(self, work: Work, agent: Agent, key: Key) -> Hit | None:
        """Be the first to compute this; or wait for who is."""
        c = work.claimed

        def begin(turn: Turn) -> _Found:
            how = flights.take(turn.tx, key.hash, c.session_id, c.number, c.epoch)
            if how != "flying":
                hit = self.cache.find(turn.tx, key)  # landed since it was looked for
                if hit is not None:
                    flights.land(turn.tx, key.hash, c.session_id, c.number, c.epoch)
                return _Found(how, cutoffs.moment(turn.tx)[1], hit)
            if not flights.wait(turn.tx, key.hash, c, LOOK_AGAIN * random.uniform(0.8, 1.2), turn.held):
                raise Lost(f"step {c.name} of session {c.session_id} was taken away while it looked in the cache")
            turn.event("step.waiting", step=c.name, component="cache", data={"key": key.hash})
            return _Found(how)

        found = self._engine.in_turn(c.session_id, begin)
        if found.how == "flying":
            self.cache.count(key.scope[0], waited=1)
            raise PutBack(f"step {c.name} of session {c.session_id} waits for another that computes the same")
        if found.hit is None:
            work.flight = Flight(key, agent, found.generation, time.monotonic())
        return found.hit

    # -- after the run -------------------------------------------------------------------------------------------------

    def landed(self, work: Work, output: AgentOutput) -> None:
        """A step's output was recorded: cache it, and let go on who waits for it. Or note what a hit has saved."""
        if work.hit is not None:
            entry = work.hit.entry
            saved = {"saved_runs": 1, "saved_seconds": entry.seconds, "saved_cost": entry.cost or 0.0}
            self.cache.count(entry.tenant, **saved)
            return
        flight, work.flight = work.flight, None
        if flight is None:
            return
        apart = work.private or bool(output.add_steps)
        try:
            self._store(work, flight, output, apart)
        except CeleriacError as fault:
            logger.warning("the result of step %s was not cached: %s", work.claimed.name, fault)

    def _store(self, work: Work, flight: Flight, output: AgentOutput, apart: bool) -> None:
        c, agent, key = work.claimed, flight.agent, flight.key
        entry = None
        if apart:
            self.cache.count(key.scope[0], refused=1)
        else:
            entry = self.cache.make(
                key,
                output,
                ttl=agent.cache_ttl,
                stale=agent.cache_stale,
                tags=agent.cache_tags,
                seconds=time.monotonic() - flight.began,
                generation=flight.generation,
            )

        def write(tx: Transaction) -> tuple[bool, list[events.Hint]]:
            stored = entry is not None and self.cache.write(tx, entry)
            if entry is None:
                flights.set_apart(tx, key.hash, c.session_id, c.number, c.epoch, APART_SECONDS)
            else:
                flights.land(tx, key.hash, c.session_id, c.number, c.epoch)
            return stored, self._wake(tx, key, _ALL if stored or entry is None else 1)

        stored, hints = self._engine.database.write(write)
        if stored and entry is not None:
            self.cache.stored(entry)
        if hints:
            self._engine.hints.publish(hints)

    def crashed(self, work: Work) -> None:
        """A step has ended without an output that counts: one of those who wait for it takes over."""
        flight, work.flight = work.flight, None
        if flight is None:
            return
        c = work.claimed

        def write(tx: Transaction) -> list[events.Hint]:
            flights.land(tx, flight.key.hash, c.session_id, c.number, c.epoch)
            return self._wake(tx, flight.key, 1)

        try:
            hints = self._engine.database.write(write)
        except CeleriacError as fault:  # those who wait look by themselves
            logger.warning("who waits for step %s was not told that it failed: %s", c.name, fault)
            return
        if hints:
            self._engine.hints.publish(hints)

    def _wake(self, tx: Transaction, key: Key, most: int) -> list[events.Hint]:
        woken = flights.wake(tx, key.hash, most)
        return [
            events.add_hint(tx, session_id, queue, priority, self._engine.hints.at_most(count))
            for (session_id, queue), (count, priority) in woken.items()
        ]
