"""Who is at work: rows of workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from .database import Query, Transaction, now
from .tables import workers

_w = workers.c
_SEEN = Query(update(workers).where(_w.id == bindparam("worker")).values(seen_at=now(), agents=bindparam("known")))
_HERE = Query(
    insert(workers).values(
        {c: bindparam(c) for c in ("id", "name", "slots", "queues", "agents")} | {"started_at": now(), "seen_at": now()}
    )
)
_GONE = Query(delete(workers).where(or_(_w.id == bindparam("worker"), _w.seen_at < now() - bindparam("silent"))))
_SLOTS = Query(select(func.coalesce(func.sum(_w.slots), 0)).where(_w.seen_at > now() - bindparam("silent")))
_KNOWN = Query(select(_w.agents).where(_w.seen_at > now() - bindparam("silent")))
_LIST = Query(select(_w.id, _w.name, _w.slots, _w.queues, _w.started_at, _w.seen_at).order_by(_w.name))

#: A worker that has not been seen for so long, in seconds, is taken for gone.
SILENT = 60.0


def seen(tx: Transaction, id_: str, name: str, slots: int, queues: str, agents: Sequence[str]) -> None:
    """Note that a worker is alive, and which agents it knows; the first time, what it is."""
    known = json.dumps(list(agents))
    if not tx.run(_SEEN, worker=id_, known=known):
        tx.run(_HERE, id=id_, name=name, slots=slots, queues=queues, agents=known)


def gone(tx: Transaction, id_: str) -> None:
    """Strike a worker off, and those that have long been silent."""
    tx.run(_GONE, worker=id_, silent=10 * SILENT)


def slots(tx: Transaction) -> int:
    """How many steps the live workers can run at once."""
    return int(tx.value(_SLOTS, silent=SILENT))


def know(tx: Transaction, agent: str) -> bool:
    """Whether a live worker knows that agent."""
    return any(agent in json.loads(known) for (known,) in tx.rows(_KNOWN, silent=SILENT))


def listing(tx: Transaction) -> list[dict[str, Any]]:
    """All known workers."""
    keys = ("id", "name", "slots", "queues", "started_at", "seen_at")
    return [dict(zip(keys, row, strict=True)) for row in tx.rows(_LIST)]
