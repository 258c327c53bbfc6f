"""What can be done to a whole session: start, pause, resume, cancel, retry, complete, archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from uuid_utils.compat import uuid7

from ..errors import SessionError
from ..storage import bulk, checkpoints, events, graph, listing, results, sessions
from ..storage.database import Transaction
from .engine import Engine
from .expansion import Settling
from .guard.doors import guarded_plan, place_of
from .plans import Plan
from .restoring import checkpoint, checkpoint_number, restore
from .rows import check_agents
from .sizes import check_count, check_plan, check_requests, check_text, document_text
from .states import SESSION_ENDED, after
from .turn import Turn

TYPES = ("dm", "group", "research")


@dataclass(frozen=True)
class Order:
    """What a session is started with."""

    query: str = ""
    user: str = ""
    key: str | None = None
    preferences: Mapping[str, Any] = field(default_factory=dict)
    permissions: Sequence[str] | None = None
    tags: Sequence[str] = ()
    title: str = ""
    type: str = "research"
    priority: int = 0
    notes: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    file_paths: Sequence[str] = ()
    correlation_id: str | None = None
    tenant: str = ""
    agent: str = ""
    #: Called in the turn that makes the session, with its plan, in the place of `begin`.
    opened: Callable[[Turn, Plan | None], list[events.Hint]] | None = None


def start(engine: Engine, plan: Plan | None, order: Order) -> str:
    """Write a session with its plan, its first hints and a checkpoint in one transaction; gives its id.

    The same `key` again gives the session that is there; with another plan it is a SessionError. Raises QuotaExceeded.
    """
    _check(order)
    if plan is not None:
        _check_plan(engine, plan)
    session_id = str(uuid7())
    fingerprint = plan.fingerprint if plan else ""
    plan, order = _guarded(engine, session_id, plan, order)
    texts = _documents(engine, plan, order)
    written: list[events.Hint] = []

    def settled(tx: Transaction) -> tuple[str, list[events.Hint]] | None:
        if sessions.identity(tx, session_id) is not None:
            return session_id, written
        found = sessions.by_key(tx, order.tenant, order.key) if order.key is not None else None
        if found is not None and plan is not None and found[1] != fingerprint:
            raise SessionError(
                f"key {order.key!r} belongs to session {found[0]}, which was started with another plan; "
                "use another key or the same plan"
            )
        return (found[0], []) if found is not None else None

    def work(tx: Transaction) -> tuple[str, list[events.Hint]]:
        known = settled(tx) if order.key is not None else None
        if known is not None:
            return known
        engine.quotas.admit(tx, order.tenant, order.user)
        _insert(tx, session_id, order, plan, fingerprint, texts)
        turn = engine.turn(tx, session_id)
        turn.event("session.created", component="sessions", data={"plan": plan.name if plan else None})
        written[:] = order.opened(turn, plan) if order.opened else begin(engine, turn, plan) if plan else []
        turn.close()
        return session_id, written

    if order.key is not None:
        known = engine.database.read(settled)
        if known is not None:
            return known[0]
    found, hints = engine.database.write(work, settled)
    engine.hints.publish(hints)
    return found


def _check(order: Order) -> None:
    if order.type not in TYPES:
        raise SessionError(f"session type {order.type!r} is not allowed; allowed: {', '.join(TYPES)}")
    if not 0 <= order.priority <= 9:
        raise SessionError(f"session priority {order.priority!r} is not allowed; allowed: 0 to 9 (9 first)")
    texts = [("query", order.query, 1_000_000), ("user", order.user, 500), ("key", order.key or "", 500)]
    texts += [("title", order.title, 1000), ("agent", order.agent, 500), ("notes", order.notes, 1_000_000)]
    texts += [("correlation_id", order.correlation_id or "", 500), *(("tag", tag, 200) for tag in order.tags)]
    for name, value, most in texts:
        check_text(name, value, most)
    check_count(order.tags)


def _check_plan(engine: Engine, plan: Plan) -> None:
    """Raise PlanError naming the step whose agent is not registered, or whose request is too large."""
    check_plan(plan)
    check_agents(plan.steps, engine.registry)
    check_requests(plan.steps, engine.settings.max_request_bytes)


def _guarded(engine: Engine, session_id: str, plan: Plan | None, order: Order) -> tuple[Plan | None, Order]:
    """What is written of a plan and an order."""
    guard, place = engine.guard, place_of(session_id)
    if not guard.active:
        return plan, order
    documents = {name: getattr(order, name) for name in ("notes", "preferences", "metadata", "file_paths")}
    texts = {name: guard.apply(getattr(order, name), place) for name in ("query", "title")}
    tags = [guard.apply(tag, place) for tag in order.tags]
    order = replace(order, **guard.apply(documents, place), **texts, tags=tags)
    return None if plan is None else guarded_plan(guard, plan, place), order


def _documents(engine: Engine, plan: Plan | None, order: Order) -> dict[str, str]:
    """The session's documents as JSON text. Raises NotSerializable and TooLarge."""
    documents: dict[str, Any] = {
        "plan": plan.to_dict() if plan else None,
        "preferences": _plain(order.preferences),
        "permissions": None if order.permissions is None else sorted(set(order.permissions)),
        "metadata": _plain(order.metadata),
        "notes": order.notes or None,
        "file_paths": _plain(order.file_paths),
    }
    return {
        name: document_text(engine.settings, f"session {name}", value)
        for name, value in documents.items()
        if value is not None
    }


def _plain(value: Any) -> Any:
    """Any mapping as a dict, any sequence as a list; None for an empty one. A guarded one may be a text."""
    if isinstance(value, Mapping):
        return dict(value) or None
    return value if isinstance(value, str) else list(value) or None


def _insert(
    tx: Transaction, session_id: str, order: Order, plan: Plan | None, fingerprint: str, texts: Mapping[str, str]
) -> None:
    values = {
        "id": session_id,
        "key": order.key,
        "query": order.query,
        "user": order.user,
        "type": order.type,
        "title": order.title,
        "agent": order.agent,
        "priority": order.priority,
        "pinned": 0,
        "plan_name": plan.name if plan else "",
        "fingerprint": fingerprint,
        "correlation_id": order.correlation_id or session_id,
        "tenant": order.tenant,
    }
    sessions.create(tx, values, texts, order.tags)
    notes = order.notes if isinstance(order.notes, str) else ""  # sealed, they cannot be found
    listing.index(tx, session_id, "\n".join((order.query, order.title, notes)), fresh=True)


def begin(engine: Engine, turn: Turn, plan: Plan, settling: Settling | None = None) -> list[events.Hint]:
    """Add the steps of a plan to a session without any, and let begin what can."""
    settling = settling or engine.settling(turn)
    settling.begin(plan.steps)
    return _settle(engine, turn, settling)


def _settle(engine: Engine, turn: Turn, settling: Settling) -> list[events.Hint]:
    """Let everything that can begin begin, and write hints; a session with nothing left to do ends."""
    settling.run()
    if not turn.hot.open_steps:
        engine.end_session(turn)
        return []
    return engine.hints.write(turn, settling)


def add_plan(engine: Engine, session_id: str, plan: Plan) -> None:
    """Give a session that was created without a plan its plan. Raises SessionError if it has one or is not active."""
    _check_plan(engine, plan)
    fingerprint, plan = plan.fingerprint, guarded_plan(engine.guard, plan, place_of(session_id))
    text = document_text(engine.settings, "session plan", plan.to_dict())

    def work(turn: Turn) -> list[events.Hint]:
        if turn.hot.status != "active" or turn.hot.total_steps:
            raise SessionError(
                f"session {session_id} is {turn.hot.status} with {turn.hot.total_steps} steps; "
                "only an active one without steps can be given a plan"
            )
        sessions.put_document(turn.tx, session_id, "plan", text)
        sessions.set_plan(turn.tx, session_id, plan.name, fingerprint)
        turn.event("session.planned", component="sessions", data={"plan": plan.name})
        return begin(engine, turn, plan)

    _in_turn(engine, session_id, work)


def _in_turn(engine: Engine, session_id: str, work: Callable[[Turn], list[events.Hint] | None]) -> None:
    """Run `work` in a turn of its own and publish the hints that it gives."""
    hints: list[events.Hint] | None = engine.in_turn(session_id, work)
    engine.hints.publish(hints or [])


def _move(turn: Turn, action: str) -> None:
    before = turn.hot.status
    turn.hot.status = after(before, action, turn.hot.id)
    turn.event(f"session.{turn.hot.status}", component="sessions", data={"from": before})


def pause(engine: Engine, session_id: str) -> None:
    """No new step starts, running ones finish, a checkpoint is written. Pausing a paused session changes nothing."""

    def work(turn: Turn) -> None:
        if turn.hot.status == "paused":
            return
        _move(turn, "pause")
        bulk.hold(turn.tx, session_id, True)
        turn.kind = "pause"
        _prune(engine, turn)

    _in_turn(engine, session_id, work)


def resume(engine: Engine, session_id: str) -> None:
    """Go on with what has not ended, on any machine. On an active session: hint its ready steps anew (after a
    crash).
    """

    def work(turn: Turn) -> list[events.Hint]:
        if turn.hot.status != "active":
            _move(turn, "resume")
            turn.hot.phase = "resumed"
            bulk.hold(turn.tx, session_id, False)
        settling = engine.settling(turn)
        for one in graph.due(turn.tx, session_id):
            settling.consider(one)
        return _settle(engine, turn, settling) if turn.hot.total_steps else []

    _in_turn(engine, session_id, work)


def cancel(engine: Engine, session_id: str) -> None:
    """Nothing starts any more; what runs is told to stop, and what it still writes is refused. What is done stays."""

    def work(turn: Turn) -> None:
        if turn.hot.status == "cancelled":
            return
        _move(turn, "cancel")
        _cancel_open(turn, "the session was cancelled")
        _close(engine, turn, "cancelled")

    _in_turn(engine, session_id, work)


def _cancel_open(turn: Turn, why: str) -> None:
    for number, name in bulk.cancel(turn.tx, turn.hot.id, why):
        turn.change.ended[number] = ["cancelled", None, 0, 0, why, 0]
        turn.event("step.cancelled", step=name)
    turn.hot.open_steps = 0


def _close(engine: Engine, turn: Turn, phase: str) -> None:
    turn.hot.phase = phase
    turn.hot.completed_at = turn.tx.now()
    turn.kind = "final"
    _prune(engine, turn)


def _prune(engine: Engine, turn: Turn) -> None:
    freed = checkpoints.prune(turn.tx, turn.hot, engine.settings.checkpoints_kept)
    results.let_go(turn.tx, engine.database, engine.blobs, freed)


def retry(engine: Engine, session_id: str) -> int:
    """Run again what failed, died or was cancelled, and what was skipped because of it; gives how many steps that
    is.
    """

    def work(turn: Turn) -> tuple[int, list[events.Hint]]:
        _move(turn, "retry")
        reopened = bulk.reopen(turn.tx, session_id)
        hot = turn.hot
        hot.open_steps, hot.failed_steps, hot.error, hot.completed_at = len(reopened), 0, None, None
        hot.phase = "resumed"
        for number, name in reopened:
            turn.change.ended[number] = ["blocked", None, 0, 0, None, 0]
            turn.event("step.reopened", step=name)
        return len(reopened), _restart(engine, turn)

    count, hints = engine.in_turn(session_id, work)
    engine.hints.publish(hints)
    return count


def _restart(engine: Engine, turn: Turn) -> list[events.Hint]:
    """Recount the waits of a session whose steps were reopened or restored, and let begin what can."""
    bulk.settle_again(turn.tx, turn.hot.id)
    settling = engine.settling(turn)
    for one in graph.due(turn.tx, turn.hot.id):
        settling.consider(one)
    return _settle(engine, turn, settling)


def complete(engine: Engine, session_id: str, report: Any = None) -> None:
    """End a session with its final report (JSON-able) and a final checkpoint; steps that have not ended are
    cancelled.
    """
    report = engine.guard.apply(report, place_of(session_id))
    text = document_text(engine.settings, "report", report) if report is not None else ""

    def work(turn: Turn) -> None:
        _move(turn, "complete")
        _cancel_open(turn, "the session was completed")
        if report is not None:
            sessions.put_document(turn.tx, session_id, "report", text)
        _close(engine, turn, "completed")

    _in_turn(engine, session_id, work)


def archive(engine: Engine, session_id: str, may: Callable[[str], None] | None = None) -> None:
    """Put an ended or paused session away into a file: its row stays, is listed only when asked for, and cannot be
    changed. `may`: all below it goes before it; raises for one that may not go.
    """
    from .archives import making, whole  # what makes archives is not what workers begin with

    if may is not None:
        whole.create(engine, session_id, may)
    else:
        making.create(engine, session_id)


__all__ = [
    "SESSION_ENDED",
    "Order",
    "add_plan",
    "archive",
    "begin",
    "cancel",
    "checkpoint",
    "checkpoint_number",
    "complete",
    "pause",
    "restore",
    "resume",
    "retry",
    "start",
]
