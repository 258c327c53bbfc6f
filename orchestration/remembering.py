"""What an agent keeps from one step of a session to the next, though several of its steps may run at once."""

from __future__ import annotations

from typing import Any

from ..storage import agent_states, deltas, serial
from ..storage.database import Transaction
from .turn import Turn
from .work import Work


def recall(tx: Transaction, work: Work) -> dict[str, Any]:
    """The state that a step's agent left in its session; read once, then the step's own."""
    if work.state is None:
        text = agent_states.get(tx, work.session_id, work.claimed.agent) or "{}"
        work.state_before, work.state = text.encode(), serial.decode(text)
    return work.state


def keep(turn: Turn, work: Work) -> None:
    """Write the keys of the agent's state that this step changed; others may have changed other keys meanwhile."""
    if work.state is None or work.state_before is None:
        return
    new = serial.encode(work.state, what=f"state of agent {work.claimed.agent}")
    if new == work.state_before:
        return
    agent, tx = work.claimed.agent, turn.tx
    known = agent_states.get(tx, turn.hot.id, agent)
    current = (known or "{}").encode()
    if current != work.state_before:
        new = serial.encode(_merged(serial.decode(work.state_before), serial.decode(current), work.state))
    agent_states.put(tx, turn.hot.id, agent, new.decode())
    turn.change.agents[agent] = new.decode() if known is None else deltas.diff(current, new)


def _merged(before: dict[str, Any], current: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """`current` with the top-level keys that went from `before` to `mine` changed as in `mine`."""
    merged = dict(current)
    for key in before.keys() | mine.keys():
        if key not in mine:
            merged.pop(key, None)
        elif key not in before or before[key] != mine[key]:
            merged[key] = mine[key]
    return merged
