"""The sweeper: finds what was lost on the way and sets it going again. May run anywhere, any number of times at
once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import SessionNotFound
from ..storage import events, ready, sessions, steps, sweeps
from ..storage.database import Transaction
from .engine import Engine, Work
from .memory import remembering
from .turn import Turn

#: Hints that were not struck off within so many seconds were written by a process that has died: publish them again.
STALE_HINT = 2.0
#: So many hints that were not sent are looked at at a time.
AT_ONCE = 200
#: Ready steps get another hint after so many sweeps without having been claimed: the broker may have lost theirs.
QUIET_SWEEPS = 5


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did."""

    returned: int = 0  # steps whose worker was gone, ready again
    dead: int = 0  # steps given up: their worker died too often
    hinted: int = 0  # hints published


def sweep(engine: Engine) -> Swept:
    """Return the steps of dead workers, publish hints that were not sent or seem lost. Costs one query when idle."""
    settings = engine.settings
    quiet = max(QUIET_SWEEPS * settings.sweep_seconds, 1.0)
    age = min(settings.sweep_seconds, 0.5)
    if not engine.database.read(lambda tx: sweeps.anything(tx, STALE_HINT, age, quiet)):
        return Swept()
    returned, dead = _return_lost(engine)
    hints = _stale_hints(engine)
    if not hints:  # while the broker is away, more hints would only wait with those that do
        rows = engine.database.read(lambda tx: ready.unhinted(tx, age, quiet))
        hints = engine.database.write(lambda tx: _hint_again(engine, tx, rows, quiet)) if rows else []
    if hints:
        engine.hints.publish(hints)
    return Swept(returned, dead, sum(hint.hints for hint in hints))


def _stale_hints(engine: Engine) -> list[events.Hint]:
    """Hints that were not sent, one for each session and queue. The others are struck off: after an hour without a
    broker, workers that went on by themselves have long taken what most of them tell of.
    """
    while True:
        found = engine.database.read(lambda tx: events.stale(tx, STALE_HINT, AT_ONCE))
        best: dict[tuple[str, str], events.Hint] = {}
        for hint, useful in found:
            on = (hint.session_id, hint.queue)
            if useful and (on not in best or hint.hints > best[on].hints):
                best[on] = hint
        kept = {hint.id for hint in best.values()}
        useless = [hint.id for hint, _ in found if hint.id is not None and hint.id not in kept]
        if useless:
            engine.database.write(partial(events.sent, ids=useless))
        if best or len(found) < AT_ONCE:
            return list(best.values())


def _return_lost(engine: Engine) -> tuple[int, int]:
    def lost(tx: Transaction) -> list[steps.Claimed]:
        gone = {c.claim: c for c in steps.running(tx) if engine.presence.is_dead(c.claim)}
        gone.update((c.claim, c) for c in steps.expired(tx))
        return list(gone.values())

    by_session: dict[str, list[steps.Claimed]] = defaultdict(list)
    for claimed in engine.database.read(lost):
        by_session[claimed.session_id].append(claimed)
    counts = [take_back(engine, session_id, claims) for session_id, claims in by_session.items()]
    return sum(r for r, _ in counts), sum(d for _, d in counts)


def take_back(
    engine: Engine, session_id: str, claims: list[steps.Claimed], given_back: bool = False, leaving: Sequence[Work] = ()
) -> tuple[int, int]:
    """Take steps from workers that are gone (or give them back): ready again, or dead after too many attempts. What
    those that are `leaving` have changed in their agents' memories is kept for the next attempt.

    Gives how many became ready and dead. A claim that has ended meanwhile is left alone.
    """

    def work(turn: Turn) -> tuple[int, int, list[events.Hint]]:
        settling = engine.settling(turn)
        returned = dead = 0
        for c in claims:
            over = not given_back and c.attempts >= max(engine.settings.max_attempts, c.retries + 1)
            why = None if given_back else f"the worker that ran attempt {c.attempts} was lost"
            if not steps.take_back(turn.tx, c, "dead" if over else "ready", why, uncount=given_back, held=turn.held):
                continue
            for one in leaving:
                if one.claimed is c:
                    remembering.leave(turn, one)
            if over:
                why = f"its worker was lost in each of {c.attempts} attempts"
                settling.failed(c, "dead", why, failures=c.failures)
                dead += 1
            else:
                turn.event(
                    "step.returned",
                    step=c.name,
                    component="sweeper",
                    data={"attempt": c.attempts, "given_back": given_back},
                )
                returned += 1
        settling.run()
        hints = engine.hints.write(turn, settling)
        if not turn.hot.open_steps and turn.hot.total_steps:
            engine.end_session(turn)
        return returned, dead, hints

    try:
        returned, dead, hints = engine.in_turn(session_id, work)
    except SessionNotFound:  # deleted meanwhile
        return 0, 0
    if hints:
        engine.hints.publish(hints)
    return returned, dead


def _hint_again(
    engine: Engine, tx: Transaction, rows: list[tuple[str, str, int, int]], quiet: float
) -> list[events.Hint]:
    """Write new hints for ready steps that have waited unseen. No turn: it changes nothing that a session shows."""
    engine.hints.count_slots(tx)
    written = []
    for session_id, queue, priority, _ in sorted(rows):  # sessions are locked in order: two sweepers never cross
        if sessions.lock(tx, session_id) is None:
            continue
        count = ready.hinted(tx, session_id, queue, quiet)
        if count:
            written.append(events.add_hint(tx, session_id, queue, priority, engine.hints.at_most(count)))
    return written
