"""Rows of cached results: one for each key, with whose it is, what it is worth, and its bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select, text, update

from .. import serial
from ..database import Query, Transaction, now
from .tables import cached_results, cached_tags

#: Rows are looked through and deleted in batches of so many.
BATCH: Final = 500


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A cached result as it is stored. Times are seconds by the database's clock; `stored` is the length of `body`."""

    key: str
    tenant: str
    agent: str
    version: str
    permissions: tuple[str, ...]
    tags: tuple[str, ...]
    content: str
    body: bytes
    encoding: str
    size: int
    generation: int
    created_at: float
    expires_at: float
    stale_until: float
    seconds: float
    cost: float | None

    @property
    def scope(self) -> tuple[str, str, str, tuple[str, ...]]:
        """Whose it is: tenant, agent, version, permissions."""
        return self.tenant, self.agent, self.version, self.permissions


_r = cached_results.c
_NAMES = (*Entry.__struct_fields__, "stored", "used_at")
_KEPT = [name for name in _NAMES if name != "key"]
_PUT = Query(
    text(
        f"INSERT INTO cached_results ({', '.join(_NAMES)}, accesses) VALUES ({', '.join(f':{n}' for n in _NAMES)}, 0)"
        f" ON CONFLICT (key) DO UPDATE SET accesses = 0, {', '.join(f'{n} = excluded.{n}' for n in _KEPT)}"
    )
)
_GET = Query(
    select(*(_r[name] for name in Entry.__struct_fields__)).where(_r.key == bindparam("wanted"), _r.stale_until > now())
)
_CLEAR_TAGS = Query(delete(cached_tags).where(cached_tags.c.key == bindparam("wanted")))
_TAG = Query(insert(cached_tags).values(tag=bindparam("word"), key=bindparam("of")))


def put(tx: Transaction, entry: Entry) -> None:
    """Write an entry in the place of what its key had."""
    values = msgspec.structs.asdict(entry)
    values |= {"permissions": serial.encode(entry.permissions).decode(), "tags": serial.encode(entry.tags).decode()}
    tx.run(_PUT, stored=len(entry.body), used_at=entry.created_at, **values)
    tx.run(_CLEAR_TAGS, wanted=entry.key)
    tx.many(_TAG, [{"word": tag, "of": entry.key} for tag in entry.tags])


def get(tx: Transaction, key: str) -> Entry | None:
    """The entry of a key that may still be served."""
    row = tx.row(_GET, wanted=key)
    if row is None:
        return None
    values = dict(zip(Entry.__struct_fields__, row, strict=True))
    values |= {name: tuple(serial.decode(values[name])) for name in ("permissions", "tags")}
    return Entry(**(values | {"body": bytes(values["body"])}))


_USED = Query(
    update(cached_results)
    .where(_r.key == bindparam("wanted"))
    .values(accesses=_r.accesses + bindparam("times"), used_at=now())
)


def used(tx: Transaction, counts: dict[str, int]) -> None:
    """Note how often entries were used since this was last noted."""
    tx.many(_USED, [{"wanted": key, "times": times} for key, times in sorted(counts.items())])


_DELETE = Query(delete(cached_results).where(_r.key == bindparam("wanted")))
#: Kinds of invalidation, and the rows that each means.
MATCHING: Final[dict[str, Any]] = {
    "key": _r.key == bindparam("value"),
    "agent": _r.agent == bindparam("value"),
    "content": _r.content == bindparam("value"),
    "tag": _r.key.in_(select(cached_tags.c.key).where(cached_tags.c.tag == bindparam("value"))),
    "everything": _r.key != bindparam("value"),
}
_KEYS = {
    kind: Query(
        select(_r.key)
        .where(condition, _r.generation < bindparam("before"), _r.tenant == bindparam("of"))
        .order_by(_r.key)
    )
    for kind, condition in MATCHING.items()
}


def matching(tx: Transaction, kind: str, value: str, generation: int, tenant: str = "") -> list[str]:
    """Keys of a tenant's entries of before a generation that an invalidation means; `everything` takes the value ""."""
    return [row[0] for row in tx.rows(_KEYS[kind], value=value, before=generation, of=tenant)]


def remove(tx: Transaction, keys: Iterable[str]) -> None:
    """Delete entries with their tags."""
    values = [{"wanted": key} for key in sorted(keys)]
    tx.many(_DELETE, values)
    tx.many(_CLEAR_TAGS, values)


def _both(query: Any) -> dict[bool, Query]:
    """A query over all entries, and (True) over those of one tenant."""
    return {False: Query(query), True: Query(query.where(_r.tenant == bindparam("of")))}


def _of(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"of": tenant}


_EXPIRED = _both(select(_r.key).where(_r.stale_until <= now()).order_by(_r.stale_until).limit(bindparam("most")))
_LITTLE_USED = _both(select(_r.key).where(_r.accesses < bindparam("least")).order_by(_r.key).limit(bindparam("most")))
_OLDEST_USE = _both(select(_r.key, _r.stored).order_by(_r.used_at, _r.key).limit(bindparam("most")))
_live = _r.stale_until > now()
_TOTALS = Query(
    select(
        func.count(),
        func.coalesce(func.sum(_r.stored), 0),
        func.coalesce(func.sum(_r.size), 0),
        func.coalesce(func.sum(_r.accesses), 0),
    ).where(_live, _r.tenant == bindparam("of"))
)
_HELD = _both(select(func.count(), func.coalesce(func.sum(_r.stored), 0)).where(_live))
_BY_AGENT = Query(
    select(_r.agent, func.count(), func.sum(_r.stored), func.sum(_r.accesses))
    .where(_live, _r.tenant == bindparam("of"))
    .group_by(_r.agent)
    .order_by(_r.agent)
)


# Where a `tenant` may be given, None means all.


def expired(tx: Transaction, most: int = BATCH, tenant: str | None = None) -> list[str]:
    """Keys of entries that may not be served any more, at most so many."""
    return [row[0] for row in tx.rows(_EXPIRED[tenant is not None], most=most, **_of(tenant))]


def little_used(tx: Transaction, least: int, most: int = BATCH, tenant: str | None = None) -> list[str]:
    """Keys of entries that were used less than `least` times, at most so many."""
    return [row[0] for row in tx.rows(_LITTLE_USED[tenant is not None], least=least, most=most, **_of(tenant))]


def over(tx: Transaction, max_entries: int, max_bytes: int, most: int = BATCH, tenant: str | None = None) -> list[str]:
    """Keys of the entries whose use is longest ago, as many as are over the limits, at most so many."""
    count, stored = held(tx, tenant)
    if count <= max_entries and stored <= max_bytes:
        return []
    found: list[str] = []
    for key, size in tx.rows(_OLDEST_USE[tenant is not None], most=most, **_of(tenant)):
        if count <= max_entries and stored <= max_bytes:
            break
        found.append(key)
        count -= 1
        stored -= size
    return found


def held(tx: Transaction, tenant: str | None = None) -> tuple[int, int]:
    """How many entries there are, and their bytes as stored. Costs less than `totals`."""
    count, stored = tx.rows(_HELD[tenant is not None], **_of(tenant))[0]
    return int(count), int(stored)


def totals(tx: Transaction, tenant: str = "") -> tuple[int, int, int, int]:
    """How many entries a tenant has, their bytes as stored and as JSON, and how often they were used in all."""
    count, stored, size, accesses = tx.rows(_TOTALS, of=tenant)[0]
    return int(count), int(stored), int(size), int(accesses)


def by_agent(tx: Transaction, tenant: str = "") -> list[tuple[str, int, int, int]]:
    """(agent, entries, bytes as stored, uses) of a tenant's entries."""
    return [(agent, int(n), int(stored), int(used)) for agent, n, stored, used in tx.rows(_BY_AGENT, of=tenant)]
