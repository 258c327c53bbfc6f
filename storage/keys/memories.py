"""Fields that a rule sealed in agents' memories and in checkpoints, brought under the active key.

Checkpoints tell the changes of memories by differences over their bytes, so both are changed together: in one
transaction of a locked session, in which each of its checkpoints becomes a full one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from sqlalchemy import bindparam, select

from ...errors import CeleriacError, CheckpointDamaged
from .. import agent_parts, checkpoints, sessions
from ..database import Database, Query, Transaction
from ..tables import sessions as session_rows
from .rewrapping import BATCH, Tally, fields_rewrapped, keys_in
from .sealing import KeyRing

_SESSIONS = Query(
    select(session_rows.c.id).where(session_rows.c.id > bindparam("after")).order_by(session_rows.c.id).limit(BATCH)
)


def rewrap_memories(database: Database, keyring: KeyRing, told: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Go through all sessions, one after the other; one without such fields is only read."""
    tally, after = Tally(), ""
    while found := database.read(partial(_following, after=after)):
        for session_id in found:
            try:
                if database.read(partial(_is_behind, session_id=session_id, active=keyring.active, tally=tally)):
                    tally.rewrapped += database.write(partial(_bring, session_id=session_id, keyring=keyring))
            except CeleriacError as fault:
                tally.refused.append(str(fault))
        after = found[-1]
        told(tally)
    return tally


def _following(tx: Transaction, after: str) -> list[str]:
    return [row[0] for row in tx.rows(_SESSIONS, after=after)]


def _is_behind(tx: Transaction, session_id: str, active: str, tally: Tally) -> bool:
    """Whether a session holds a field under another key than the active one."""
    texts = list(agent_parts.all_of(tx, session_id).values())
    with contextlib.suppress(CheckpointDamaged):  # what can be read of them is looked at
        for _, state in checkpoints.states(tx, session_id):
            texts += [*state.inputs.values(), *state.agents.values()]
    found = {key for text in set(texts) for key in keys_in(text)}
    tally.found.update(found)
    return bool(found - {active})


def _bring(tx: Transaction, session_id: str, keyring: KeyRing) -> bool:
    if sessions.lock(tx, session_id) is None:
        return False
    place = f"a memory or checkpoint of session {session_id}"
    known: dict[str, str] = {}  # equal fields stay equal, so that differences between memories stay what they are

    def brought(bodies: dict[str, str]) -> dict[str, str]:
        return {name: fields_rewrapped(body, place, keyring, known) for name, body in bodies.items()}

    kept = list(checkpoints.states(tx, session_id))  # raises before anything is written
    agent_parts.rewrite(tx, session_id, brought(agent_parts.all_of(tx, session_id)))
    for number, state in kept:
        state.agents = brought(state.agents)
        state.inputs = {n: fields_rewrapped(body, place, keyring, known) for n, body in state.inputs.items()}
        checkpoints.replace(tx, session_id, number, state)
    sessions.start_chain_anew(tx, session_id)
    return True
