"""The keyed state of a branch: it lies in a checkpoint of its parent until it is used for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...storage import checkpoints, session_state, sessions
from ...storage import trees as rows
from ...storage.database import Transaction
from ...storage.states.protocol import Origin
from ..state import copying
from ..state.copying import Plain
from ..state.scopes import Scope
from ..turn import Turn

#: What refers to a value that is kept outside of the database begins so.
ELSEWHERE: Final = "@"

if TYPE_CHECKING:
    from ..engine import Engine


def is_kept(engine: Engine) -> bool:
    """Whether checkpoints have sessions' own keyed state, so that branches can share it."""
    return engine.state.capabilities.with_steps


def ref_of(branch: rows.Branch | None, session_id: str, number: int) -> str:
    """Where the keyed state is that a session had at a checkpoint, as SESSION:CHECKPOINT: of a branch that had not used
    it yet, where its parent's is.
    """
    if branch is not None and (branch.thawed is None or number <= branch.thawed):
        return branch.state
    return f"{session_id}:{number}"


def values_at(engine: Engine, tx: Transaction, ref: str, tenant: str) -> dict[str, Plain]:
    """The keyed state in the clear that is at SESSION:CHECKPOINT (nothing where it is empty, or is kept elsewhere)."""
    if not ref or ref.startswith(ELSEWHERE):
        return {}
    session_id, _, number = ref.rpartition(":")
    values = checkpoints.state_at(tx, session_id, int(number)).values or {}
    return _opened(engine, tx, session_id, tenant, values)


def side_at(engine: Engine, tx: Transaction, ref: str, tenant: str) -> dict[str, Plain] | None:
    """As `values_at`; None where the session that it lies in is archived or was deleted."""
    if ref and (sessions.status(tx, ref.rpartition(":")[0]) or ("archived",))[0] == "archived":
        return None
    return values_at(engine, tx, ref, tenant)


def values_now(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> dict[str, Plain]:
    """The keyed state of a session in the clear, as it is now."""
    return _opened(engine, tx, session_id, tenant, session_state.all_of(tx, session_id, tenant))


def _opened(
    engine: Engine, tx: Transaction, session_id: str, tenant: str, values: dict[str, session_state.Value]
) -> dict[str, Plain]:
    state = engine.state.of_tenant(tenant)
    return copying.opened(state, engine.blobs, str(Scope.session(session_id)), values, tx.now())


def write(engine: Engine, turn: Turn, values: dict[str, Plain | None], why: str) -> None:
    """Write values (None: they go) into the keyed state of a turn's session, in that turn."""
    hot = turn.hot
    state = engine.state.of_tenant(hot.tenant)
    origin = Origin(why, hot.correlation_id, hot.id)
    copying.put_in(state, turn.tx, str(Scope.session(hot.id)), values, origin)
    hot.state_changed = hot.state_changed or bool(values)


def thaw(engine: Engine, session_id: str, prefix: str | None = None) -> bool:
    """Bring a branch's keyed state over from its parent's checkpoint, if that was not done yet; gives whether it is
    there now.

    `prefix`: only if the branch is of the tenant whose scopes begin so. Of one that is archived, nothing is.
    """

    def look(tx: Transaction) -> tuple[bool, bool]:
        branch = rows.get(tx, session_id)
        if branch is None or branch.thawed is not None:
            return True, False
        tenant = (sessions.identity(tx, session_id) or ("",))[-1]
        return False, prefix is None or session_state.prefix_of(tenant) == prefix

    is_there, is_due = engine.database.read(look)
    if not is_due:
        return is_there

    def work(turn: Turn) -> bool:
        branch = rows.get(turn.tx, session_id)
        if branch is None or branch.thawed is not None:
            return True
        if turn.hot.status == "archived":
            return False
        values = values_at(engine, turn.tx, branch.state, turn.hot.tenant)
        write(engine, turn, dict(values), "branch")
        rows.thaw(turn.tx, session_id, turn.hot.checkpoint_seq)
        turn.event("branch.state", component="trees", data={"keys": len(values)})
        return True

    return engine.in_turn(session_id, work)


def restored(engine: Engine, turn: Turn, number: int) -> bool:
    """Of a branch that is put back to a checkpoint from before its state was brought over: bring it over anew. False
    for all others.
    """
    branch = rows.get(turn.tx, turn.hot.id)
    if branch is None or branch.thawed is None or number > branch.thawed:
        return False
    values = values_at(engine, turn.tx, branch.state, turn.hot.tenant)
    gone = session_state.all_of(turn.tx, turn.hot.id, turn.hot.tenant).keys() - values.keys()
    write(engine, turn, {**dict.fromkeys(gone), **values}, "restore")
    return True
