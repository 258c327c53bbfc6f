"""Checkpoints of a session on demand, and going back to one."""

from __future__ import annotations

import re
from typing import Any

from ..errors import BlobDamaged, BlobNotFound, CheckpointDamaged, CheckpointNotFound, SessionError, StorageError
from ..storage import agent_parts, bulk, checkpoints, graph, results, serial, steps
from ..storage.calls import CALL
from ..storage.database import Transaction
from ..storage.states.protocol import Origin
from .engine import Engine
from .state.scopes import Scope
from .states import after
from .trees import states
from .turn import Turn

_CHECKPOINT = re.compile(r"(?P<session>[0-9a-f-]{36}):(?P<number>[0-9]{1,9})")
_STATUS, _EPOCH, _NAME, _KIND = (bulk.KEPT.index(name) for name in ("status", "result_epoch", "name", "kind"))
_ATTEMPTS, _FAILURES = (bulk.KEPT.index(name) for name in ("attempts", "failures"))
_TIMES = tuple(bulk.KEPT.index(name) for name in ("started_at", "finished_at"))


def checkpoint(engine: Engine, session_id: str, label: str = "") -> str:
    """Write a checkpoint now; it is kept until it is deleted. Gives its id. Raises SessionError for an archived
    session.
    """
    if not isinstance(label, str) or not serial.is_storable(label):
        raise SessionError(f"a checkpoint's label must be text, found {label!r}")

    def work(turn: Turn) -> str:
        if turn.hot.status == "archived":
            raise SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")
        turn.kind, turn.label = "manual", label
        turn.event("checkpoint.created", component="checkpoints", data={"label": label})
        return f"{session_id}:{turn.hot.checkpoint_seq + 1}"

    return engine.in_turn(session_id, work)


def checkpoint_number(session_id: str, checkpoint_id: str | int) -> int:
    """The number in a checkpoint's id. Raises CheckpointNotFound for another session's or for what is no id."""
    if isinstance(checkpoint_id, int):
        if 0 <= checkpoint_id < 10**9 and not isinstance(checkpoint_id, bool):
            return checkpoint_id
    elif isinstance(checkpoint_id, str) and re.fullmatch("[0-9]{1,9}", checkpoint_id):
        return int(checkpoint_id)
    elif isinstance(checkpoint_id, str):
        match = _CHECKPOINT.fullmatch(checkpoint_id)
        if match is not None and match["session"] == session_id:
            return int(match["number"])
    raise CheckpointNotFound(f"session {session_id} has no checkpoint {checkpoint_id!r}; ids look like {session_id}:12")


def restore(engine: Engine, session_id: str, checkpoint_id: str | int) -> str:
    """Put a session back to a checkpoint, all or nothing; gives the id of the checkpoint that undoes it.

    Finished steps of that time keep their results; all others run again from there, once the session is resumed: it
    is paused, or as it was if there is nothing left to run. Raises CheckpointNotFound, CheckpointDamaged, and
    SessionError for an archived session or while steps are running.
    """
    number = checkpoint_number(session_id, checkpoint_id)
    states.thaw(engine, session_id)

    def work(turn: Turn) -> str:
        tx, hot = turn.tx, turn.hot
        after(hot.status, "restore", session_id)
        busy = graph.names_in_state(tx, session_id, "running")
        if busy:
            raise SessionError(
                f"session {session_id} is {hot.status} and cannot be restored while {', '.join(busy)} runs; "
                "pause it and let its steps finish"
            )
        state = checkpoints.state_at(tx, session_id, number)
        _check_results(engine, tx, session_id, number, state)
        before = checkpoints.read_state(tx, hot)
        hot.checkpoint_seq += 1
        undo = hot.checkpoint_base = hot.checkpoint_seq
        checkpoints.write_full(tx, hot, undo, "manual", f"before the restore of {number}", before)
        _put_back(turn, state, before)
        values = _put_back_values(engine, turn, number, state, before)
        told = {"checkpoint": number, "undo": undo, "values": values}
        turn.event("session.restored", component="checkpoints", data=told)
        hot.checkpoint_base = 0  # what follows starts a chain of its own
        turn.kind, turn.label = "restore", f"restored {number}"
        return f"{session_id}:{undo}"

    return engine.in_turn(session_id, work)


def _check_results(engine: Engine, tx: Transaction, session_id: str, number: int, state: checkpoints.State) -> None:
    """Refuse a checkpoint one of whose results cannot be read any more."""
    for row in state.steps.values():
        if row[_EPOCH] is None:
            continue
        what = f"checkpoint {number} of session {session_id}: the result of step {row[_NAME]!r}"
        if not results.exists(tx, session_id, row[0], row[_EPOCH]):
            raise CheckpointDamaged(f"{what} is missing")
        try:
            results.load(tx, engine.blobs, session_id, row[0], row[_EPOCH])
        except StorageError as fault:
            raise CheckpointDamaged(f"{what} cannot be read: {fault}") from fault


def _put_back(turn: Turn, state: checkpoints.State, before: checkpoints.State) -> None:
    tx, hot = turn.tx, turn.hot
    rows = [_row(row, before.steps.get(number)) for number, row in state.steps.items()]
    hot.epoch_floor = max(hot.epoch_floor, bulk.highest_epoch(tx, hot.id)) + 1
    bulk.replace_all(tx, hot.id, rows, [list(i) for i in state.inputs.items()], state.edges, hot.epoch_floor)
    agent_parts.replace_all(tx, hot.id, state.agents)
    statuses = [row[_STATUS] for row in rows]
    hot.total_steps = len(statuses)
    hot.open_steps = sum(s not in steps.FINAL for s in statuses)
    hot.failed_steps = sum(row[_STATUS] in ("failed", "dead") and row[_KIND] != CALL for row in rows)
    status, _, hot.error = state.session
    hot.phase = "restored"
    if hot.open_steps or not hot.total_steps:
        hot.status, hot.completed_at = "paused", None
    else:
        hot.status = status if status in ("completed", "failed", "cancelled") else _ended(hot.failed_steps)
        hot.completed_at = hot.completed_at or tx.now()
    bulk.settle_again(tx, hot.id)
    bulk.hold(tx, hot.id, True)


def _put_back_values(
    engine: Engine, turn: Turn, number: int, state: checkpoints.State, before: checkpoints.State
) -> int:
    """Put the session's own keyed state back; gives how many of its keys that changes."""
    hot = turn.hot
    if states.restored(engine, turn, number):
        return len(state.values or {})
    if state.values is None or not (state.values or before.values):
        return 0  # an older Celeriac, which kept none, wrote it; or there is none
    origin = Origin("restore", hot.correlation_id, hot.id)
    place = str(Scope.session(hot.id))
    try:
        count = engine.state.of_tenant(hot.tenant).put_back(turn.tx, place, state.values, origin)
    except (BlobNotFound, BlobDamaged) as fault:
        raise CheckpointDamaged(f"checkpoint {number} of session {hot.id}: a value of {place}: {fault}") from fault
    hot.state_changed = hot.state_changed or count > 0
    return count


def _ended(failed: int) -> str:
    return "failed" if failed else "completed"


def _row(row: list[Any], current: list[Any] | None) -> list[Any]:
    """A kept row as it is put back: what had ended stays, with its times if they still stand; the rest begins anew."""
    row = list(row)
    if row[_STATUS] in steps.FINAL:
        if current is not None and current[_EPOCH] == row[_EPOCH]:
            for place in _TIMES:
                row[place] = current[place]
    elif row[_STATUS] != "waiting":
        row[_STATUS], row[_ATTEMPTS], row[_FAILURES] = "blocked", 0, 0
    return row
