"""Rows of keyed state: reading them, and changing them together with the record of the change.

The version of a value is the number of the event that wrote it: numbers only rise and are never given twice, so a
version says which value is meant even after the key was deleted and made again. PostgreSQL takes them from a sequence,
SQLite from the clock, in microseconds, or one more than the last: so they rise even when old events are deleted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, insert, or_, select, text, tuple_, update

from .. import results, serial
from ..blobs import BlobStore
from ..database import Query, Transaction, now
from .protocol import Entry, Origin, Write, beyond, conflict
from .tables import state_events, state_values

#: Values of up to so many bytes stand in the record of changes as they are.
TOLD_BYTES = 1024
_MOST_ROWS = 2**62
#: `now()` as SQLite has it.
SQLITE_NOW = "((julianday('now') - 2440587.5) * 86400.0)"

_v = state_values.c
_this = (_v.scope == bindparam("owner"), _v.key == bindparam("name"))
_gone = case((_v.expires_at.is_(None), 0), (_v.expires_at <= now(), 1), else_=0)
_alive = or_(_v.expires_at.is_(None), _v.expires_at > now())
_ENTRY = (_v.key, _v.version, _v.body, _v.packed, _v.blob, _v.meta, _v.expires_at)

_LEFT = Query(select(_v.expires_at).where(*_this, _v.expires_at > now()))
_GET = Query(select(*_ENTRY).where(*_this, _alive))
_some = select(*_ENTRY).where(_v.scope == bindparam("owner"), _alive)
_GET_SOME = {
    "sqlite": Query(_some.where(text("key IN (SELECT value FROM json_each(:names))"))),
    "postgresql": Query(_some.where(text("key = ANY(CAST(:names AS text[]))"))),
}
_small = case((_v.size <= TOLD_BYTES, _v.body))
_LOCK = Query(select(_v.version, _v.size, _small, _v.blob, _v.meta, _gone).where(*_this).with_for_update())
_LOCK_WHOLE = Query(select(*_ENTRY, _gone).where(*_this).with_for_update())
_CONTENT = ("version", "body", "packed", "blob", "size", "meta")
_values: dict[Any, Any] = {_v[c]: bindparam(f"new_{c}") for c in _CONTENT}
_values |= {_v.expires_at: now() + bindparam("seconds"), _v.updated_at: now()}
_UPSERT = Query(
    text(
        "INSERT INTO state_values (scope, key, version, body, packed, blob, size, meta, expires_at, updated_at)"
        " VALUES (:owner, :name, :new_version, :new_body, :new_packed, :new_blob, :new_size, :new_meta,"
        f" {SQLITE_NOW} + :seconds, {SQLITE_NOW})"
        " ON CONFLICT (scope, key) DO UPDATE SET version = excluded.version, body = excluded.body,"
        " packed = excluded.packed, blob = excluded.blob, size = excluded.size, meta = excluded.meta,"
        " expires_at = excluded.expires_at, updated_at = excluded.updated_at"
    )
)
_INSERT = Query(insert(state_values).values({_v.scope: bindparam("owner"), _v.key: bindparam("name")} | _values))
_UPDATE = Query(update(state_values).where(*_this).values(_values))
_CLAIM = Query(
    text(
        "INSERT INTO state_values (scope, key, version, size, updated_at) VALUES (:owner, :name, 0, 0, 0)"
        " ON CONFLICT (scope, key) DO NOTHING"
    )
)
_DELETE = Query(delete(state_values).where(*_this))
_CLEAR = Query(delete(state_values).where(_v.scope == bindparam("owner"), _alive).returning(_v.blob))
_DROP_PAST = Query(
    delete(state_values).where(_v.scope == bindparam("owner"), _v.expires_at <= now()).returning(_v.blob)
)
_past = state_values.alias("past")
_DROP_ANY_PAST = Query(
    delete(state_values)
    .where(
        tuple_(_v.scope, _v.key).in_(
            select(_past.c.scope, _past.c.key).where(_past.c.expires_at <= now()).limit(bindparam("most"))
        ),
        _v.expires_at <= now(),
    )
    .returning(_v.blob)
)
_VERSIONS = Query(select(_v.key, _v.version).where(_v.scope == bindparam("owner"), _alive))
_NEXT_SCOPE = Query(select(_v.scope).where(_v.scope > bindparam("after")).order_by(_v.scope).limit(1))
_keys = select(_v.key).where(_v.scope == bindparam("owner"), _v.key > bindparam("after"), _alive)
_ordered = _keys.order_by(_v.key).limit(bindparam("most"))
_KEYS = Query(_ordered)
_KEYS_WITH = Query(_ordered.where(_v.key >= bindparam("prefix")))
_KEYS_BETWEEN = Query(_ordered.where(and_(_v.key >= bindparam("prefix"), _v.key < bindparam("top"))))

_e = state_events.c
_TOLD = ("scope", "key", "operation", "old", "new", "correlation_id", "session_id", "step", "turn")
_event: dict[str, Any] = {c: bindparam(c) for c in _TOLD} | {"at": now()}
_next = text(f"max(ifnull((SELECT max(version) FROM state_events), 0) + 1, CAST({SQLITE_NOW} * 1000000 AS INTEGER))")
_EVENT = {
    "postgresql": Query(insert(state_events).values(_event).returning(_e.version)),
    "sqlite": Query(insert(state_events).values(_event | {"version": _next}).returning(_e.version)),
}


def told_in_sql(row: str) -> str:
    """As `_told`, of a row of values on SQLite."""
    return (
        f"CASE WHEN {row}.size <= {TOLD_BYTES} AND {row}.body IS NOT NULL"
        f" AND ({row}.meta = '' OR instr({row}.meta, '\"sealed\"') = 0)"
        f" THEN {row}.body ELSE '{{\"bytes\":' || {row}.size"
        f" || iif(instr({row}.meta, '\"sealed\"'), ',\"sealed\":true', '')"
        f" || ifnull(',\"sha256\":\"' || {row}.blob || '\"', '') || '}}' END"
    )


#: On SQLite, where a write transaction is alone: the event of a plain set, which looks up the old value itself.
_NOTE_SET = Query(
    text(
        "INSERT INTO state_events"
        " (version, at, scope, key, operation, old, new, correlation_id, session_id, step, turn)"
        f" SELECT {_next.text}, {SQLITE_NOW}, :scope, :key, :operation,"
        f" CASE WHEN v.scope IS NOT NULL AND ifnull(v.expires_at > {SQLITE_NOW}, 1) THEN {told_in_sql('v')} END,"
        " :new, :correlation_id, :session_id, :step, :turn"
        " FROM (SELECT 1) LEFT JOIN state_values v ON v.scope = :scope AND v.key = :key"
    )
)
#: A plain value in the place of a plain one. It names no column that an index is over: that costs half as much.
_REPLACE = Query(
    update(state_values)
    .where(*_this, _v.blob.is_(None), _v.expires_at.is_(None))
    .values({_v[c]: bindparam(f"new_{c}") for c in _CONTENT if c != "blob"} | {_v.updated_at: now()})
)
_BLOB = Query(select(_v.blob).where(*_this))
_TURN = Query(select(_e.turn).where(_e.version == bindparam("wanted")))


@dataclass(slots=True)
class Batch:
    """Changes of one transaction: their random name, the number of their first event, blobs that they let go."""

    origin: Origin
    name: int = field(default_factory=lambda: random.getrandbits(63))
    first: int = 0
    freed: list[str] = field(default_factory=list)

    def went_in(self, tx: Transaction) -> bool:
        """Whether the COMMIT of these changes went in, though it seemed to break."""
        return bool(self.first) and turn_of(tx, self.first) == self.name

    def event(self, tx: Transaction, scope: str, key: str, operation: str, old: str | None, new: str | None) -> int:
        """Record a change; gives its number."""
        number = int(tx.value(_EVENT[tx.dialect_name], old=old, **self._told(scope, key, operation, new)))
        self.first = self.first or number
        return number

    def note_set(self, tx: Transaction, scope: str, key: str, new: str | None) -> int:
        """As `event` for a set on SQLite, with the value that is there now as the old one."""
        number = tx.inserted(_NOTE_SET, self._told(scope, key, "set", new))
        self.first = self.first or number
        return number

    def _told(self, scope: str, key: str, operation: str, new: str | None) -> dict[str, Any]:
        origin = self.origin
        return {
            "scope": scope,
            "key": key,
            "operation": origin.operation or operation,
            "new": new,
            "correlation_id": origin.correlation_id,
            "session_id": origin.session_id,
            "step": origin.step,
            "turn": None if self.first else self.name,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A value as its row has it; the content of a blob is not read yet."""

    key: str
    version: int
    body: bytes | None
    blob: str | None
    meta: str
    passing: bool

    def entry(self, blobs: BlobStore) -> Entry:
        """The whole value. Raises BlobNotFound if it was replaced since the row was read."""
        body = self.body if self.blob is None else blobs.get(self.blob)
        return Entry(body or b"", self.version, self.meta, self.passing)


def _row(found: Sequence[Any]) -> Row:
    key, version, body, packed, blob, meta, expires_at = found[:7]
    data = body.encode() if body is not None else None if packed is None else bytes(packed)
    return Row(key, version, data, blob, meta, expires_at is not None)


def turn_of(tx: Transaction, version: int) -> int | None:
    """The name of the transaction that recorded a change."""
    found: int | None = tx.value(_TURN, wanted=version)
    return found


def get(tx: Transaction, scope: str, keys: Sequence[str]) -> list[Row]:
    """Those of the keys that exist, as of one moment."""
    if len(keys) == 1:
        return [_row(row) for row in tx.rows(_GET, owner=scope, name=keys[0])]
    names = serial.encode(list(keys)).decode() if tx.dialect_name == "sqlite" else list(keys)
    return [_row(row) for row in tx.rows(_GET_SOME[tx.dialect_name], owner=scope, names=names)]


def left(tx: Transaction, scope: str, keys: Sequence[str]) -> dict[str, float]:
    """The seconds that values have left, of those keys that have one that ends by itself."""
    moment = tx.now()
    found = {key: tx.value(_LEFT, owner=scope, name=key) for key in keys}
    return {key: until - moment for key, until in found.items() if until is not None and until > moment}


def locked(tx: Transaction, scope: str, key: str) -> Row | None:
    """One value with its row locked until the transaction ends. On PostgreSQL also the place of a key without a value
    is held.
    """
    while True:
        found = tx.row(_LOCK_WHOLE, owner=scope, name=key)
        if found is not None:
            return None if found[7] or not found[1] else _row(found)
        if tx.dialect_name == "sqlite" or _claimed(tx, scope, key):
            return None


def _claimed(tx: Transaction, scope: str, key: str) -> bool:
    """Whether this transaction made the row of a new key: a second one waits here, and then finds the row."""
    return bool(tx.run(_CLAIM, owner=scope, name=key))


def write(tx: Transaction, blobs: BlobStore, scope: str, change: Write, blob: str | None, batch: Batch) -> int:
    """Make one change and record it; gives its version. `blob` holds the body if it is too large for a row.

    Raises StateConflict if the version is not the expected one.
    """
    if change.body is not None and change.expected is None and tx.dialect_name == "sqlite":
        return _set(tx, blobs, scope, change, change.body, blob, batch)
    known = tx.row(_LOCK, owner=scope, name=change.key)
    while known is None and tx.dialect_name != "sqlite" and change.body is not None:
        if _claimed(tx, scope, change.key):
            known = (0, 0, None, None, "", 1)
        else:
            known = tx.row(_LOCK, owner=scope, name=change.key)
    version, size, body, old_blob, meta, gone = known or (0, 0, None, None, "", 1)
    gone = gone or not version
    if change.expected is not None and change.expected != (0 if gone else version):
        raise conflict(scope, change.key, change.expected, 0 if gone else version)
    old = None if gone else _told(body, size, meta, old_blob)
    if old_blob is not None and old_blob != blob:
        batch.freed.append(old_blob)
    if change.body is None:
        if known is not None:
            tx.run(_DELETE, owner=scope, name=change.key)
        return 0 if gone else batch.event(tx, scope, change.key, "delete", old, None)
    values = _content(tx, blobs, scope, change, change.body, blob)
    new = _told(values["new_body"], len(change.body), change.meta, blob)
    number = values["new_version"] = batch.event(tx, scope, change.key, "set", old, new)
    _bind(change, blob, number, values)
    tx.later(_UPDATE if known is not None else _INSERT, [values])
    if change.ttl is not None:
        _drop_past(tx, scope, batch)
    return number


def _set(
    tx: Transaction, blobs: BlobStore, scope: str, change: Write, data: bytes, blob: str | None, batch: Batch
) -> int:
    """A set that expects nothing, on SQLite: in two statements, where a small value stays a small one."""
    values = _content(tx, blobs, scope, change, data, blob)
    new = _told(values["new_body"], len(data), change.meta, blob)
    number = values["new_version"] = batch.note_set(tx, scope, change.key, new)
    _bind(change, blob, number, values)
    if blob is None and change.ttl is None and tx.run(_REPLACE, **values):
        return number
    old = tx.value(_BLOB, owner=scope, name=change.key)
    if old is not None and old != blob:
        batch.freed.append(old)
    tx.run(_UPSERT, **values)
    if change.ttl is not None:
        _drop_past(tx, scope, batch)
    return number


def _bind(change: Write, blob: str | None, number: int, values: dict[str, Any]) -> None:
    """Seal a value in a row for its version: an older one of the same key that is put back there does not open. A blob
    is written before there is a version.
    """
    if change.bind is not None and blob is None:
        change.body = values["new_packed"] = change.bind(number)


def _content(
    tx: Transaction, blobs: BlobStore, scope: str, change: Write, data: bytes, blob: str | None
) -> dict[str, Any]:
    """The columns of a value, but for its version."""
    content: str | None = None
    if blob is not None:
        results.refer_to(tx, blobs, blob, data)
    else:
        content = _as_text(data)
    return {
        "owner": scope,
        "name": change.key,
        "new_body": content,
        "new_packed": data if content is None and blob is None else None,
        "new_blob": blob,
        "new_size": len(data),
        "new_meta": change.meta,
        "seconds": change.ttl,
    }


def _drop_past(tx: Transaction, scope: str, batch: Batch) -> None:
    """Delete the values of a scope whose time is over."""
    batch.freed += [row[0] for row in tx.rows(_DROP_PAST, owner=scope) if row[0]]


def drop_any_past(tx: Transaction, most: int) -> tuple[int, list[str]]:
    """Delete at most so many values of any scope whose time is over; gives how many, and the blobs that lets go."""
    found = tx.rows(_DROP_ANY_PAST, most=most)
    return len(found), [row[0] for row in found if row[0]]


def _as_text(data: bytes) -> str | None:
    try:
        text_ = data.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text_ else text_


def _told(body: str | None, size: int, meta: str, blob: str | None) -> str | None:
    """A value as the record of changes has it."""
    if body is not None and size <= TOLD_BYTES and '"sealed"' not in meta:
        return body
    about: dict[str, Any] = {"bytes": size}
    if '"sealed"' in meta:
        about["sealed"] = True
    if blob is not None:
        about["sha256"] = blob
    return serial.encode(about).decode()


def versions(tx: Transaction, scope: str) -> dict[str, int]:
    """The version of each key of a scope."""
    return dict(tx.rows(_VERSIONS, owner=scope))


def scopes(tx: Transaction) -> list[str]:
    """The scopes that have values, in order: one look into the index for each."""
    found: list[str] = []
    while (following := tx.value(_NEXT_SCOPE, after=found[-1] if found else "")) is not None:
        found.append(following)
    return found


def keys(tx: Transaction, scope: str, prefix: str, after: str, limit: int | None) -> list[str]:
    """Keys with that prefix that come after `after`, in order."""
    most = _MOST_ROWS if limit is None else limit
    if not prefix:
        found = tx.rows(_KEYS, owner=scope, after=after, most=most)
    elif (top := beyond(prefix)) is None:
        found = tx.rows(_KEYS_WITH, owner=scope, after=after, most=most, prefix=prefix)
    else:
        found = tx.rows(_KEYS_BETWEEN, owner=scope, after=after, most=most, prefix=prefix, top=top)
    return [row[0] for row in found]


def clear(tx: Transaction, scope: str, batch: Batch) -> int:
    """Delete all keys of a scope; one event tells how many there were."""
    _drop_past(tx, scope, batch)
    found = tx.rows(_CLEAR, owner=scope)
    batch.freed += [row[0] for row in found if row[0]]
    if found:
        batch.event(tx, scope, "", "clear", serial.encode({"keys": len(found)}).decode(), None)
    return len(found)
