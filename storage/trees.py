"""Rows of branches: whose branch a session is, up to where it shares the history of the one above it, and what its
keyed state began with; and conflicts that merging has left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    bindparam,
    exists,
    func,
    insert,
    select,
    text,
    update,
)

from ..errors import StorageError
from .archives.tables import archives
from .database import Query, Transaction, now
from .tables import metadata

branches = Table(
    "branches",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("parent", Text, nullable=False),
    Column("root", Text, nullable=False),
    Column("depth", Integer, nullable=False),  # how many are above it
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("creator", Text, nullable=False),
    Column("entries", BigInteger, nullable=False),  # it shares those up to this number
    # what its keyed state began with, as SESSION:CHECKPOINT; it is there once `thawed` says after which of its own
    Column("state", Text, nullable=False),
    Column("thawed", Integer),
    Column("merged", BigInteger, nullable=False),  # up to which number its entries are in its parent
    Column("base", Text, nullable=False),  # its keyed state when it was merged last, or began
    Column("created_at", Double, nullable=False),
    Index("branches_by_parent", "parent"),
    Index("branches_by_root", "root"),
    sqlite_with_rowid=False,
)

#: What two sessions have made of one key since they parted. The values are where checkpoints have them.
merge_conflicts = Table(
    "merge_conflicts",
    metadata,
    Column("session_id", Text, primary_key=True),  # into which was merged
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("branch", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("base", Text, nullable=False),  # SESSION:CHECKPOINT
    Column("theirs", Text, nullable=False),
    Column("resolved", SmallInteger, nullable=False, server_default=text("0")),
    Column("resolution", Text),  # JSON: how, and by whom
    Column("created_at", Double, nullable=False),
    sqlite_with_rowid=False,
)

_COLUMNS: Final = (
    "session_id", "parent", "root", "depth", "name", "description", "creator", "entries", "state", "thawed", "merged",
    "base", "created_at",
)  # fmt: skip
_SEALED: Final = ("name", "description", "creator")
_b, _m = branches.c, merge_conflicts.c
_this = _b.session_id == bindparam("session")
_ALL = [_b[name] for name in _COLUMNS]
_ADD = Query(
    insert(branches).values(
        {name: bindparam(name) for name in _COLUMNS if name != "created_at"} | {"created_at": now()}
    )
)
_GET = Query(select(*_ALL).where(_this))
_CHILDREN = Query(select(*_ALL).where(_b.parent == bindparam("session")).order_by(_b.session_id))
_OF_ROOT = Query(select(*_ALL).where(_b.root == bindparam("session")).order_by(_b.session_id))
_PRESENT = Query(
    select(_b.session_id)
    .where(_b.parent == bindparam("session"), ~exists().where(archives.c.session_id == _b.session_id))
    .order_by(_b.session_id)
)
_LINKS = Query(select(_b.session_id, _b.parent, _b.depth).order_by(_b.depth.desc(), _b.session_id))
_SHARED = Query(select(func.max(_b.entries)).where(_b.parent == bindparam("session")))
_BEGINS = Query(select(_b.session_id).where(_b.parent == bindparam("session"), _b.state == bindparam("ref")).limit(1))
_UP = Query(select(_b.parent, _b.entries).where(_this))
_THAW = Query(update(branches).where(_this).values(thawed=bindparam("number")))
_MERGED = Query(update(branches).where(_this).values(merged=bindparam("upto"), base=bindparam("ref")))


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch; see the table."""

    session_id: str
    parent: str
    root: str
    depth: int
    name: str
    description: str
    creator: str
    entries: int
    state: str
    thawed: int | None
    merged: int
    base: str
    created_at: float


def _opened(tx: Transaction, row: tuple[Any, ...]) -> Branch:
    found = dict(zip(_COLUMNS, row, strict=True))
    plain = {name: tx.open(found[name], f"branches.{name}", found["session_id"]) for name in _SEALED}
    return Branch(**{**found, **plain})


def add(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Insert a branch."""
    sealed = {name: tx.seal(values[name], f"branches.{name}", values["session_id"]) for name in _SEALED}
    tx.run(_ADD, **{**values, **sealed})


def get(tx: Transaction, session_id: str) -> Branch | None:
    """A session as a branch; None if it is none."""
    row = tx.row(_GET, session=session_id)
    return _opened(tx, row) if row else None


def children(tx: Transaction, session_id: str) -> list[Branch]:
    """The branches of a session, the oldest first."""
    return [_opened(tx, row) for row in tx.rows(_CHILDREN, session=session_id)]


def of_root(tx: Transaction, root: str) -> list[Branch]:
    """All branches of a tree, by the session at its root, the oldest first."""
    return [_opened(tx, row) for row in tx.rows(_OF_ROOT, session=root)]


def present(tx: Transaction, session_id: str) -> list[str]:
    """The ids of the branches of a session that are in no archive, the oldest first."""
    return [row[0] for row in tx.rows(_PRESENT, session=session_id)]


def links(tx: Transaction) -> list[tuple[str, str]]:
    """(id, parent) of all branches of all trees, those furthest down first."""
    return [(row[0], row[1]) for row in tx.rows(_LINKS)]


def shared(tx: Transaction, session_id: str) -> int:
    """Up to which number entries of a session's history, with those that it shares itself, are shared by its branches;
    0: none are. They must not go.
    """
    return int(tx.value(_SHARED, session=session_id) or 0)


def above(tx: Transaction, session_id: str) -> list[tuple[str, int]]:
    """(id, entries that are shared with the one below) of the sessions above a branch, the next one first.

    Raises StorageError where one is its own ancestor.
    """
    found: list[tuple[str, int]] = []
    seen, at = {session_id}, session_id
    while (row := tx.row(_UP, session=at)) is not None:
        at = row[0]
        if at in seen:
            raise StorageError(f"the tree of session {session_id} is damaged: {at} is its own ancestor")
        seen.add(at)
        found.append((at, int(row[1])))
    return found


def begins(tx: Transaction, session_id: str, state: str) -> bool:
    """Whether a branch of a session begins with that state."""
    return tx.row(_BEGINS, session=session_id, ref=state) is not None


def thaw(tx: Transaction, session_id: str, number: int) -> None:
    """Note that a branch has its keyed state since after its checkpoint of that number."""
    tx.run(_THAW, session=session_id, number=number)


def merged(tx: Transaction, session_id: str, upto: int, base: str) -> None:
    """Note up to where a branch is merged into its parent."""
    tx.run(_MERGED, session=session_id, upto=upto, ref=base)


# -- conflicts ---------------------------------------------------------------------------------------------------------

_RESOLUTION: Final = "merge_conflicts.resolution"
_OF_CONFLICT: Final = ("id", "branch", "key", "base", "theirs", "resolved", "resolution", "created_at")
_FOUND = [_m[name] for name in _OF_CONFLICT]
_target = _m.session_id == bindparam("session")
_CONFLICTS = Query(select(*_FOUND).where(_target).order_by(_m.id))
_LAST = Query(select(func.coalesce(func.max(_m.id), 0)).where(_target))
_RAISE = Query(
    insert(merge_conflicts).values(
        {name: bindparam(name) for name in ("session_id", "id", "branch", "key", "base", "theirs")}
        | {"created_at": now()}
    )
)
_RENEW = Query(
    update(merge_conflicts)
    .where(_target, _m.branch == bindparam("of"), _m.key == bindparam("named"), _m.resolved == 0)
    .values(theirs=bindparam("ref"))
    .returning(_m.id)
)
_RESOLVE = Query(
    update(merge_conflicts)
    .where(_target, _m.id == bindparam("which"), _m.resolved == 0)
    .values(resolved=1, resolution=bindparam("text"))
)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict that a merge has left; see the table."""

    id: int
    branch: str
    key: str
    base: str
    theirs: str
    resolved: int
    resolution: str | None
    created_at: float


def conflicts(tx: Transaction, session_id: str) -> list[Conflict]:
    """The conflicts that merges into a session have left, in the order in which they came."""
    found = [Conflict(*row) for row in tx.rows(_CONFLICTS, session=session_id)]
    return [replace(one, resolution=tx.open(one.resolution, _RESOLUTION, session_id, one.id)) for one in found]


def raise_conflict(tx: Transaction, session_id: str, branch: str, key: str, base: str, theirs: str) -> int:
    """Note a conflict, or what is theirs now in the one that is open; gives its id."""
    open_ = tx.row(_RENEW, session=session_id, of=branch, named=key, ref=theirs)
    if open_ is not None:
        return int(open_[0])
    number = int(tx.value(_LAST, session=session_id)) + 1
    where = {"session_id": session_id, "id": number, "branch": branch, "key": key}
    tx.run(_RAISE, **where, base=base, theirs=theirs)
    return number


def resolve(tx: Transaction, session_id: str, number: int, resolution: str) -> bool:
    """Mark a conflict as resolved (`resolution` is JSON); False if there is none open with that id."""
    sealed = tx.seal(resolution, _RESOLUTION, session_id, number)
    return tx.run(_RESOLVE, session=session_id, which=number, text=sealed) == 1
