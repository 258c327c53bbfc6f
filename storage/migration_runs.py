"""Runs of migrations over keyed state: how far each is, and the old values until it is accepted or undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from .database import Query, Transaction, now
from .keys.sealing import is_sealed
from .tables import metadata

#: Text that is ordered by code points on every database.
_ordered = Text().with_variant(Text(collation="C"), "postgresql")

migration_runs = Table(
    "migration_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("schema", Text, nullable=False),
    Column("target", Text, nullable=False),  # version
    Column("through", Text, nullable=False, server_default=""),  # versions, separated by commas
    Column("scope", Text, nullable=False),  # a scope, or a pattern
    Column("key", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("place", Text, nullable=False),  # where the state lies: a digest of its URL
    Column("status", Text, nullable=False),  # running, done, undoing, undone, accepted
    Column("at_scope", Text, nullable=False, server_default=""),  # all up to here are done
    Column("at_key", Text, nullable=False, server_default=""),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("looked", Integer, nullable=False, server_default=text("0")),
    Column("summary", Text),  # JSON: how it went, of one whose old values are gone
    Column("owner", Text),
    Column("lease_until", Double),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

#: Written before the value is changed; what is sealed is kept sealed.
migrated_values = Table(
    "migrated_values",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("scope", _ordered, primary_key=True),
    Column("key", _ordered, primary_key=True),
    Column("status", Text, nullable=False),  # pending, done, failed, undoing, undone, changed
    Column("source", Text, nullable=False),  # the version that it had
    Column("body", Text),  # the old value: JSON, or
    Column("packed", LargeBinary),  # bytes that are not text, as sealed ones
    Column("meta", Text, nullable=False, server_default=""),
    Column("version", BigInteger, nullable=False),  # of the old value
    Column("new_version", BigInteger),
    Column("error", Text),
    Index("migrated_values_by_status", "run_id", "status"),
    Index("migrated_values_by_scope", "scope"),
)

_r, _v = migration_runs.c, migrated_values.c
_ERROR = "migrated_values.error"
_SUMMARY = "migration_runs.summary"


@dataclass(slots=True)
class Run:
    """A run as its row says. Times are seconds since 1970."""

    id: str
    schema: str
    target: str
    through: str
    scope: str
    key: str
    level: str
    place: str
    status: str
    at_scope: str
    at_key: str
    total: int
    looked: int
    summary: str | None
    owner: str | None
    created_at: float
    updated_at: float


@dataclass(slots=True)
class Old:
    """A value that a run changed, or could not: as it was before."""

    scope: str
    key: str
    status: str
    source: str
    body: bytes | None
    meta: str
    version: int
    new_version: int | None = None
    error: str | None = None


_RUN = tuple(one.name for one in fields(Run))
_OLD = tuple(one.name for one in fields(Old))
_run_columns = [_r[name] for name in _RUN]
_old_columns = [*(_v[name] for name in _OLD), _v.packed]
_this = _r.id == bindparam("wanted")
_of = _v.run_id == bindparam("wanted")

_ADD = Query(
    insert(migration_runs).values(
        {name: bindparam(name) for name in ("id", "schema", "target", "through", "scope", "key", "level", "place")}
        | {"status": "running", "total": bindparam("count"), "created_at": now(), "updated_at": now()}
    )
)
_GET = Query(select(*_run_columns).where(_this))
_LIST = Query(select(*_run_columns).order_by(_r.created_at.desc(), _r.id.desc()))
_SAME = Query(
    select(*_run_columns)
    .where(
        _r.status == "running",
        *(_r[name] == bindparam(name) for name in ("schema", "target", "through", "scope", "key", "level", "place")),
    )
    .order_by(_r.created_at)
    .limit(1)
)
_TAKE = Query(
    update(migration_runs)
    .where(
        _this,
        or_(_r.owner.is_(None), _r.owner == bindparam("mine"), _r.owner == bindparam("gone"), _r.lease_until < now()),
    )
    .values(owner=bindparam("mine"), lease_until=now() + bindparam("lease"), updated_at=now())
)
_LET_GO = Query(
    update(migration_runs)
    .where(_this, _r.owner == bindparam("mine"))
    .values(owner=None, lease_until=None, updated_at=now())
)
_MOVE = Query(
    update(migration_runs).where(_this, _r.status == bindparam("old")).values(status=bindparam("new"), updated_at=now())
)
_SUM_UP = Query(update(migration_runs).where(_this).values(summary=bindparam("told"), updated_at=now()))
_ADVANCE = Query(
    update(migration_runs)
    .where(_this, _r.owner == bindparam("mine"))
    .values(
        at_scope=bindparam("on_scope"),
        at_key=bindparam("on_key"),
        looked=_r.looked + bindparam("count"),
        lease_until=now() + bindparam("lease"),
        updated_at=now(),
    )
)


def add(tx: Transaction, **values: Any) -> None:
    """Insert a run: id, schema, target, through, scope, key, level, place, count (of keys)."""
    tx.run(_ADD, **values)


def get(tx: Transaction, run_id: str) -> Run | None:
    """A run, or None."""
    row = tx.row(_GET, wanted=run_id)
    return _run(tx, *row) if row else None


def _run(tx: Transaction, *row: Any) -> Run:
    run = Run(*row)
    run.summary = tx.open(run.summary, _SUMMARY, run.id)
    return run


def listing(tx: Transaction) -> list[Run]:
    """All runs, the newest first."""
    return [_run(tx, *row) for row in tx.rows(_LIST)]


def unfinished(tx: Transaction, **wanted: str) -> Run | None:
    """The run that was started in the same words and has not come to its end, or None."""
    row = tx.row(_SAME, **wanted)
    return _run(tx, *row) if row else None


def take(tx: Transaction, run_id: str, owner: str, lease: float, gone: str | None = None) -> bool:
    """Make a run this owner's for `lease` seconds; False while it is another's, unless that is the one that is gone."""
    return tx.run(_TAKE, wanted=run_id, mine=owner, gone=gone or owner, lease=lease) == 1


def let_go(tx: Transaction, run_id: str, owner: str) -> None:
    """Give a run up for others to take."""
    tx.run(_LET_GO, wanted=run_id, mine=owner)


def move(tx: Transaction, run_id: str, old: str, new: str) -> bool:
    """Bring a run from one status to another; False if it is not in the first."""
    return tx.run(_MOVE, wanted=run_id, old=old, new=new) == 1


def sum_up(tx: Transaction, run_id: str, summary: str) -> None:
    """Note how a run went, since its kept values go."""
    tx.run(_SUM_UP, wanted=run_id, told=tx.seal(summary, _SUMMARY, run_id))


def advance(tx: Transaction, run_id: str, owner: str, scope: str, key: str, count: int, lease: float) -> bool:
    """Note that all up to a key are done, `count` more than before; False if the run is no longer this owner's."""
    return tx.run(_ADVANCE, wanted=run_id, mine=owner, on_scope=scope, on_key=key, count=count, lease=lease) == 1


_KEEP = Query(
    insert(migrated_values).values(
        {name: bindparam(f"v_{name}") for name in ("run_id", "scope", "key", "status", "source", "meta", "version")}
        | {name: bindparam(f"v_{name}") for name in ("body", "packed", "error")}
    )
)
_one = (_of, _v.scope == bindparam("in_scope"), _v.key == bindparam("named"))
_DROP_ONE = Query(delete(migrated_values).where(*_one))
_DROP_SCOPE = Query(delete(migrated_values).where(_v.scope == bindparam("in_scope")))
_DROP_ALL = Query(delete(migrated_values).where(_of))
_SETTLE = Query(
    update(migrated_values)
    .where(*_one)
    .values(status=bindparam("to"), new_version=func.coalesce(bindparam("got"), _v.new_version), error=bindparam("why"))
)
_IN_STATUS = Query(
    select(*_old_columns)
    .where(_of, _v.status == bindparam("being"))
    .order_by(_v.scope, _v.key)
    .limit(bindparam("most"))
)
_COUNTS = Query(select(_v.status, func.count()).where(_of).group_by(_v.status))
_SOURCES = Query(select(_v.source, func.count()).where(_of, _v.status != "failed").group_by(_v.source))
_KNOWN = Query(
    select(_v.key).where(
        _of, _v.scope == bindparam("in_scope"), _v.key >= bindparam("first"), _v.key <= bindparam("last")
    )
)


def keep(tx: Transaction, run_id: str, rows: Sequence[Old]) -> None:
    """Keep old values before they are changed, or why they could not be."""
    tx.many(_DROP_ONE, [{"wanted": run_id, "in_scope": row.scope, "named": row.key} for row in rows])
    values = [
        {"run_id": run_id, **{name: getattr(row, name) for name in _OLD if name != "new_version"}} for row in rows
    ]
    for one in values:
        one["body"], one["packed"] = _as_kept(one["body"])
        one["error"] = tx.seal(one["error"], _ERROR, run_id, one["scope"], one["key"])
    tx.many(_KEEP, [{f"v_{name}": value for name, value in one.items()} for one in values])


def _as_kept(body: bytes | None) -> tuple[str | None, bytes | None]:
    if body is None or is_sealed(body):
        return None, body
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, body


def settle(tx: Transaction, run_id: str, rows: Iterable[Old]) -> None:
    """Write how it went with kept values: their status, new_version and error."""
    tx.many(
        _SETTLE,
        [
            {
                "wanted": run_id,
                "in_scope": row.scope,
                "named": row.key,
                "to": row.status,
                "got": row.new_version,
                "why": tx.seal(row.error, _ERROR, run_id, row.scope, row.key),
            }
            for row in rows
        ],
    )


def drop(tx: Transaction, run_id: str, rows: Iterable[Old] | None = None) -> None:
    """Drop kept values: these, or all of a run."""
    if rows is None:
        tx.run(_DROP_ALL, wanted=run_id)
    else:
        tx.many(_DROP_ONE, [{"wanted": run_id, "in_scope": row.scope, "named": row.key} for row in rows])


def forget_scope(tx: Transaction, scope: str) -> None:
    """Drop what all runs keep of a scope that is deleted."""
    tx.run(_DROP_SCOPE, in_scope=scope)


def in_status(tx: Transaction, run_id: str, status: str, most: int) -> list[Old]:
    """Kept values of a status, in the order of scopes and keys, at most so many."""
    return [_old(tx, run_id, *row) for row in tx.rows(_IN_STATUS, wanted=run_id, being=status, most=most)]


def _old(tx: Transaction, run_id: str, *row: Any) -> Old:
    old, packed = Old(*row[:-1]), row[-1]
    old.error = tx.open(old.error, _ERROR, run_id, old.scope, old.key)
    text: Any = old.body
    old.body = text.encode() if text is not None else bytes(packed) if packed is not None else None
    return old


def counts(tx: Transaction, run_id: str) -> dict[str, int]:
    """How many kept values a run has, by status."""
    return {status: int(count) for status, count in tx.rows(_COUNTS, wanted=run_id)}


def sources(tx: Transaction, run_id: str) -> dict[str, int]:
    """How many values a run changed, by the version that they had."""
    return {source: int(count) for source, count in tx.rows(_SOURCES, wanted=run_id)}


def known(tx: Transaction, run_id: str, scope: str, keys: Sequence[str]) -> set[str]:
    """Those of the keys (in order) of which a run keeps something."""
    found = {row[0] for row in tx.rows(_KNOWN, wanted=run_id, in_scope=scope, first=keys[0], last=keys[-1])}
    return found.intersection(keys)
