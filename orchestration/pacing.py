"""Rate limits of agents: how often their steps begin, across all workers.

A step that comes too early is put back, as for a retry that counts no attempt, with a turn of its own; it holds no
worker while it waits.
"""

from __future__ import annotations

from ..storage import paces, steps
from .agents import Agent
from .engine import Engine
from .turn import Turn
from .work import Lost, PutBack, Work


class Pacing:
    """The rate limits of one engine's agents."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._declared: set[str] = set()

    def admit(self, work: Work, agent: Agent) -> None:
        """Let a claimed step begin, or put it back until its turn: then raises PutBack; Lost if its claim is gone."""
        if agent.interval is None:
            return
        interval, c = agent.interval, work.claimed

        def ask(turn: Turn) -> float:
            if c.agent not in self._declared:
                paces.declare(turn.tx, c.agent, interval)
            delay = paces.take(turn.tx, c, interval)
            if delay > 0:
                if not steps.put_back(turn.tx, c, delay, turn.held):
                    raise Lost(f"step {c.name} of session {c.session_id} was taken away before it began")
                turn.event("step.limited", step=c.name, data={"agent": c.agent, "after_seconds": round(delay, 3)})
            return delay

        delay = self._engine.in_turn(c.session_id, ask)
        self._declared.add(c.agent)
        if delay > 0:
            self._engine.hints.later(c, delay)
            raise PutBack(f"step {c.name} waits {delay:.3g} s for its turn: agent {c.agent!r} is rate limited")
