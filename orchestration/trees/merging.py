"""Bringing what is new in a branch back into its parent. What both have changed is a conflict, kept until it is
resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from ...errors import SessionError
from ...storage import serial
from ...storage import trees as rows
from ...storage.database import Transaction
from ...storage.histories.protocol import Item
from ...storage.histories.sql import SqlPlace
from ..engine import Engine
from ..guard.doors import place_of
from ..history.entries import mark_of
from ..history.pages import pages
from ..reuse import moved
from ..state.copying import Plain
from ..turn import Turn
from ..views import moment
from . import states
from .three_way import ABSENT, merge

CHOICES: Final = ("ours", "theirs", "value", "function")
#: Gets the value at the fork, ours and theirs (None: there is none), and gives the one that holds.
Chooser = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge has brought: how many entries of the history, keys of the state, and the ids of conflicts."""

    branch: str
    entries: int = 0
    keys: list[str] = field(default_factory=list)
    conflicts: list[int] = field(default_factory=list)


def merge_branch(engine: Engine, session_id: str, branch_id: str) -> Merged:
    """See `Session.merge`."""
    branch = engine.database.read(lambda tx: rows.get(tx, branch_id))
    if branch is None or branch.parent != session_id:
        whose = "is no branch" if branch is None else f"is a branch of {branch.parent}"
        raise SessionError(f"session {branch_id} {whose}, and cannot be merged into {session_id}")
    kept = states.is_kept(engine)
    if kept:
        states.thaw(engine, session_id)
        states.thaw(engine, branch_id)
    conversations = engine.conversations
    upto = max(_last(engine, branch_id), branch.merged)
    # Read before the turn: on SQLite a transaction that writes keeps others from reading a history.
    new = list(_new(engine, branch, session_id, upto))
    if new and not isinstance(conversations, SqlPlace):
        # A crash between this and the turn that notes it lets the next merge bring these entries once more.
        conversations.append(session_id, [item for _, item in new])

    def work(turn: Turn) -> Merged:
        if turn.hot.status == "archived":
            raise SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")
        mine = rows.get(turn.tx, branch_id)
        if mine is None:
            raise SessionError(f"session {branch_id} is no branch any more")
        other = engine.turn(turn.tx, branch_id)
        if other.hot.status == "archived":
            raise SessionError(f"session {branch_id} is archived and cannot be merged any more")
        last = max(upto, mine.merged)
        items = [item for number, item in new if number > mine.merged]
        found = Merged(branch_id, len(items))
        if items and isinstance(conversations, SqlPlace):
            conversations.append_with(turn.tx, session_id, items, turn.name)
        base = _merge_state(engine, turn, other, mine, found) if kept else mine.base
        if not (found.entries or found.keys or found.conflicts):
            return found
        rows.merged(turn.tx, branch_id, last, base)
        told = {"branch": branch_id, "name": mine.name, "entries": found.entries, "keys": found.keys}
        turn.event("session.merged", component="trees", data={**told, "conflicts": found.conflicts})
        return found

    return engine.in_turn(session_id, work)


def _last(engine: Engine, session_id: str) -> int:
    """The number of the last entry of a session."""
    newest = engine.trees.place(session_id).load(session_id, limit=1, newest=True)
    return newest[0].number if newest else 0


def _new(engine: Engine, branch: rows.Branch, target: str, last: int) -> Iterator[tuple[int, Item]]:
    """New entries of a branch with their numbers, as items for its parent."""
    source = branch.session_id
    for kept in chain.from_iterable(pages(engine.trees.place(source), source, branch.merged, last)):
        body = serial.decode(kept.body)
        after = moved(engine.guard, body, source, target)
        yield kept.number, Item(kept.body if after is body else serial.encode(after), mark_of(body), kept.at)


def _merge_state(engine: Engine, turn: Turn, other: Turn, branch: rows.Branch, found: Merged) -> str:
    """Merge keyed state in the turns of both sessions; gives where the next merge begins from."""
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
    for key in result.conflicts:
        number = rows.raise_conflict(tx, turn.hot.id, other.hot.id, key, branch.base, ref)
        found.conflicts.append(number)
        data = {"conflict": number, "branch": other.hot.id, "key": key}
        turn.event("merge.conflict", component="trees", data=data)
    return ref


# -- conflicts ---------------------------------------------------------------------------------------------------------


def conflicts(engine: Engine, session_id: str, unresolved: bool) -> list[dict[str, Any]]:
    """See `Session.merge_conflicts`."""

    def read(tx: Transaction) -> list[dict[str, Any]]:
        found = [one for one in rows.conflicts(tx, session_id) if not (unresolved and one.resolved)]
        if not found:
            return []
        tenant = engine.owner_of(tx, session_id)[0]
        ours = states.values_now(engine, tx, session_id, tenant)
        refs = {ref for one in found for ref in (one.base, one.theirs)}
        sides = {ref: states.side_at(engine, tx, ref, tenant) for ref in refs}
        return [_shown(one, sides[one.base], ours, sides[one.theirs]) for one in found]

    return engine.database.read(read)


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

    def work(turn: Turn) -> Any:
        found = next((one for one in rows.conflicts(turn.tx, session_id) if one.id == conflict), None)
        if found is None or found.resolved:
            why = f"has no merge conflict {conflict!r}" if found is None else f"has resolved merge conflict {conflict}"
            raise SessionError(f"session {session_id} {why} already" if found else f"session {session_id} {why}")
        tenant = turn.hot.tenant
        base, theirs = (states.side_at(engine, turn.tx, ref, tenant) for ref in (found.base, found.theirs))
        if (base is None or theirs is None) and (choice == "theirs" or callable(choice)):
            raise SessionError(
                f"values of merge conflict {conflict} are with session {found.branch}, which is archived or deleted; "
                "restore it first, or choose ours or a value"
            )
        ours = states.values_now(engine, turn.tx, session_id, tenant).get(found.key)
        how, after = _chosen(choice, (base or {}).get(found.key), ours, (theirs or {}).get(found.key))
        if after is not ours:
            states.write(engine, turn, {found.key: after}, "merge")
        text = serial.encode({"choice": how, **said}).decode()
        rows.resolve(turn.tx, session_id, conflict, text)
        data = {"conflict": conflict, "key": found.key, "choice": how, **said}
        turn.event("merge.resolved", component="trees", data=data)
        return None if after is None else after.value

    return engine.in_turn(session_id, work)


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
