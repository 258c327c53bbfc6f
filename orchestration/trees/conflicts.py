"""Conflicts that merges have left: listed, and resolved one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...errors import SessionError
from ...storage import serial
from ...storage import trees as rows
from ...storage.database import Transaction
from ...storage.states.protocol import StateConflict
from ..engine import Engine
from ..guard.doors import place_of
from ..state.copying import Plain
from ..state.places import PATIENCE_SECONDS
from ..turn import Turn
from ..views import moment
from . import states
from .apart import SIDE, Own
from .carrying import check_open
from .states import ELSEWHERE
from .three_way import ABSENT


def conflicts(engine: Engine, session_id: str, unresolved: bool) -> list[dict[str, Any]]:
    """See `Session.merge_conflicts`."""

    def read(tx: Transaction) -> tuple[list[rows.Conflict], str]:
        found = [one for one in rows.conflicts(tx, session_id) if not (unresolved and one.resolved)]
        return found, engine.owner_of(tx, session_id)[0] if found else ""

    found, tenant = engine.database.read(read)
    if not found:
        return []
    own = Own(engine, session_id, tenant)
    ours = _now(engine, own, [one.key for one in found])
    known: dict[str, dict[str, Plain] | None] = {}

    def side(ref: str, key: str) -> dict[str, Plain] | None:
        if ref not in known:
            known[ref] = _at(engine, own, ref, key)
        return known[ref]

    return [_shown(one, side(one.base, one.key), ours, side(one.theirs, one.key)) for one in found]


def _now(engine: Engine, own: Own, keys: Sequence[str]) -> dict[str, Plain]:
    if not states.is_kept(engine):
        return own.read(keys).plain
    return engine.database.read(lambda tx: states.values_now(engine, tx, own.session_id, own.tenant))


def _at(engine: Engine, own: Own, ref: str, key: str) -> dict[str, Plain] | None:
    """The values that were where a conflict's side refers to: of one that is kept elsewhere, that of its key. None
    where they cannot be read.
    """
    if not ref.startswith(ELSEWHERE):
        return engine.database.read(lambda tx: states.side_at(engine, tx, ref, own.tenant))
    name = ref.removeprefix(ELSEWHERE)
    found = None if states.is_kept(engine) else own.kept(SIDE, [name]).get(name)
    return None if found is None else {key: found}


def _shown(
    one: rows.Conflict, base: dict[str, Plain] | None, ours: dict[str, Plain], theirs: dict[str, Plain] | None
) -> dict[str, Any]:
    return {
        "id": one.id,
        "branch": one.branch,
        "key": one.key,
        **{name: _value(side or {}, one.key) for name, side in (("base", base), ("ours", ours), ("theirs", theirs))},
        "readable": base is not None and theirs is not None,
        "resolved": bool(one.resolved),
        "resolution": serial.decode(one.resolution) if one.resolution else None,
        "created_at": moment(one.created_at),
    }


def _value(side: dict[str, Plain], key: str) -> Any:
    return side[key].value if key in side else None


def resolve(engine: Engine, session_id: str, conflict: int, choice: Any, by: str) -> Any:
    """See `Session.resolve`; `choice` ABSENT deletes the key. Gives the value that holds now."""
    said = engine.guard.apply({"by": by}, place_of(session_id))
    if not states.is_kept(engine):
        return _resolve_apart(engine, session_id, conflict, choice, said)

    def work(turn: Turn) -> Any:
        found, tenant = _open(turn, conflict), turn.hot.tenant
        base, theirs = (states.side_at(engine, turn.tx, ref, tenant) for ref in (found.base, found.theirs))
        _check_readable(found, choice, base, theirs)
        ours = states.values_now(engine, turn.tx, session_id, tenant).get(found.key)
        how, after = _chosen(choice, (base or {}).get(found.key), ours, (theirs or {}).get(found.key))
        if after is not ours:
            states.write(engine, turn, {found.key: after}, "merge")
        _settle(turn, found, how, said)
        return None if after is None else after.value

    return engine.in_turn(session_id, work)


def _check_readable(found: rows.Conflict, choice: Any, *sides: dict[str, Plain] | None) -> None:
    """Raises SessionError for a choice that asks for values that cannot be read."""
    if None in sides and (choice == "theirs" or callable(choice)):
        raise SessionError(
            f"values of merge conflict {found.id} are with session {found.branch}, which is archived or deleted, or "
            "their time is over; restore it first, or choose ours or a value"
        )


def _open(turn: Turn, conflict: int) -> rows.Conflict:
    """A conflict that is open. Raises SessionError."""
    session_id = turn.hot.id
    found = next((one for one in rows.conflicts(turn.tx, session_id) if one.id == conflict), None)
    if found is None or found.resolved:
        why = f"has no merge conflict {conflict!r}" if found is None else f"has resolved merge conflict {conflict}"
        raise SessionError(f"session {session_id} {why} already" if found else f"session {session_id} {why}")
    return found


def _settle(turn: Turn, found: rows.Conflict, how: str, said: dict[str, Any]) -> None:
    rows.resolve(turn.tx, turn.hot.id, found.id, serial.encode({"choice": how, **said}).decode())
    data = {"conflict": found.id, "key": found.key, "choice": how, **said}
    turn.event("merge.resolved", component="trees", data=data)


def _resolve_apart(engine: Engine, session_id: str, conflict: int, choice: Any, said: dict[str, Any]) -> Any:
    """Where values live elsewhere: the value is written, then that it is. Killed in between, it can be done again."""

    def look(turn: Turn) -> tuple[rows.Conflict, str]:
        check_open(turn, "and cannot be changed; allowed: nothing")
        return _open(turn, conflict), turn.hot.tenant

    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        found, tenant = engine.in_turn(session_id, look)
        own = Own(engine, session_id, tenant)
        base, theirs = (_at(engine, own, ref, found.key) for ref in (found.base, found.theirs))
        _check_readable(found, choice, base, theirs)
        now = own.read([found.key])
        ours = now.plain.get(found.key)
        how, after = _chosen(choice, (base or {}).get(found.key), ours, (theirs or {}).get(found.key))
        try:
            if after is not ours:
                own.put([replace(own.write(found.key, after), expected=now.version(found.key))], "merge")
            break
        except StateConflict:  # somebody has changed it meanwhile
            if time.monotonic() > until:
                raise
    engine.in_turn(session_id, lambda turn: _settle(turn, _open(turn, conflict), how, said))
    return None if after is None else after.value


def _chosen(choice: Any, base: Plain | None, ours: Plain | None, theirs: Plain | None) -> tuple[str, Plain | None]:
    """How a conflict is resolved, and the value that holds (None: the key goes)."""
    if isinstance(choice, str) and choice in ("ours", "theirs"):
        return choice, ours if choice == "ours" else theirs
    if choice is ABSENT:
        return "value", None
    how, value = "value", choice
    if callable(choice):
        how, value = "function", choice(*(None if one is None else one.value for one in (base, ours, theirs)))
    like = ours or theirs or base
    return how, Plain(value, like.class_ if like is not None else "standard", None)
