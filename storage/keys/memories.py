"""Fields that a rule sealed in agents' memories and in checkpoints, and the keyed state that checkpoints keep, brought
under the active key.

Checkpoints tell the changes of memories by differences over their bytes, so both are changed together: in one
transaction of a locked session, in which each of its checkpoints becomes a full one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

from sqlalchemy import bindparam, select

from ...errors import CeleriacError, CheckpointDamaged
from .. import agent_parts, checkpoints, results, session_state, sessions
from ..blobs import BlobStore
from ..database import Database, Query, Transaction
from ..tables import sessions as session_rows
from .rewrapping import BATCH, Tally, fields_rewrapped, keys_in
from .sealing import KeyRing

_SESSIONS = Query(
    select(session_rows.c.id).where(session_rows.c.id > bindparam("after")).order_by(session_rows.c.id).limit(BATCH)
)


class OwnState(Protocol):
    """Opens the keyed state that checkpoints keep of a session's own scope."""

    def keys(self, scope: str, key: str, value: session_state.Value) -> list[str]:
        """The ids of the keys that a value, and what is in it, is sealed with."""

    def renewed(self, tx: Transaction, scope: str, key: str, value: session_state.Value) -> session_state.Value:
        """The value, and what is in it, under the active key; a new blob is referred to."""


def rewrap_memories(
    database: Database,
    blobs: BlobStore,
    keyring: KeyRing,
    own: OwnState,
    told: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Go through all sessions, one after the other; one without such fields is only read."""
    tally, after = Tally(), ""
    while found := database.read(partial(_following, after=after)):
        for session_id in found:
            try:
                if database.read(
                    partial(_is_behind, session_id=session_id, active=keyring.active, tally=tally, own=own)
                ):
                    bring = partial(_bring, session_id=session_id, keyring=keyring, own=own)
                    tally.rewrapped += database.write(partial(_with_blobs, bring, database, blobs, session_id))
            except CeleriacError as fault:
                tally.refused.append(str(fault))
        after = found[-1]
        told(tally)
    return tally


def _following(tx: Transaction, after: str) -> list[str]:
    return [row[0] for row in tx.rows(_SESSIONS, after=after)]


def _is_behind(tx: Transaction, session_id: str, active: str, tally: Tally, own: OwnState) -> bool:
    """Whether a session holds a field under another key than the active one."""
    texts, found = set(agent_parts.all_of(tx, session_id).values()), set[str]()
    scope = _scope(tx, session_id)
    with contextlib.suppress(CheckpointDamaged):  # what can be read of them is looked at
        for _, state in checkpoints.states(tx, session_id):
            texts.update(state.inputs.values(), state.agents.values())
            for key, value in (state.values or {}).items():
                found.update(own.keys(scope, key, value))
    found.update(key for text in texts for key in keys_in(text))
    tally.found.update(found)
    return bool(found - {active})


def _scope(tx: Transaction, session_id: str) -> str:
    """The scope of the session's own keyed state."""
    return session_state.scope_of(session_id, (sessions.identity(tx, session_id) or ("",))[-1])


def _with_blobs(
    bring: Callable[[Transaction], bool], database: Database, blobs: BlobStore, session_id: str, tx: Transaction
) -> bool:
    """Bring a session, and delete blobs that its checkpoints then no longer refer to."""
    before = set(session_state.blobs_of(tx, session_id))
    done = bring(tx)
    results.let_go(tx, database, blobs, sorted(before - set(session_state.blobs_of(tx, session_id))))
    return done


def _bring(tx: Transaction, session_id: str, keyring: KeyRing, own: OwnState) -> bool:
    if sessions.lock(tx, session_id) is None:
        return False
    scope = _scope(tx, session_id)
    place = f"a memory or checkpoint of session {session_id}"
    known: dict[str, str] = {}  # equal fields stay equal, so that differences between memories stay what they are

    def brought(bodies: dict[str, str]) -> dict[str, str]:
        return {name: fields_rewrapped(body, place, keyring, known) for name, body in bodies.items()}

    kept = list(checkpoints.states(tx, session_id))  # raises before anything is written
    agent_parts.rewrite(tx, session_id, brought(agent_parts.all_of(tx, session_id)))
    for number, state in kept:
        state.agents = brought(state.agents)
        state.inputs = {n: fields_rewrapped(body, place, keyring, known) for n, body in state.inputs.items()}
        if state.values is not None:
            state.values = {key: own.renewed(tx, scope, key, value) for key, value in state.values.items()}
        checkpoints.replace(tx, session_id, number, state)
    sessions.start_chain_anew(tx, session_id)
    return True
