"""Making branches, and what can be asked of a tree."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uuid_utils.compat import uuid7

from ...errors import SessionError, SessionNotFound
from ...storage import attached, checkpoints, listing, serial, sessions
from ...storage import trees as rows
from ...storage.database import Transaction
from ...storage.histories import rows as history
from .. import control, deleting
from ..engine import Engine
from ..guard.doors import place_of
from ..restoring import checkpoint_number
from ..reuse import moved
from ..sizes import check_text
from ..turn import Turn
from ..views import moment
from . import states, taking

#: What a branch takes on of what describes its parent.
_DOCUMENTS = ("file_paths", "preferences", "permissions", "metadata", "history")
#: The document of the session at the root that says which one is current.
TREE = "tree"


@dataclass(frozen=True)
class Wanted:
    """A branch that is to be made: `at` is the number of an entry or the id of a checkpoint; None: now."""

    name: str
    description: str
    creator: str
    at: int | str | None


def branch(engine: Engine, parent: str, wanted: Wanted, user: str | None) -> str:
    """Make a branch; gives its id. Raises SessionError, SessionNotFound, CheckpointNotFound."""
    _check_texts(wanted)
    session_id, point = str(uuid7()), _point(engine, parent, wanted.at)
    elsewhere = None if engine.conversations.capabilities.with_steps else engine.trees.place(parent).count(parent)

    def work(tx: Transaction, taken: taking.Taken) -> str:
        turn = engine.turn(tx, parent)
        above = rows.get(tx, parent)
        _check(engine, turn, above)
        offset = above.entries if above is not None else 0
        count = offset + history.length(tx, parent) if elsewhere is None else elsewhere
        cut = count if point.entry is None else point.entry
        if not 0 <= cut <= count:
            raise SessionError(f"session {parent} has no entry {cut} to branch at; it has {count}")
        guarded = _guarded(engine, session_id, wanted)
        data = {"branch": session_id, "name": guarded["name"], "entries": cut, **taken.told()}
        turn.event("session.branched", component="trees", data=data)
        state, number = _state(engine, turn, above, point.checkpoint, guarded["name"])
        turn.close()
        taking.finish(tx, parent, session_id, taken)
        if number is not None:
            checkpoints.mark(tx, parent, number, True)
        _insert(engine, turn, session_id, guarded["name"], user, cut)
        rows.add(
            tx,
            {
                **guarded,
                "session_id": session_id,
                "parent": parent,
                "root": above.root if above is not None else parent,
                "depth": above.depth + 1 if above is not None else 1,
                "entries": cut,
                "state": state,
                "thawed": None,
                "merged": cut,
                "base": state,
            },
        )
        return session_id

    def settled(tx: Transaction) -> str | None:
        return session_id if sessions.identity(tx, session_id) is not None else None

    def make(taken: taking.Taken) -> str:
        return engine.database.write(lambda tx: work(tx, taken), settled)

    return taking.with_state(engine, parent, session_id, point.checkpoint is not None, make)


def _check_texts(wanted: Wanted) -> None:
    for what, value, most in (
        ("name of a branch", wanted.name, 200),
        ("description of a branch", wanted.description, 10_000),
        ("creator of a branch", wanted.creator, 500),
    ):
        check_text(what, value, most)
    if not wanted.name.strip():
        raise SessionError("name of a branch is empty; allowed: 1 to 200 characters")
    if wanted.at is not None and (not isinstance(wanted.at, int | str) or isinstance(wanted.at, bool)):
        raise SessionError(
            f"a branch begins at {wanted.at!r:.100}; allowed: the number of an entry, or the id of a checkpoint"
        )


def _state(
    engine: Engine, turn: Turn, above: rows.Branch | None, number: int | None, name: str
) -> tuple[str, int | None]:
    """Where the state is that a branch begins with, and the checkpoint of its parent that has to stay for that."""
    parent, seq = turn.hot.id, turn.hot.checkpoint_seq
    if not states.is_kept(engine):
        return "", number
    if number is None and above is not None and above.thawed is None:
        return above.state, None
    if number is None and not turn.hot.state_changed and rows.begins(turn.tx, parent, f"{parent}:{seq}"):
        number = seq  # its state is still that of the last branch
    if number is None:
        turn.kind, turn.label = "manual", f"branch {name}"
        number = seq + 1
    return states.ref_of(above, parent, number), number


def _check(engine: Engine, turn: Turn, above: rows.Branch | None) -> None:
    hot, most = turn.hot, engine.settings.tree_depth
    if hot.status == "archived":
        raise SessionError(f"session {hot.id} is archived and cannot be changed; allowed: nothing")
    depth = above.depth + 1 if above is not None else 1
    if depth > most:
        raise SessionError(
            f"session {hot.id} is {depth - 1} branches below the root of its tree; the setting tree_depth allows {most}"
        )


def _guarded(engine: Engine, session_id: str, wanted: Wanted) -> dict[str, str]:
    place = place_of(session_id)
    texts = {"name": wanted.name, "description": wanted.description, "creator": wanted.creator}
    return {what: str(engine.guard.apply(value, place)) for what, value in texts.items()}


@dataclass(frozen=True, slots=True)
class _Point:
    """Where a branch begins: the last entry that it has, and the checkpoint whose state it has (None: as of now)."""

    entry: int | None = None
    checkpoint: int | None = None


def _point(engine: Engine, parent: str, at: int | str | None) -> _Point:
    """Where a branch is to begin. Not within a transaction: others' histories are not read in one that writes."""
    if at is None:
        return _Point()
    if isinstance(at, int) and not isinstance(at, bool):
        return _Point(at)
    number = checkpoint_number(parent, at)

    def read(tx: Transaction) -> float:
        checkpoints.state_at(tx, parent, number)
        return next(float(one["created_at"]) for one in checkpoints.listing(tx, parent) if one["number"] == number)

    made, place, last = engine.database.read(read), engine.trees.place(parent), None
    while page := place.load(parent, 1, last, limit=100, newest=True):
        for kept in reversed(page):
            if kept.at <= made:
                return _Point(kept.number, number)
        last = page[0].number - 1
    return _Point(0, number)


def _insert(engine: Engine, turn: Turn, session_id: str, name: str, user: str | None, cut: int) -> None:
    """The session of a branch: what describes it is its parent's."""
    tx, parent = turn.tx, turn.hot.id
    row = sessions.get(tx, parent)
    if row is None:
        raise SessionNotFound(f"no session {parent!r}")
    whose = row["user"] if user is None else user
    engine.quotas.admit(tx, row["tenant"], whose)
    texts = {}
    for what, text in sessions.documents(tx, parent).items():
        if what in _DOCUMENTS:
            said = moved(engine.guard, serial.decode(text), parent, session_id)
            texts[what] = serial.encode({"pruned": min(said["pruned"], cut)} if what == "history" else said).decode()
    same = {what: row[what] for what in ("query", "type", "agent", "priority", "tenant")}
    own = {"id": session_id, "key": None, "user": whose, "title": name, "pinned": 0, "plan_name": "", "fingerprint": ""}
    sessions.create(tx, {**same, **own, "correlation_id": session_id}, texts, sessions.tags(tx, parent))
    listing.index(tx, session_id, f"{row['query']}\n{name}", fresh=True)
    attached.copy(tx, parent, session_id)
    new = engine.turn(tx, session_id)
    new.event("session.created", component="sessions", data={"plan": None, "branch_of": parent})
    new.close()


# -- the tree ----------------------------------------------------------------------------------------------------------


def root_of(engine: Engine, session_id: str) -> str:
    """The session at the root of a session's tree; itself, if it is in none."""
    found = engine.database.read(lambda tx: rows.get(tx, session_id))
    return session_id if found is None else found.root


def path(engine: Engine, session_id: str) -> list[str]:
    """The ids from the root down to a session."""
    above = engine.database.read(lambda tx: rows.above(tx, session_id))
    return [session_id for session_id, _ in reversed(above)] + [session_id]


def tree(engine: Engine, session_id: str, may_read: Callable[[str], bool]) -> dict[str, Any]:
    """The whole tree of a session from its root: {id, parent, name, description, creator, status, at, entries, merged,
    current, created_at, children}. Of sessions that may not be read only the id is shown; of archived ones `entries`
    is None.
    """
    root = root_of(engine, session_id)

    def read(tx: Transaction) -> tuple[list[rows.Branch], dict[str, Any], str]:
        found = rows.of_root(tx, root)
        status = {one: sessions.status(tx, one) for one in (root, *(branch.session_id for branch in found))}
        return found, status, current_in(tx, root)

    found, status, current = engine.database.read(read)
    nodes: dict[str, dict[str, Any]] = {}
    for one in (None, *sorted(found, key=lambda branch: (branch.depth, branch.session_id))):
        own = root if one is None else one.session_id
        node: dict[str, Any] = {"id": own, "parent": None if one is None else one.parent, "children": []}
        if may_read(own):
            node |= _told(one) | {
                "status": (known := (status[own] or (None,))[0]),
                "entries": None if known == "archived" else engine.trees.place(own).count(own),
                "current": own == current,
            }
        nodes[own] = node
        if one is not None and one.parent in nodes:
            nodes[one.parent]["children"].append(node)
    return nodes[root]


def _told(one: rows.Branch | None) -> dict[str, Any]:
    if one is None:
        return {"name": None, "description": "", "creator": "", "at": 0, "merged": 0, "created_at": None}
    return {
        "name": one.name,
        "description": one.description,
        "creator": one.creator,
        "at": one.entries,
        "merged": one.merged,
        "created_at": moment(one.created_at),
    }


def current_in(tx: Transaction, root: str) -> str:
    """The current session of the tree with that root."""
    text = sessions.document(tx, root, TREE)
    found = serial.decode(text)["current"] if text else root
    return found if found == root or rows.get(tx, found) is not None else root


def switch(engine: Engine, source: str, target: str) -> None:
    """Make another session of the same tree the current one. Raises SessionError."""
    root = root_of(engine, source)
    if root_of(engine, target) != root:
        raise SessionError(f"session {target} is not in the tree of {source}; there is nothing to switch to")

    def work(turn: Turn) -> None:
        if (sessions.status(turn.tx, target) or ("",))[0] == "archived":
            raise SessionError(f"session {target} is archived; restore it before it is switched to")
        sessions.put_document(turn.tx, root, TREE, serial.encode({"current": target}).decode())
        turn.event("session.switched", component="trees", data={"from": source, "to": target})

    engine.in_turn(root, work)


def below(engine: Engine, session_id: str) -> list[str]:
    """The ids of all sessions below one, those furthest down first."""

    def read(tx: Transaction) -> list[str]:
        found: dict[str, None] = {}
        front = [session_id]
        while front:
            found |= dict.fromkeys(front)
            below = [child.session_id for one in front for child in rows.children(tx, one)]
            front = [one for one in below if one not in found]
        return list(found)[:0:-1]

    return engine.database.read(read)


def delete(engine: Engine, session_id: str, recursive: bool, may: Callable[[str], None]) -> list[str]:
    """Delete a session, with `recursive` also all below it; gives their ids. `may` raises where one may not go.

    Raises SessionError, before any is deleted, while one of them is active, and for one that has branches.
    """
    ids = [*(below(engine, session_id) if recursive else ()), session_id]
    for one in ids:
        may(one)
        hot = engine.database.read(lambda tx, one=one: sessions.look(tx, one))  # type: ignore[misc]
        if hot is not None and hot.status == "active" and (one == session_id or hot.open_steps):
            raise SessionError(f"session {one} is active; pause or cancel it before it is deleted")
    for one in ids:
        if one != session_id:
            with contextlib.suppress(SessionError, SessionNotFound):  # it has ended
                control.cancel(engine, one)  # a conversation, in which nothing runs
        deleting.delete(engine, one)
    return ids
