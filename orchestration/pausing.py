"""Stopping between the durable calls of a step whose session was paused."""

from __future__ import annotations

from ..storage import steps
from .engine import Engine
from .turn import Turn
from .work import PutBack, Work, lost


class Paused(PutBack):
    """The session was paused: the step was put back, and goes on from its recorded calls after a resume."""


def give_way(engine: Engine, work: Work) -> None:
    """Put a running step back if its session is paused: then raises Paused. Lost if its claim is gone."""
    c = work.claimed

    def put_back(turn: Turn) -> bool:
        if turn.hot.status != "paused":
            return False
        if not steps.put_back(turn.tx, c, 0.0, True):
            raise lost(c)
        engine.write_partials(turn, work)
        turn.event("step.paused", step=c.name, data={"attempt": c.attempts})
        return True

    work.leaving = True
    try:
        paused = engine.in_turn(c.session_id, put_back)
    except BaseException:
        work.leaving = False
        raise
    work.leaving = paused
    if paused:
        raise Paused(f"step {c.name} of session {c.session_id} stops here: the session is paused")
