"""A session's own keyed state, the scope `session:ID`, as its checkpoints keep it: where values lie in the database of
the sessions.

Who writes to such a scope locks the session's row first, as a turn does, and notes which keys it changes. The next
checkpoint takes the values of those keys, so it costs what has changed; who locks a session is told whether there are
any, so one that keeps no state costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, case, delete, insert, or_, select, text

from ..errors import SessionError
from . import deltas, serial
from .database import Query, Transaction, now
from .states.tables import state_values
from .tables import checkpoint_blobs, sessions, state_changes

_SCOPE: Final = "session:"
#: Names of tenants' scopes begin so in a backend; no scope without a tenant does.
TENANT: Final = "tenant:"
#: Values of more bytes than this are compressed in the change of a checkpoint.
_WORTH_COMPRESSING: Final = 512


class Value(NamedTuple):
    """A value as a checkpoint keeps it: JSON or sealed bytes, or the hash of the blob that holds them. A version says
    which value it is, once and for all; `expires_at` is in seconds since 1970.
    """

    version: int
    body: bytes | None
    blob: str | None
    size: int
    meta: str
    expires_at: float | None


_v, _c, _b = state_values.c, state_changes.c, checkpoint_blobs.c
_alive = or_(_v.expires_at.is_(None), _v.expires_at > now())
_VALUE = (_v.key, _v.version, _v.body, _v.packed, _v.blob, _v.size, _v.meta, _v.expires_at)
_mine = _c.session_id == bindparam("session")

_LOCK = Query(
    select(sessions.c.status)
    .where(sessions.c.id == bindparam("session"), sessions.c.tenant == bindparam("of"))
    .with_for_update()
)
_NOTE = Query(
    text(
        "INSERT INTO state_changes (session_id, key) VALUES (:session, :name) ON CONFLICT (session_id, key) DO NOTHING"
    )
)
_NOTE_ALL = Query(
    text(
        "INSERT INTO state_changes (session_id, key) SELECT :session, key FROM state_values WHERE scope = :owner"
        " ON CONFLICT (session_id, key) DO NOTHING"
    )
)
_CHANGED = Query(
    select(_c.key, *(case((_alive, column)) for column in _VALUE[1:]))
    .select_from(state_changes.outerjoin(state_values, and_(_v.scope == bindparam("owner"), _v.key == _c.key)))
    .where(_mine)
)
_SETTLE = Query(delete(state_changes).where(_mine))
_ALL = Query(select(*_VALUE).where(_v.scope == bindparam("owner"), _alive).order_by(_v.key))


def prefix_of(tenant: str) -> str:
    """What the names of a tenant's scopes begin with; no scope without a tenant does. It ends at the first slash."""
    return f"{TENANT}{tenant.replace('%', '%25').replace('/', '%2F')}/" if tenant else ""


def scope_of(session_id: str, tenant: str) -> str:
    """The scope that a session's own state has."""
    return prefix_of(tenant) + _SCOPE + session_id


def beside(scope: str) -> str:
    """The scope beside a session's own that has what trees keep there, where state lives outside of the database."""
    return f"{scope}:tree"


def session_of(scope: str) -> tuple[str, str] | None:
    """(id, tenant) of the session whose own scope this is."""
    tenant = ""
    if scope.startswith(TENANT):
        quoted, _, scope = scope[len(TENANT) :].partition("/")
        tenant = quoted.replace("%2F", "/").replace("%25", "%")
    return (scope[len(_SCOPE) :], tenant) if scope.startswith(_SCOPE) else None


def note(tx: Transaction, scope: str, keys: Iterable[str] | None) -> None:
    """Lock the session whose own scope this is, and note which keys are about to change (None: all that there are).

    Of any other scope, and of one whose session is not there, nothing is noted. Raises SessionError for values of a
    session that is archived.
    """
    found = session_of(scope)
    status = tx.value(_LOCK, session=found[0], of=found[1]) if found is not None else None
    if found is None or status is None:
        return
    session_id = found[0]
    if status == "archived" and keys is not None:
        raise SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")
    if keys is None:
        tx.run(_NOTE_ALL, session=session_id, owner=scope)
    else:
        tx.many(_NOTE, [{"session": session_id, "name": key} for key in keys])


def changed(tx: Transaction, session_id: str, tenant: str) -> dict[str, Value | None]:
    """What has changed in a locked session's own scope since this was last asked: values by key, None for what is gone.

    It counts as kept from now on.
    """
    rows = tx.rows(_CHANGED, session=session_id, owner=scope_of(session_id, tenant))
    tx.run(_SETTLE, session=session_id)
    return {row[0]: _value(row) for row in rows}


def all_of(tx: Transaction, session_id: str, tenant: str) -> dict[str, Value]:
    """All values of a session's own scope, by key."""
    found = {row[0]: _value(row) for row in tx.rows(_ALL, owner=scope_of(session_id, tenant))}
    return {key: value for key, value in found.items() if value is not None}


def _value(row: tuple[Any, ...]) -> Value | None:
    _, version, body, packed, blob, size, meta, expires_at = row
    if not version:
        return None
    data = body.encode() if body is not None else None if packed is None else bytes(packed)
    return Value(version, data, blob, size, meta, expires_at)


# -- as checkpoints keep them ------------------------------------------------------------------------------------------


def told(values: Mapping[str, Value | None]) -> dict[str, list[Any] | None]:
    """Changed values as the change of a checkpoint has them: the larger ones compressed."""
    return {key: None if value is None else _told(value) for key, value in values.items()}


def _told(value: Value) -> list[Any]:
    body = value.body
    if body is None or len(body) <= _WORTH_COMPRESSING:
        return [False, *value]
    return [True, *value._replace(body=deltas.snapshot(body))]


def apply(values: dict[str, Value], change: Mapping[str, list[Any] | None]) -> None:
    """Bring values one checkpoint further. Raises CheckpointDamaged."""
    for key, row in change.items():
        if row is None:
            values.pop(key, None)
            continue
        value = Value(*row[1:])
        values[key] = value._replace(body=deltas.restore(value.body or b"")) if row[0] else value


def shown(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values for people: JSON values; of sealed ones and of those in blobs only what tells them apart."""
    return {key: _shown(value) for key, value in sorted(values.items())}


def _shown(value: Value) -> Any:
    about: dict[str, Any] = serial.decode(value.meta) if value.meta else {}
    if value.blob is not None:
        return {"bytes": value.size, "sha256": value.blob}
    if about.get("sealed"):
        return {"bytes": value.size, "sealed": True, "sha256": serial.digest(value.body or b"")}
    return serial.decode(value.body or b"null")


# -- blobs that checkpoints refer to -----------------------------------------------------------------------------------

_REFER = Query(insert(checkpoint_blobs).values({c: bindparam(c) for c in ("session_id", "number", "blob")}))
_FORGET = Query(
    delete(checkpoint_blobs)
    .where(_b.session_id == bindparam("session"), _b.number == bindparam("wanted"))
    .returning(_b.blob)
)
_BLOBS_OF = Query(select(_b.blob).where(_b.session_id == bindparam("session")))


def refer(tx: Transaction, session_id: str, number: int, values: Mapping[str, Value | None]) -> None:
    """Note that a checkpoint refers to the blobs of these values: while it is there they are not deleted."""
    hashes = {value.blob for value in values.values() if value is not None and value.blob is not None}
    tx.many(_REFER, [{"session_id": session_id, "number": number, "blob": one} for one in sorted(hashes)])


def forget(tx: Transaction, session_id: str, numbers: Iterable[int]) -> list[str]:
    """Checkpoints of those numbers refer to no blobs any more; gives the blobs, which others may still refer to."""
    return [row[0] for number in numbers for row in tx.rows(_FORGET, session=session_id, wanted=number)]


def blobs_of(tx: Transaction, session_id: str) -> list[str]:
    """Hashes of the blobs that a session's checkpoints refer to."""
    return [row[0] for row in tx.rows(_BLOBS_OF, session=session_id)]
