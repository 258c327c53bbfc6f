"""What is old enough to go: rows as (key, bytes), page by page, each page a reading transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import Select, and_, bindparam, delete, exists, func, literal_column, or_, select, tuple_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import BigInteger

from .access import refusals
from .agent_parts import agent_parts
from .archives.tables import archives
from .cache.tables import cached_results
from .database import Database, Query, Row, Transaction
from .histories.tables import cold_history, conversations, history
from .migration_runs import migrated_values, migration_runs
from .states.tables import state_events, state_values
from .tables import (
    blobs,
    checkpoints,
    events,
    outbox,
    partial_results,
    results,
    session_documents,
    sessions,
    step_inputs,
    steps,
    workers,
)

#: Rows of one page.
PAGE: Final = 500
#: A row and its number.
Found = tuple[tuple[Any, ...], int]


class octets(FunctionElement[int]):
    """The bytes of a text or of bytes; 0 of nothing."""

    type = BigInteger()
    inherit_cache = True


@compiles(octets, "sqlite")
def _octets_sqlite(element: Any, compiler: Any, **more: Any) -> str:
    return f"coalesce(length(CAST({compiler.process(element.clauses, **more)} AS BLOB)), 0)"


@compiles(octets, "postgresql")
def _octets_postgresql(element: Any, compiler: Any, **more: Any) -> str:
    return f"coalesce(octet_length({compiler.process(element.clauses, **more)}), 0)"


class Paged:
    """Rows of a table that match, in the order of its key, as ((key ...), bytes)."""

    def __init__(self, keys: list[Any], size: Any, *wanted: Any) -> None:
        query: Select[Any] = select(*keys, size).where(*wanted).order_by(*keys).limit(PAGE)
        after = tuple_(*keys) > tuple_(*(bindparam(f"after_{n}", type_=key.type) for n, key in enumerate(keys)))
        self._first, self._later = Query(query), Query(query.where(after))

    def __call__(self, database: Database, **values: Any) -> Iterator[Found]:
        query, last = self._first, dict[str, Any]()
        while True:
            rows: list[Row] = database.read(lambda tx: tx.rows(query, **values, **last))  # noqa: B023
            yield from ((row[:-1], int(row[-1])) for row in rows)
            if len(rows) < PAGE:
                return
            query, last = self._later, {f"after_{n}": value for n, value in enumerate(rows[-1][:-1])}


_s, _e, _k, _v = sessions.c, events.c, checkpoints.c, state_values.c
_old: Any = bindparam("before")


def _of_status(status: str, *more: Any) -> Paged:
    talked = exists().where(conversations.c.session_id == _s.id, conversations.c.updated_at >= _old)
    wanted = (_s.status == literal_column(f"'{status}'"), _s.pinned == 0, _s.updated_at < _old, ~talked, *more)
    return Paged([_s.id], _s.event_seq, *wanted)


_dead = exists().where(steps.c.session_id == _s.id, steps.c.status == literal_column("'dead'"))
#: Sessions that have not changed since `before` and are not pinned, by what retention calls them.
SESSIONS: Final = {
    "completed": _of_status("completed"),
    "failed": _of_status("failed", ~_dead),
    "dead": _of_status("failed", _dead),
    "cancelled": _of_status("cancelled"),
    "archived": _of_status("archived"),
    "paused": _of_status("paused"),
    "idle": _of_status("active", _s.open_steps == 0),
}
_STANDS = Query(
    select(_s.status, _s.open_steps, _s.tenant).where(
        _s.id == bindparam("session"),
        _s.pinned == 0,
        _s.updated_at < _old,
        ~exists().where(conversations.c.session_id == _s.id, conversations.c.updated_at >= _old),
    )
)


def stands(tx: Transaction, session_id: str, before: float) -> tuple[str, int, str] | None:
    """(status, open steps, tenant) of a session that is not pinned and has not changed since; None of any other."""
    return tx.row(_STANDS, session=session_id, before=before)


_ROWS = Query(
    select(
        _s.total_steps + _s.event_seq + _s.checkpoint_seq,
        select(func.count()).where(history.c.session_id == _s.id).scalar_subquery(),
        select(func.count()).where(_v.scope == bindparam("owner")).scalar_subquery(),
    ).where(_s.id == bindparam("session"))
)


def rows_of(tx: Transaction, session_id: str, scope: str) -> int:
    """About how many rows a session has, with those of its own scope of keyed state."""
    found = tx.row(_ROWS, session=session_id, owner=scope)
    return sum(found) if found else 0


_PAYLOADS: Final = (
    (results, results.c.size),
    (history, history.c.size),
    (cold_history, octets(cold_history.c.body)),
    (checkpoints, octets(_k.body)),
    (events, octets(_e.data)),
    (step_inputs, octets(step_inputs.c.body)),
    (session_documents, octets(session_documents.c.body)),
    (agent_parts, octets(agent_parts.c.body)),
    (partial_results, octets(partial_results.c.body)),
    (archives, archives.c.bytes),
)
_BYTES = Query(
    select(
        *(
            select(func.coalesce(func.sum(size), 0)).where(table.c.session_id == bindparam("session")).scalar_subquery()
            for table, size in _PAYLOADS
        )
    )
)


def bytes_of(tx: Transaction, session_id: str) -> tuple[int, int]:
    """Bytes of what a session holds, its archive with it: of all of it, and of the messages among it."""
    found = tx.rows(_BYTES, session=session_id)[0]
    return int(sum(found)), int(found[1])


_CHAINS = Paged([_s.id], _s.checkpoint_seq, or_(_s.checkpoint_seq > bindparam("keep"), _s.created_at < _old))
_CHECKPOINTS = Query(
    select(_k.number, _k.kind, _k.marked, _k.created_at, octets(_k.body))
    .where(_k.session_id == bindparam("session"))
    .order_by(_k.number)
)


def chains(database: Database, keep: int, before: float) -> Iterator[tuple[str, list[Row]]]:
    """(session, its checkpoints as (number, kind, marked, created at, bytes)) of those that may have too many."""
    for (session_id,), _ in _CHAINS(database, keep=keep, before=before):
        rows = database.read(lambda tx: tx.rows(_CHECKPOINTS, session=session_id))  # noqa: B023
        yield session_id, rows


_TOLD = Paged([_s.id], _s.event_seq, _s.created_at < _old)
_EVENTS = Query(
    select(_e.seq, _e.at, octets(_e.data))
    .where(_e.session_id == bindparam("session"), _e.seq > bindparam("after"), _e.seq < bindparam("last"))
    .order_by(_e.seq)
    .limit(PAGE)
)


def old_events(database: Database, before: float) -> Iterator[Found]:
    """The oldest events of each session, as far as they are older, but for its last one."""
    for (session_id,), last in _TOLD(database, before=before):
        after = 0
        while True:
            rows = database.read(lambda tx: tx.rows(_EVENTS, session=session_id, after=after, last=last))  # noqa: B023
            for seq, at, size in rows:
                if at >= before:
                    break
                yield (session_id, seq), size
            else:
                if len(rows) == PAGE:
                    after = rows[-1][0]
                    continue
            break


_CHANGES = Query(
    select(state_events.c.version, state_events.c.at, octets(state_events.c.old) + octets(state_events.c.new))
    .where(state_events.c.version > bindparam("after"))
    .order_by(state_events.c.version)
    .limit(PAGE)
)


def old_changes(database: Database, before: float) -> Iterator[Found]:
    """The oldest records of changes of keyed state, as far as they are older."""
    after = -1
    while rows := database.read(lambda tx: tx.rows(_CHANGES, after=after)):  # noqa: B023
        for version, at, size in rows:
            if at >= before:
                return
            yield (version,), size
        after = rows[-1][0]


_m, _o, _r, _h = migration_runs.c, outbox.c, cached_results.c, cold_history.c
_over = and_(_m.status.in_([literal_column("'accepted'"), literal_column("'undone'")]), _m.updated_at < _old)
_active = exists().where(_s.id == _o.session_id, _s.status == literal_column("'active'"))
#: Other rows that are older than `before`, in the words of retention.
OTHERS: Final[dict[str, Callable[..., Iterator[Found]]]] = {
    "events": old_events,
    "state events": old_changes,
    "cold messages": Paged([_h.session_id, _h.compaction, _h.first], octets(_h.body), _h.at < _old),
    "refusals": Paged([refusals.c.id], octets(refusals.c.resource), refusals.c.last_at < _old),
    "old values of migrations": Paged(
        [migrated_values.c.run_id, migrated_values.c.scope, migrated_values.c.key],
        octets(migrated_values.c.body) + octets(migrated_values.c.packed),
        migrated_values.c.run_id.in_(select(_m.id).where(_over)),
    ),
    "migrations": Paged([_m.id], octets(_m.summary), _over),
    "outbox": Paged([_o.id], octets(_o.queue), _o.created_at < _old, ~_active),
    "workers": Paged([workers.c.id], octets(workers.c.agents), workers.c.seen_at < _old),
    "cached results": Paged([_r.key], _r.stored, _r.stale_until <= _old),
    "values of state": Paged([_v.scope, _v.key], _v.size, _v.expires_at <= _old),
    "blobs": Paged([blobs.c.hash], blobs.c.size, blobs.c.created_at < _old),
}


_STALE = Query(select(_r.key).where(_r.key == bindparam("wanted"), _r.stale_until <= _old))


def stale(tx: Transaction, keys: list[str], before: float) -> list[str]:
    """Those of the cached results that may not be served any more since then."""
    return [key for key in keys if tx.row(_STALE, wanted=key, before=before) is not None]


def _deleting(table: Any, *wanted: Any, returning: Any = None) -> Query:
    keys = [column == bindparam(f"key_{n}", type_=column.type) for n, column in enumerate(table.primary_key)]
    query = delete(table).where(*keys, *wanted)
    return Query(query if returning is None else query.returning(returning))


#: How a row of each is deleted, if it is still old; with what it gives, the blob that it named.
DELETE: Final[dict[str, Query]] = {
    "events": _deleting(events),
    "state events": _deleting(state_events),
    "cold messages": _deleting(cold_history, _h.at < _old, returning=_h.blob),
    "refusals": _deleting(refusals, refusals.c.last_at < _old),
    "old values of migrations": _deleting(migrated_values),
    "migrations": _deleting(migration_runs, _over),
    "outbox": _deleting(outbox, ~_active),
    "workers": _deleting(workers, workers.c.seen_at < _old),
    "values of state": _deleting(state_values, _v.expires_at <= _old, returning=_v.blob),
}
#: Those of them that ask how old a row is; and those that give a blob.
ASKS_AGE: Final = {"cold messages", "refusals", "migrations", "workers", "values of state"}
GIVES_BLOB: Final = {"cold messages", "values of state"}


def take(tx: Transaction, kind: str, key: tuple[Any, ...], before: float) -> tuple[bool, str | None]:
    """Delete a row; gives whether it was still there and old, and the blob that it named."""
    values = {f"key_{n}": value for n, value in enumerate(key)}
    if kind in ASKS_AGE:
        values["before"] = before
    if kind not in GIVES_BLOB:
        return tx.run(DELETE[kind], **values) == 1, None
    row = tx.row(DELETE[kind], **values)
    return row is not None, row[0] if row else None
