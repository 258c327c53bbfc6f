"""What was invalidated when: generations, which rise by one with each invalidation, in the order of their commits.

An entry holds the generation at which its computation began. Whatever was invalidated at a later one does not count,
wherever it is kept and whenever it is stored.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, literal_column, or_, select, text, update

from ..database import Query, Transaction, now
from .tables import cache_cutoffs

_c = cache_cutoffs.c
_counter = (_c.kind == literal_column("'generation'"), _c.value == literal_column("''"))
_NOW = Query(select(now(), select(_c.generation).where(*_counter).scalar_subquery()))
# The row stays locked until the commit, so that generations are seen in order.
_NEXT = Query(update(cache_cutoffs).where(*_counter).values(generation=_c.generation + 1).returning(_c.generation))
_FIRST = Query(insert(cache_cutoffs).values(kind="generation", value="", generation=1, at=now()))
_CUT = Query(
    text(
        "INSERT INTO cache_cutoffs (kind, value, generation, at) VALUES (:kind, :value, :generation, :at)"
        " ON CONFLICT (kind, value) DO UPDATE SET generation = excluded.generation, at = excluded.at"
    )
)
_is_cutoff = _c.kind.not_in([literal_column("'generation'"), literal_column("'name'")])
#: What an invalidation of everything stands for too.
_PARTS = ("key", "agent", "content", "tag")
_OTHERS = Query(delete(cache_cutoffs).where(or_(*(_c.kind == bindparam(one) for one in _PARTS))))
_NAME = Query(select(_c.generation).where(_c.kind == literal_column("'name'")))
_GIVE_NAME = Query(
    text(
        "INSERT INTO cache_cutoffs (kind, value, generation, at) VALUES ('name', '', :name, :at)"
        " ON CONFLICT (kind, value) DO NOTHING"
    )
)
_SINCE = Query(select(_c.kind, _c.value, _c.generation).where(_c.generation > bindparam("beyond"), _is_cutoff))
_FORGET = Query(delete(cache_cutoffs).where(_c.at < now() - bindparam("age"), _is_cutoff))


@dataclass(frozen=True, slots=True)
class Cutoff:
    """An invalidation: whatever of a tenant (None: of any) is of that key, agent, content or tag, or everything, from
    before that generation.
    """

    kind: str
    value: str
    generation: int
    tenant: str | None = ""


def moment(tx: Transaction) -> tuple[float, int]:
    """The database's clock, and the generation: the number of the last invalidation, 0 before the first."""
    row = tx.rows(_NOW)[0]
    return float(row[0]), int(row[1] or 0)


def name(tx: Transaction) -> str | None:
    """The name of this database's own, by which databases that share a Redis keep apart; None: it has none yet."""
    found = tx.value(_NAME)
    return None if found is None else f"{int(found):x}"


def give_name(tx: Transaction) -> str | None:
    """Give the database a name, if it has none; gives the one that it has."""
    tx.run(_GIVE_NAME, name=secrets.randbits(62), at=tx.now())
    return name(tx)


def _written(kind: str, tenant: str) -> str:
    return f"{kind}@{tenant}" if tenant else kind


def cut(tx: Transaction, kind: str, value: str, tenant: str = "") -> int:
    """Invalidate, of one tenant; gives the new generation. Whoever does the same waits until this is committed."""
    generation = tx.value(_NEXT)
    if generation is None:
        tx.run(_FIRST)
        generation = 1
    if kind == "everything":
        tx.run(_OTHERS, **{one: _written(one, tenant) for one in _PARTS})
    tx.run(_CUT, kind=_written(kind, tenant), value=value, generation=generation, at=tx.now())
    return int(generation)


def since(tx: Transaction, beyond: int) -> list[Cutoff]:
    """What was invalidated after that generation."""
    rows = [(*written.partition("@"), value, int(at)) for written, value, at in tx.rows(_SINCE, beyond=beyond)]
    return [Cutoff(kind, value, at, tenant) for kind, _, tenant, value, at in rows]


def forget(tx: Transaction, age: float) -> int:
    """Delete invalidations of more than `age` seconds ago; no entry may be that old. Gives how many."""
    return tx.run(_FORGET, age=age)
