"""Bringing what is new in a branch back into its parent. What both have changed is a conflict, kept until it is
resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...errors import SessionError
from ...storage import trees as rows
from ...storage.histories.protocol import Item
from ...storage.histories.sql import SqlPlace
from ..engine import Engine
from ..turn import Turn
from . import carrying, states
from .carrying import check_open
from .notes import STATE, note
from .parts import Merging, Part
from .three_way import merge


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge has brought: how many entries of the history, keys of the state, and the ids of conflicts."""

    branch: str
    entries: int = 0
    keys: list[str] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _New:
    """Entries of a branch up to number `upto`: those that are still to be appended (`items`), or are there already."""

    upto: int
    items: list[tuple[int, Item]] = field(default_factory=list)


def merge_branch(engine: Engine, session_id: str, branch_id: str) -> Merged:
    """See `Session.merge`."""
    branch = engine.database.read(lambda tx: rows.get(tx, branch_id))
    if branch is None or branch.parent != session_id:
        whose = "is no branch" if branch is None else f"is a branch of {branch.parent}"
        raise SessionError(f"session {branch_id} {whose}, and cannot be merged into {session_id}")
    if states.is_kept(engine):
        states.thaw(engine, session_id)
        states.thaw(engine, branch_id)
        new = _new(engine, branch, session_id)
        return engine.in_turn(session_id, lambda turn: _merge(engine, turn, branch_id, new, _merge_state))
    new, found = _new(engine, branch, session_id), list[Merged]()
    for part in Merging(engine, session_id, branch_id).parts():
        found.append(_merge_part(engine, session_id, branch_id, new, part))
    return _together(found or [_merge_part(engine, session_id, branch_id, new, None)])


def _together(parts: list[Merged]) -> Merged:
    keys = sorted({key for part in parts for key in part.keys})
    conflicts = sorted({number for part in parts for number in part.conflicts})
    return Merged(parts[0].branch, sum(part.entries for part in parts), keys, conflicts)


def _new(engine: Engine, branch: rows.Branch, target: str) -> _New:
    """What is new in a branch's history. Not in the turn: on SQLite a transaction that writes keeps others from reading
    a history.
    """
    source = branch.session_id
    if not isinstance(engine.conversations, SqlPlace):
        return _New(carrying.bring(engine, target, source))
    upto = max(carrying.last(engine, source), branch.merged)
    return _New(upto, list(carrying.entries(engine, source, target, branch.merged, upto)))


#: Merges keyed state in the turns of a session and of its branch, telling what it has found; gives where the next merge
#: begins from.
_Values = Callable[[Engine, Turn, Turn, rows.Branch, Merged], str]


def _merge(engine: Engine, turn: Turn, branch_id: str, new: _New, values: _Values) -> Merged:
    check_open(turn, "and cannot be changed; allowed: nothing")
    mine = rows.get(turn.tx, branch_id)
    if mine is None:
        raise SessionError(f"session {branch_id} is no branch any more")
    other = engine.turn(turn.tx, branch_id)
    check_open(other, "and cannot be merged any more")
    last, place = max(new.upto, mine.merged), engine.conversations
    items = [item for number, item in new.items if number > mine.merged]
    found = Merged(branch_id, len(items) if isinstance(place, SqlPlace) else last - mine.merged)
    if items and isinstance(place, SqlPlace):
        place.append_with(turn.tx, turn.hot.id, items, turn.name)
    base = values(engine, turn, other, mine, found)
    if not (found.entries or found.keys or found.conflicts):
        return found
    rows.merged(turn.tx, branch_id, last, base)
    told = {"branch": branch_id, "name": mine.name, "entries": found.entries, "keys": found.keys}
    turn.event("session.merged", component="trees", data={**told, "conflicts": found.conflicts})
    return found


def _merge_state(engine: Engine, turn: Turn, other: Turn, branch: rows.Branch, found: Merged) -> str:
    """Merge keyed state that lives in the database."""
    tx, tenant = turn.tx, turn.hot.tenant
    base = states.values_at(engine, tx, branch.base, tenant)
    ours = states.values_now(engine, tx, turn.hot.id, tenant)
    theirs = states.values_now(engine, tx, other.hot.id, tenant)
    plain = [{key: one.value for key, one in side.items()} for side in (base, ours, theirs)]
    result = merge(*plain)
    if not (result.taken or result.conflicts):
        return branch.base
    other.kind, other.label = "manual", "merged"
    other.event("branch.merged", component="trees", data={"into": turn.hot.id})
    other.close()
    ref = f"{other.hot.id}:{other.hot.checkpoint_seq}"
    states.write(engine, turn, {key: theirs.get(key) for key in result.taken}, "merge")
    found.keys.extend(result.taken)
    _raise(turn, branch, dict.fromkeys(result.conflicts, (branch.base, ref)), found)
    return ref


def _merge_part(engine: Engine, session_id: str, branch_id: str, new: _New, part: Part | None) -> Merged:
    """Record what has come, and a part of the state that was merged elsewhere."""

    def values(engine: Engine, turn: Turn, other: Turn, branch: rows.Branch, found: Merged) -> str:
        if part is not None and (part.taken or part.sides):
            found.keys.extend(part.taken)
            _raise(turn, branch, part.sides, found)
            note(turn.tx, branch_id, STATE, part.token)
            other.event("branch.merged", component="trees", data={"into": turn.hot.id})
            other.close()
        return branch.base

    return engine.in_turn(session_id, lambda turn: _merge(engine, turn, branch_id, new, values))


def _raise(turn: Turn, branch: rows.Branch, sides: dict[str, tuple[str, str]], found: Merged) -> None:
    """Note conflicts, by key, with where the base and theirs are."""
    for key, (base, theirs) in sides.items():
        number = rows.raise_conflict(turn.tx, turn.hot.id, branch.session_id, key, base, theirs)
        found.conflicts.append(number)
        data = {"conflict": number, "branch": branch.session_id, "key": key}
        turn.event("merge.conflict", component="trees", data=data)
