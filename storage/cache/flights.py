"""Who computes what, and which steps wait for it.

A flight is the claim of a step: it is in the air for as long as that step runs under that claim, whose lease its worker
renews, and until its result is in the cache. So a worker that dies takes its flights down with it. A refresh in the
background has no step; it has a time by which it must have landed.
"""

from __future__ import annotations

from sqlalchemy import and_, bindparam, delete, exists, or_, select, text, update

from ..database import Query, Transaction, now
from ..steps import Claimed, in_state, put_back, this_step
from ..tables import steps
from .tables import cache_flights, cache_waiters

#: A flight whose step is done may take so long, in seconds, until its result is in the cache.
LANDING_SECONDS = 3.0

_f = cache_flights.c
_s = steps.c
_w = cache_waiters.c

_BEGIN = Query(
    text(
        "INSERT INTO cache_flights (key, session_id, number, epoch, lease_until, shared)"
        " VALUES (:key, :session, :number, :epoch, :until, 1) ON CONFLICT (key) DO NOTHING"
    )
)
_LOCK = Query(
    select(_f.shared, _f.session_id, _f.number, _f.epoch).where(_f.key == bindparam("wanted")).with_for_update()
)
_of_its_step = and_(_s.session_id == _f.session_id, _s.number == _f.number)
# What a step gave is in the cache shortly after it is recorded.
_in_the_air = exists().where(
    _of_its_step,
    or_(
        and_(in_state("running"), _s.epoch == _f.epoch),
        and_(in_state("done"), _s.result_epoch == _f.epoch, _s.finished_at > now() - LANDING_SECONDS),
    ),
)
_FLYING = Query(select(_f.key).where(_f.key == bindparam("wanted"), or_(_f.lease_until > now(), _in_the_air)))
_TAKE_OVER = Query(
    update(cache_flights)
    .where(_f.key == bindparam("wanted"))
    .values(
        session_id=bindparam("session"),
        number=bindparam("number"),
        epoch=bindparam("at"),
        lease_until=bindparam("until"),
        shared=1,
    )
)


def take(tx: Transaction, key: str, session_id: str, number: int, epoch: int, lease: float = 0.0) -> str:
    """Begin the flight of a key, unless it is in the air: `taken`, or `flying`, or `apart` where nobody needs to wait
    because its result is not for others.

    Holds a lock on the flight until the transaction ends, so that who waits and who lands do not miss each other.
    """
    until = tx.now() + lease if lease else 0.0
    for _ in range(3):
        if tx.run(_BEGIN, key=key, session=session_id, number=number, epoch=epoch, until=until):
            return "taken"
        row = tx.row(_LOCK, wanted=key)
        if row is None:  # it has just landed
            continue
        if row[1:] == (session_id, number, epoch):  # taken by this very claim, in a COMMIT that broke
            return "taken"
        if tx.row(_FLYING, wanted=key) is not None:
            return "flying" if row[0] else "apart"
        tx.run(_TAKE_OVER, wanted=key, session=session_id, number=number, at=epoch, until=until)
        return "taken"
    return "flying"


_mine = (
    _f.key == bindparam("wanted"),
    _f.session_id == bindparam("session"),
    _f.number == bindparam("number"),
    _f.epoch == bindparam("at"),
)
_LAND = Query(delete(cache_flights).where(*_mine))
_SET_APART = Query(update(cache_flights).where(*_mine).values(shared=0, lease_until=now() + bindparam("lease")))


def land(tx: Transaction, key: str, session_id: str, number: int, epoch: int) -> bool:
    """End the flight of a key; False if it was another's by now."""
    return tx.run(_LAND, wanted=key, session=session_id, number=number, at=epoch) == 1


def set_apart(tx: Transaction, key: str, session_id: str, number: int, epoch: int, lease: float) -> bool:
    """End the flight of a key whose result is not for others: for `lease` seconds nobody waits for that key."""
    return tx.run(_SET_APART, wanted=key, session=session_id, number=number, at=epoch, lease=lease) == 1


_WAIT = Query(
    text(
        "INSERT INTO cache_waiters (key, session_id, number, queue, priority)"
        " SELECT :key, :session, :number, queue, priority FROM steps WHERE session_id = :session AND number = :number"
        " ON CONFLICT (key, session_id, number) DO NOTHING"
    )
)


def wait(tx: Transaction, key: str, c: Claimed, delay: float, held: bool) -> bool:
    """running -> ready, to be looked at when the flight of the key lands, or after `delay` seconds; no attempt is
    counted. False if the claim is lost.
    """
    if not put_back(tx, c, delay, held):
        return False
    tx.run(_WAIT, key=key, session=c.session_id, number=c.number)
    return True


_WAITING = Query(
    select(_w.session_id, _w.number, _w.queue, _w.priority)
    .where(_w.key == bindparam("wanted"))
    .order_by(_w.priority.desc(), _w.session_id, _w.number)
    .limit(bindparam("most"))
)
_WAITS_NO_MORE = Query(
    delete(cache_waiters).where(
        _w.key == bindparam("wanted"), _w.session_id == bindparam("session"), _w.number == bindparam("number")
    )
)
_WAKE = Query(
    update(steps).where(this_step, in_state("ready"), _s.run_at > now()).values(run_at=now()).returning(_s.number)
)


def wake(tx: Transaction, key: str, most: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Let steps that wait for a key be claimed now, at most so many, those of high priority first.

    Gives by session and queue how many there are, and their highest priority.
    """
    woken: dict[tuple[str, str], tuple[int, int]] = {}
    for session_id, number, queue, priority in tx.rows(_WAITING, wanted=key, most=most):
        tx.run(_WAITS_NO_MORE, wanted=key, session=session_id, number=number)
        if tx.row(_WAKE, session=session_id, number=number) is not None:
            count, highest = woken.get((session_id, queue), (0, 0))
            woken[session_id, queue] = (count + 1, max(highest, priority))
    return woken


_waits = exists().where(_s.session_id == _w.session_id, _s.number == _w.number, in_state("ready"))
_FORGET = (
    Query(delete(cache_flights).where(_f.lease_until < now(), ~_in_the_air)),
    Query(delete(cache_waiters).where(~_waits)),
)


def forget(tx: Transaction) -> None:
    """Delete flights that are not in the air any more, and waits of steps that wait no more."""
    for query in _FORGET:
        tx.run(query)


__all__ = ["forget", "land", "set_apart", "take", "wait", "wake"]
