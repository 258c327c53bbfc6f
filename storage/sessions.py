"""Rows of sessions: the small hot row, its documents, tags, listing and full-text search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, literal_column, select, text, update

from . import attached
from .agent_parts import agent_parts
from .archives.tables import archives
from .attached import attached_sessions
from .cache.tables import cache_savings, cache_waiters
from .database import Call, Query, Row, Transaction, now
from .histories.tables import cold_history, conversations, history, history_gaps, history_reads
from .paces import agent_turns
from .reuse import reusable_results
from .tables import (
    agent_states,
    checkpoint_blobs,
    checkpoints,
    conflicts,
    edges,
    events,
    findings,
    outbox,
    partial_results,
    results,
    session_documents,
    session_tags,
    sessions,
    state_changes,
    step_inputs,
    steps,
)
from .trees import branches, merge_conflicts

_s = sessions.c
_this = _s.id == bindparam("session")


@dataclass(slots=True)
class Hot:
    """The part of a session's row that changes with every step. Read under a lock, changed, written back by `save`."""

    id: str
    status: str
    phase: str
    correlation_id: str
    tenant: str
    error: str | None
    total_steps: int
    open_steps: int
    failed_steps: int
    event_seq: int
    checkpoint_seq: int
    checkpoint_base: int
    epoch_floor: int
    completed_at: float | None
    priority: int
    stored_bytes: int
    stored_blobs: int
    saved_status: str = field(init=False)  # what the row says
    state_changed: bool = field(init=False, default=False)  # keyed state of its own scope, since the last checkpoint
    saved_error: tuple[str, str] | None = field(init=False, default=None)  # the error, and how the row has it

    def __post_init__(self) -> None:
        self.saved_status = self.status


#: The columns that `Hot` is made of.
HOT = tuple(f.name for f in fields(Hot) if f.init)
_HOT = tuple(_s[c] for c in HOT)
_CHANGED = exists().where(state_changes.c.session_id == bindparam("session"))
_LOCK = Query(select(*_HOT, _CHANGED).where(_this).with_for_update())
_LOOK = Query(select(*_HOT).where(_this))
_CHANGING = tuple(c for c in HOT if c not in ("id", "status", "correlation_id", "tenant", "priority"))


def _save(*more: str) -> Query:
    return Query(
        update(sessions).where(_this).values({c: bindparam(c) for c in (*_CHANGING, *more)} | {"updated_at": now()})
    )


#: Setting an indexed column, even to what it is, costs SQLite a page of the index with every step.
_SAVE = _save()
_SAVE_MOVED = _save("status")
_IDENTITY = Query(select(_s.id, _s.query, _s.user, _s.correlation_id, _s.tenant).where(_this))
#: (id, query, user, correlation id, tenant) of a session: what never changes.
Identity = tuple[str, str, str, str, str]


def lock(tx: Transaction, session_id: str) -> Hot | None:
    """Lock a session's row until the transaction ends (on SQLite the write transaction itself is the lock)."""
    return lock_then(tx, session_id, ())[0]


def lock_then(tx: Transaction, session_id: str, calls: Sequence[Call]) -> tuple[Hot | None, list[list[Row]]]:
    """Lock a session's row and run queries after it, in one round trip; gives the row, and the rows of each query."""
    rows, *others = tx.together([(_LOCK, {"session": session_id}), *calls])
    if not rows:
        return None, others
    hot = Hot(*rows[0][:-1])
    hot.state_changed = bool(rows[0][-1])
    if hot.error is not None:
        kept = hot.error
        hot.error = tx.open(kept, "sessions.error", hot.id)
        hot.saved_error = (hot.error, kept)
    return hot, others


def look(tx: Transaction, session_id: str) -> Hot | None:
    """The row of a session as it lies, without a lock: to see its numbers, not to be saved."""
    row = tx.row(_LOOK, session=session_id)
    return Hot(*row) if row else None


def save(tx: Transaction, hot: Hot) -> None:
    """Write a locked session's hot row back."""
    values = {c: getattr(hot, c) for c in _CHANGING}
    if hot.error is not None:
        known = hot.saved_error
        same = known is not None and known[0] == hot.error
        values["error"] = known[1] if known is not None and same else tx.seal(hot.error, "sessions.error", hot.id)
    if hot.status == hot.saved_status:
        tx.later(_SAVE, [{"session": hot.id, **values}])
    else:
        tx.later(_SAVE_MOVED, [{"session": hot.id, "status": hot.status, **values}])


_NO_BASE = Query(update(sessions).where(_this).values(checkpoint_base=0))
# A moment later: who keeps a copy at hand reads anew, and the session is as old as it was.
_REBASE = Query(
    update(sessions).where(_this).values(checkpoint_base=bindparam("base"), updated_at=_s.updated_at + 0.001)
)


def start_chain_anew(tx: Transaction, session_id: str) -> None:
    """Let the next checkpoint of a locked session be a full one. For those who look at it, nothing has changed."""
    tx.run(_NO_BASE, session=session_id)


def rebase(tx: Transaction, hot: Hot) -> None:
    """Write a locked session back of which nothing has changed but which checkpoints it has."""
    tx.run(_REBASE, session=hot.id, base=hot.checkpoint_base)


def identity(tx: Transaction, session_id: str) -> Identity | None:
    """(id, query, user, correlation id, tenant): what never changes."""
    row = tx.row(_IDENTITY, session=session_id)
    return None if row is None else (row[0], tx.open(row[1], "sessions.query", session_id), row[2], row[3], row[4])


_STATUS = Query(select(_s.status, _s.event_seq).where(_this))


def status(tx: Transaction, session_id: str) -> tuple[str, int] | None:
    """(status, number of the last event) of a session."""
    return tx.row(_STATUS, session=session_id)


_VERSION = Query(select(_s.event_seq, _s.checkpoint_seq, _s.updated_at, _s.status).where(_this))


def version(tx: Transaction, session_id: str) -> tuple[Any, ...] | None:
    """What every turn that changes a session changes, and so tells whether anything has changed; None without one."""
    return tx.row(_VERSION, session=session_id)


_CREATE_COLUMNS = (
    "id",
    "key",
    "query",
    "user",
    "type",
    "title",
    "agent",
    "priority",
    "pinned",
    "plan_name",
    "fingerprint",
    "correlation_id",
    "tenant",
)
_INSERT = Query(
    insert(sessions).values(
        {c: bindparam(c) for c in _CREATE_COLUMNS}
        | {"status": "active", "phase": "initializing", "created_at": now(), "updated_at": now()}
    )
)
_PUT_DOCUMENT = {
    "delete": Query(
        delete(session_documents).where(
            session_documents.c.session_id == bindparam("session"), session_documents.c.name == bindparam("called")
        )
    ),
    "insert": Query(
        insert(session_documents).values(
            session_id=bindparam("session"), name=bindparam("called"), body=bindparam("text")
        )
    ),
}
_DOCUMENTS = Query(
    select(session_documents.c.name, session_documents.c.body).where(
        session_documents.c.session_id == bindparam("session")
    )
)
_DOCUMENT = Query(
    select(session_documents.c.body).where(
        session_documents.c.session_id == bindparam("session"), session_documents.c.name == bindparam("called")
    )
)
_TWO_DOCUMENTS = Query(
    select(session_documents.c.name, session_documents.c.body).where(
        session_documents.c.session_id == bindparam("session"),
        session_documents.c.name.in_([bindparam("first"), bindparam("second")]),
    )
)
_ADD_TAG = Query(insert(session_tags).values(session_id=bindparam("session"), tag=bindparam("word")))
_TAGS = Query(
    select(session_tags.c.tag).where(session_tags.c.session_id == bindparam("session")).order_by(session_tags.c.tag)
)
_DROP_TAGS = Query(delete(session_tags).where(session_tags.c.session_id == bindparam("session")))
_BY_KEY = Query(select(_s.id, _s.fingerprint).where(_s.tenant == bindparam("of"), _s.key == bindparam("wanted")))


def create(tx: Transaction, values: Mapping[str, Any], documents: Mapping[str, str], tags: Sequence[str]) -> None:
    """Insert an active session with its documents (JSON text by name) and tags."""
    own = values["id"]
    tx.run(
        _INSERT, **{**values, **{name: tx.seal(values[name], f"sessions.{name}", own) for name in ("query", "title")}}
    )
    bodies = [(name, _document(tx, own, name, body)) for name, body in documents.items()]
    tx.many(_PUT_DOCUMENT["insert"], [{"session": own, "called": name, "text": body} for name, body in bodies])
    tx.many(_ADD_TAG, [{"session": own, "word": t} for t in dict.fromkeys(tags)])


def _document(tx: Transaction, session_id: str, name: str, body: str) -> str:
    return tx.seal(body, "session_documents.body", session_id, name)


def by_key(tx: Transaction, tenant: str, key: str) -> tuple[str, str] | None:
    """(id, plan fingerprint) of the tenant's session with that idempotency key."""
    return tx.row(_BY_KEY, of=tenant, wanted=key)


def put_document(tx: Transaction, session_id: str, name: str, body: str) -> None:
    """Write one of a session's documents, in place of the one of that name."""
    tx.run(_PUT_DOCUMENT["delete"], session=session_id, called=name)
    tx.run(_PUT_DOCUMENT["insert"], session=session_id, called=name, text=_document(tx, session_id, name, body))


def document(tx: Transaction, session_id: str, name: str) -> str | None:
    """One of a session's documents as JSON text."""
    body: str | None = tx.value(_DOCUMENT, session=session_id, called=name)
    return tx.open(body, "session_documents.body", session_id, name)


def documents_named(tx: Transaction, session_id: str, first: str, second: str) -> dict[str, str]:
    """Those of two documents of a session that there are: JSON text by name."""
    found = tx.rows(_TWO_DOCUMENTS, session=session_id, first=first, second=second)
    return {name: tx.open(body, "session_documents.body", session_id, name) for name, body in found}


def documents(tx: Transaction, session_id: str) -> dict[str, str]:
    """All documents of a session: JSON text by name."""
    found = tx.rows(_DOCUMENTS, session=session_id)
    return {name: tx.open(body, "session_documents.body", session_id, name) for name, body in found}


def tags(tx: Transaction, session_id: str) -> list[str]:
    """A session's tags in order."""
    return [row[0] for row in tx.rows(_TAGS, session=session_id)]


def set_tags(tx: Transaction, session_id: str, words: Sequence[str]) -> None:
    """Put these tags in place of a session's tags."""
    tx.run(_DROP_TAGS, session=session_id)
    tx.many(_ADD_TAG, [{"session": session_id, "word": t} for t in dict.fromkeys(words)])


_SET_PLAN = Query(update(sessions).where(_this).values(plan_name=bindparam("named"), fingerprint=bindparam("hash")))


def set_plan(tx: Transaction, session_id: str, name: str, fingerprint: str) -> None:
    """Note the plan of a session that was created without one."""
    tx.run(_SET_PLAN, session=session_id, named=name, hash=fingerprint)


_CHANGEABLE = ("title", "type", "agent", "priority", "pinned")


def change(tx: Transaction, session_id: str, values: Mapping[str, Any]) -> None:
    """Change describing columns (title, type, agent, priority, pinned) of a session."""
    unknown = values.keys() - set(_CHANGEABLE)
    if unknown:
        raise ValueError(f"not changeable: {sorted(unknown)}")
    if "title" in values:
        values = {**values, "title": tx.seal(values["title"], "sessions.title", session_id)}
    tx.run(update(sessions).where(_s.id == session_id).values(**values, updated_at=now()))


COLUMNS = tuple(c.name for c in sessions.columns)
_GET = Query(select(*sessions.columns).where(_this))


def get(tx: Transaction, session_id: str) -> dict[str, Any] | None:
    """A session's whole row."""
    row = tx.row(_GET, session=session_id)
    return opened(tx, row) if row else None


def opened(tx: Transaction, row: Row) -> dict[str, Any]:
    """A session's row by columns, in plain text."""
    found = dict(zip(COLUMNS, row, strict=True))
    return found | {name: tx.open(found[name], f"sessions.{name}", found["id"]) for name in ("query", "title", "error")}


_inactive = select(_s.id, _s.user).where(
    _s.status.in_([literal_column("'active'"), literal_column("'paused'")]),
    _s.pinned == 0,
    _s.updated_at < now() - bindparam("idle"),
    ~exists().where(conversations.c.session_id == _s.id, conversations.c.updated_at >= now() - bindparam("idle")),
)
_INACTIVE = {False: Query(_inactive), True: Query(_inactive.where(_s.tenant == bindparam("of")))}
_OPEN_OF = Query(
    select(func.count()).where(
        _s.tenant == bindparam("of"),
        _s.user == bindparam("whose"),
        _s.status.in_([literal_column("'active'"), literal_column("'paused'")]),
    )
)
_BYTES_OF = Query(
    select(func.coalesce(func.sum(_s.stored_bytes + func.coalesce(conversations.c.bytes, 0)), 0))
    .select_from(sessions.outerjoin(conversations, conversations.c.session_id == _s.id))
    .where(_s.tenant == bindparam("of"), _s.user == bindparam("whose"))
)
_ADD_BYTES = Query(update(sessions).where(_this).values(stored_bytes=_s.stored_bytes + bindparam("more")))
#: Two transactions that start a session for one user count one after the other.
_ALONE = Query(text("SELECT pg_advisory_xact_lock(7201462, hashtext(:whose))"))
#: What has rows of sessions, each with its `session_id`.
OWNED = (
    session_documents, session_tags, steps, step_inputs, edges, results, agent_states, partial_results, findings,
    conflicts, checkpoints, events, outbox, agent_parts, cache_waiters, cache_savings, agent_turns,
    checkpoint_blobs, state_changes,
    conversations, history, cold_history, history_gaps, history_reads, archives, reusable_results, branches,
    merge_conflicts, attached_sessions,
)  # fmt: skip
_DELETE = [Query(delete(t).where(t.c.session_id == bindparam("session"))) for t in OWNED]
_DELETE_ROW = Query(delete(sessions).where(_this))
_DELETE_WORDS = Query(text("DELETE FROM session_search WHERE session_id = :session"))


_TENANTS = Query(select(_s.tenant).distinct().order_by(_s.tenant))


_ENDED_BEFORE = Query(
    select(_s.id)
    .select_from(sessions.outerjoin(branches, branches.c.session_id == _s.id))
    .where(
        _s.status.in_([literal_column(f"'{status}'") for status in ("completed", "failed", "cancelled")]),
        _s.pinned == 0,
        _s.completed_at < now() - bindparam("age"),
    )
    .order_by(func.coalesce(branches.c.depth, 0).desc(), _s.id)
)


def ended_before(tx: Transaction, age: float) -> list[str]:
    """Ids of the sessions of all tenants that ended `age` seconds ago or earlier, branches before what is above them;
    pinned ones are left out.
    """
    return [row[0] for row in tx.rows(_ENDED_BEFORE, age=age)]


def tenants(tx: Transaction) -> list[str]:
    """The tenants that have sessions."""
    return [row[0] for row in tx.rows(_TENANTS)]


def inactive(tx: Transaction, tenant: str | None, idle: float) -> list[tuple[str, str]]:
    """(id, user) of a tenant's (None: of all) active and paused sessions that are not pinned and have not changed for
    `idle` seconds.
    """
    values = {"idle": idle} if tenant is None else {"idle": idle, "of": tenant}
    return [(row[0], row[1]) for row in tx.rows(_INACTIVE[tenant is not None], **values)]


def open_of(tx: Transaction, tenant: str, user: str) -> int:
    """How many active and paused sessions a user of a tenant has; nobody else counts them until it is committed."""
    if tx.dialect_name == "postgresql":
        tx.rows(_ALONE, whose=f"{tenant}/{user}")
    return int(tx.value(_OPEN_OF, of=tenant, whose=user))


def bytes_of(tx: Transaction, tenant: str, user: str) -> int:
    """Bytes of outputs, partial results and histories in all sessions of a user of a tenant."""
    return int(tx.value(_BYTES_OF, of=tenant, whose=user))


def add_bytes(tx: Transaction, session_id: str, size: int) -> None:
    """Count bytes that are recorded outside of the database, in a locked session."""
    tx.run(_ADD_BYTES, session=session_id, more=size)


def erase(tx: Transaction, session_id: str) -> bool:
    """Delete a session and every row that belongs to it; False if there is none."""
    for query in _DELETE:
        tx.run(query, session=session_id)
    attached.forget(tx, session_id)
    return erase_row(tx, session_id)


def erase_row(tx: Transaction, session_id: str) -> bool:
    """Delete a session's own row, so that there is no such session any more, and what it is found by."""
    tx.run(_DROP_TAGS, session=session_id)
    tx.run(_DELETE_WORDS, session=session_id)
    return tx.run(_DELETE_ROW, session=session_id) == 1
