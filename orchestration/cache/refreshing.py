"""Answers that are stale are computed anew in the background, each by one process: who asks gets the stale one now."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import queue
import secrets
import threading
import time

from ...errors import CeleriacError
from ...storage.cache import cutoffs, flights
from ...storage.database import Transaction
from .. import runner
from ..agents import Agent, AgentOutput
from ..context import Context
from ..engine import Engine
from ..work import Work
from .keys import Key
from .results import ResultCache

logger = logging.getLogger("celeriac.cache")

#: A refresh that takes longer than its agent's time limit and this, in seconds, may be begun again by another process.
SPARE_SECONDS = 60.0
#: So many refreshes may wait in one process; what is more is left to others, or to the next who asks.
MOST_WAITING = 100

_Waiting = queue.Queue[tuple[Work, Agent, frozenset[str], Key]]


class Refresher:
    """Runs agents for stale answers, one after the other, in a thread that starts with the first.

    Such a run is no step: it is not retried, and lost when the process ends. Its output is only cached.
    """

    def __init__(self, engine: Engine, cache: ResultCache) -> None:
        self._engine = engine
        self._cache = cache
        self._pid = 0
        self._numbers = itertools.count(1)

    def refresh(self, work: Work, agent: Agent, permissions: frozenset[str], key: Key) -> None:
        """Compute an answer anew, unless somebody does already. Returns at once."""
        if self._pid != os.getpid():  # a fork does not take threads along
            self._start()
        copy = dataclasses.replace(work, partials=[], memory=None, has_left=False, private=False)
        try:
            self._waiting.put_nowait((copy, agent, permissions, key))
        except queue.Full:
            logger.info("a stale answer of agent %s is not refreshed here: too many wait", agent.name)

    def _start(self) -> None:
        self._name = secrets.token_hex(8)
        self._waiting: _Waiting = queue.Queue(MOST_WAITING)
        threading.Thread(target=self._run, args=(self._waiting,), name="celeriac-refresh", daemon=True).start()
        self._pid = os.getpid()  # last, for other threads look at it; two that come at once start one thread each

    def _run(self, waiting: _Waiting) -> None:
        while True:
            work, agent, permissions, key = waiting.get()
            try:
                self._refresh(work, agent, permissions, key)
            except Exception as fault:  # whoever asks next tries again
                logger.warning(
                    "a stale answer of agent %s was not refreshed: %s", agent.name, self._engine.guard.told(fault)
                )

    def _refresh(self, work: Work, agent: Agent, permissions: frozenset[str], key: Key) -> None:
        flight, number = f"refresh {key.hash}", next(self._numbers)
        limit = work.claimed.timeout or self._engine.settings.step_time_limit or None

        def begin(tx: Transaction) -> int | None:
            how = flights.take(tx, flight, self._name, number, 0, (limit or 0) + SPARE_SECONDS)
            known = self._cache.find(tx, key)
            if how != "taken":
                return None
            if known is not None and not known.stale:  # another one has been quicker
                flights.land(tx, flight, self._name, number, 0)
                return None
            return cutoffs.moment(tx)[1]

        generation = self._engine.database.write(begin)
        if generation is None:
            return
        began = time.monotonic()
        try:
            until = began + limit if limit else None
            context = Context(self._engine, work, permissions, until, lambda: None, None)
            output = runner.run(agent, context, work.request)
            self._store(work, agent, key, output, generation, time.monotonic() - began)
        finally:
            self._engine.database.write(lambda tx: flights.land(tx, flight, self._name, number, 0))

    def _store(self, work: Work, agent: Agent, key: Key, output: AgentOutput, generation: int, seconds: float) -> None:
        if work.private or output.add_steps:
            raise CeleriacError("its answer is not for others any more")
        entry = self._cache.make(
            key,
            output,
            ttl=agent.cache_ttl,
            stale=agent.cache_stale,
            tags=agent.cache_tags,
            seconds=seconds,
            generation=generation,
        )
        if entry is not None and self._engine.database.write(lambda tx: self._cache.write(tx, entry)):
            self._cache.stored(entry)
            self._cache.count(key.scope[0], refreshed=1)
