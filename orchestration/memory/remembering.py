"""What an agent keeps from one step of a session to the next, though several of its steps may run at once.

Its memory is written with a step's result, in the same transaction. What an attempt that does not end leaves (given
back by a worker that stops, running in a session that is paused, or saved by the agent) is kept apart from it, under
the number of its step: the engine cannot know which part of its work the next attempt does again, and an append or a
count that is done again must not count twice. So the next attempt starts from the memory as it was, finds what was
left in `memory.unfinished`, and takes it up if it goes on from there. The end of the step drops it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ...storage import agent_parts, serial, steps
from ...storage.agent_parts import UNFINISHED, Header, item_of, place_of
from ..guard.doors import opened
from ..guard.doors import place_of as place_of_session
from ..turn import Turn
from ..work import Lost, Work
from .memory import Changes, PersistentAgentState
from .merging import MISSING, merged

if TYPE_CHECKING:
    from ..engine import Engine

logger = logging.getLogger("celeriac.memory")

#: An agent may change its memory while another thread reads it: it is read again so many times.
_READS = 5


def recall(engine: Engine, work: Work) -> PersistentAgentState:
    """The memory of a step's agent in its session; read once, then the step's own."""
    if work.memory is None:
        session_id, agent, database = work.session_id, work.claimed.agent, engine.database
        kept = database.read(lambda tx: agent_parts.read(tx, session_id, agent))
        work.has_left = work.claimed.number in kept.unfinished
        work.memory = PersistentAgentState(
            kept,
            agent=agent,
            number=work.claimed.number,
            load_history=lambda: database.read(lambda tx: agent_parts.history(tx, session_id, agent)),
            save=lambda: save(engine, work),
            guarded=lambda value: engine.guard.apply(value, place_of_session(session_id)),
            opened=lambda value: opened(engine.guard, value, session_id),
        )
    return work.memory


def keep(turn: Turn, work: Work) -> None:
    """Write what a step that ends changed in its agent's memory, merged with what others changed meanwhile."""
    c = work.claimed
    if work.memory is not None:
        changes = work.memory.changes()
        if changes:
            turn.change.agents.update(written(turn, c.agent, changes))
    if work.has_left or c.epoch > turn.hot.epoch_floor + 1:  # an earlier attempt may have left something
        turn.change.agents.update(agent_parts.forget_unfinished(turn.tx, turn.hot.id, c.agent, c.number))


def written(turn: Turn, agent: str, changes: Changes) -> dict[str, bytes | str]:
    """Write changes of an agent's memory, merged with what others changed; gives what a checkpoint has to know."""
    tx, session_id = turn.tx, turn.hot.id
    items = {item_of(number): text for number, text in changes.items.items()}
    known = agent_parts.some(tx, session_id, agent, [*changes.parts, *items])
    changed: dict[str, str | None] = {
        name: _merged(name, before, known.get(name), after) for name, (before, after) in changes.parts.items()
    }
    changed |= {name: text for name, text in items.items() if name in known}  # not what others removed
    changed = {name: text for name, text in changed.items() if text != known.get(name)}
    head = None
    if changes.appended or changes.schema_version is not None:
        head = agent_parts.header(tx, session_id, agent) or Header()
        head.schema_version = changes.schema_version or head.schema_version
        for text in changes.appended:
            head.last += 1
            changed[item_of(head.last)] = text
    return agent_parts.write(tx, session_id, agent, known, changed, head) if changed or head is not None else {}


def _merged(name: str, before: str | None, current: str | None, mine: str | None) -> str | None:
    if current == before:
        return mine
    old, theirs, own = (MISSING if text is None else serial.decode(text) for text in (before, current, mine))
    found = merged(old, theirs, own, sums=place_of(name)[0] == "tools")
    return None if found is MISSING else serial.encode(found).decode()


def leave(turn: Turn, work: Work) -> None:
    """Keep what a step that has not ended has changed, for its next attempt. The claim must be seen to be its own."""
    text = _left_by(work)
    if text is None:
        return
    c, part = work.claimed, f"{UNFINISHED}/{work.claimed.number}"
    known = agent_parts.some(turn.tx, turn.hot.id, c.agent, [part])
    turn.change.agents.update(agent_parts.write(turn.tx, turn.hot.id, c.agent, known, {part: text}, None))
    turn.event("agent.saved", step=c.name, component="agent", data={"attempt": c.attempts, "bytes": len(text)})
    work.has_left = True


def _left_by(work: Work) -> str | None:
    for _ in range(_READS):
        try:
            return work.memory.left_by(work.claimed.attempts) if work.memory is not None else None
        except RuntimeError:  # it was changed just then
            continue
        except Exception as fault:  # what is no JSON fails the step when it ends, not here
            logger.warning("what step %s left in its memory cannot be kept: %s", work.claimed.name, fault)
            return None
    return None


def save(engine: Engine, work: Work) -> None:
    """Keep what a running step has changed so far. Raises Lost, and writes nothing, if the claim is lost."""
    c = work.claimed

    def record(turn: Turn) -> None:
        if not steps.renew(turn.tx, c, engine.settings.lease_seconds, work.progress, work.task):
            raise Lost(f"step {c.name} of session {c.session_id} was taken away while it ran")
        leave(turn, work)

    engine.in_turn(c.session_id, record)
