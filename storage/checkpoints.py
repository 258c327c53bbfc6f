"""Checkpoints: a full one now and then, and after it only what changed. Cost and size follow the change.

A checkpoint's state is `State`: how the session stands, all steps with inputs and edges, the agents' states and the
keyed state of the session's own scope; results and other blobs are referred to, being immutable. A change (`Change`) is
a small msgpack document; the state at a checkpoint is its base with the changes up to it applied. Each row carries a
digest over its place and its body, so that a damaged, swapped or missing row is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import and_, bindparam, delete, exists, func, insert, select, update

from ..errors import CheckpointDamaged, CheckpointNotFound, KeyMissing, SealBroken
from . import agent_parts, bulk, deltas, session_state
from .database import Query, Transaction, now
from .keys.codec import Codec, plain_checksum
from .keys.sealing import is_sealed
from .sessions import Hot
from .tables import checkpoint_blobs, checkpoints

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode
_c = checkpoints.c
BODY: Final = "checkpoints.body"
LABEL: Final = "checkpoints.label"

#: Positions in a step's kept row (`bulk.KEPT`) of what a step's end changes.
_ENDS = ("status", "result_epoch", "attempts", "failures", "error", "doomed")
_PLACES = tuple(bulk.KEPT.index(name) for name in _ENDS)


@dataclass(slots=True)
class Change:
    """What one turn changed.

    `ended` is {step number: values of `_ENDS`}, `added` new rows, inputs and edges, `opened` numbers of groups whose
    members were added, `agents` deltas, whole texts, or an empty one for what is gone, `values` the keyed state that
    changed, None for what is gone: it makes no checkpoint by itself.
    """

    ended: dict[int, list[Any]] = field(default_factory=dict)
    added: list[list[list[Any]]] = field(default_factory=lambda: [[], [], []])
    opened: list[int] = field(default_factory=list)
    agents: dict[str, bytes | str] = field(default_factory=dict)
    values: dict[str, session_state.Value | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.ended or self.opened or self.agents or any(self.added))


@dataclass(slots=True)
class State:
    """A session's whole restorable state.

    `session` is [status, phase, error]; rows are as `bulk.rows` gives them, `agents` as `agent_parts.all_of` does,
    `values` as `session_state.all_of` does: None where an older Celeriac wrote the checkpoint, which kept none.
    """

    session: list[Any]
    steps: dict[int, list[Any]]
    inputs: dict[int, str]
    edges: list[list[int]]
    agents: dict[str, str]
    values: dict[str, session_state.Value] | None

    def apply(self, change: list[Any]) -> None:
        """Bring the state one checkpoint further."""
        self.session, ended, added, opened, agents, *more = change
        for row in added[0]:
            self.steps[row[0]] = row
        self.inputs.update(dict(added[1]))
        self.edges.extend(added[2])
        for number in opened:
            self.steps[number][bulk.KEPT.index("status")] = "waiting"
        for number, values in ended.items():
            for place, value in zip(_PLACES, values, strict=True):
                self.steps[number][place] = value
        for agent, body in agents.items():
            known = self.agents.pop(agent, "").encode()
            if body:  # else it is gone
                self.agents[agent] = body if isinstance(body, str) else deltas.apply(known, body).decode()
        if self.values is not None:
            for values in more:
                session_state.apply(self.values, values)

    def shown(self) -> dict[str, Any]:
        """The state for people: steps by name, agents' states as JSON values."""
        keys = ("agent", "status", "attempts", "failures", "error", "result_epoch")
        rows = [dict(zip(bulk.KEPT, row, strict=True)) for row in self.steps.values()]
        return {
            "session": dict(zip(("status", "phase", "error"), self.session, strict=True)),
            "steps": {row["name"]: {key: row[key] for key in keys} for row in rows},
            "agents": agent_parts.shown(self.agents),
            "state": session_state.shown(self.values or {}),
        }

    def packed(self) -> bytes:
        """The state as the body of a full checkpoint."""
        return deltas.snapshot(_pack(self._listed()))

    def _listed(self) -> list[Any]:
        listed = [self.session, list(self.steps.values()), self.inputs, self.edges, self.agents]
        return listed if self.values is None else [*listed, self.values]

    @classmethod
    def unpacked(cls, body: bytes) -> State:
        """The inverse of `packed`; raises CheckpointDamaged."""
        session, rows, inputs, links, agents, *more = _unpack(deltas.restore(body))
        values = {key: session_state.Value(*row) for key, row in more[0].items()} if more else None
        return cls(session, {row[0]: row for row in rows}, inputs, links, agents, values)


def read_state(tx: Transaction, hot: Hot) -> State:
    """The state of a locked session as its tables have it now."""
    rows, inputs, links = bulk.rows(tx, hot.id)
    agents = agent_parts.all_of(tx, hot.id)
    values = session_state.all_of(tx, hot.id, hot.tenant)
    return State(_standing(hot), {row[0]: row for row in rows}, dict(inputs), links, agents, values)


def _standing(hot: Hot) -> list[Any]:
    return [hot.status, hot.phase, hot.error]


def digest_of(codec: Codec | None, session_id: str, number: int, base: int, body: bytes) -> bytes:
    """The digest of a checkpoint, over its plain body: keyed by the codec of one that is sealed."""
    whole = b"%b|%d|%d|%b" % (session_id.encode(), number, base, body)
    return plain_checksum(whole) if codec is None else codec.checksum(whole)


def _as_kept(tx: Transaction, session_id: str, number: int, base: int, body: bytes) -> tuple[bytes, bytes]:
    """Body and digest as the row of a checkpoint has them."""
    codec = tx.codec if tx.seals else None
    return tx.seal_bytes(body, BODY, session_id, number), digest_of(codec, session_id, number, base, body)


def _plain(tx: Transaction, session_id: str, number: int, base: int, kept: bytes, digest: bytes) -> bytes:
    """The plain body of a checkpoint. Raises CheckpointDamaged; SealBroken and KeyMissing for a sealed one."""
    body = tx.open_bytes(kept, BODY, session_id, number)
    if digest_of(tx.codec if is_sealed(kept) else None, session_id, number, base, body) != digest:
        raise CheckpointDamaged(f"checkpoint {number} of session {session_id} does not match its checksum")
    return body


_INSERT = Query(
    insert(checkpoints).values(
        {c: bindparam(c) for c in ("session_id", "number", "kind", "label", "seq", "base", "body", "digest")}
        | {"created_at": now()}
    )
)


def _listed(hot: Hot, change: Change) -> list[Any]:
    listed = [_standing(hot), change.ended, change.added, change.opened, change.agents]
    return [*listed, session_state.told(change.values)] if change.values else listed


def append(tx: Transaction, hot: Hot, kind: str, label: str, change: Change) -> None:
    """Write checkpoint `hot.checkpoint_seq` of a locked session: the change, or the whole state where there is no
    base.
    """
    number = hot.checkpoint_seq
    if hot.state_changed:
        change.values = session_state.changed(tx, hot.id, hot.tenant)
        hot.state_changed = False
    if hot.checkpoint_base:
        session_state.refer(tx, hot.id, number, change.values)
        body = _pack(_listed(hot, change))
        _insert(tx, hot, number, kind, label, hot.checkpoint_base, body)
    else:
        hot.checkpoint_base = number
        if number == 1 and len(change.added[0]) == hot.total_steps:  # all that there is was added just now
            state = State([], {}, {}, [], {}, {})
            state.apply(_listed(hot, change))
        else:
            state = read_state(tx, hot)
        write_full(tx, hot, number, kind, label, state)


def write_full(tx: Transaction, hot: Hot, number: int, kind: str, label: str, state: State) -> None:
    """Write a checkpoint that holds the whole state and stands on its own."""
    session_state.refer(tx, hot.id, number, state.values or {})
    _insert(tx, hot, number, kind, label, number, state.packed())


def _insert(tx: Transaction, hot: Hot, number: int, kind: str, label: str, base: int, body: bytes) -> None:
    kept, digest = _as_kept(tx, hot.id, number, base, body)
    label = tx.seal(label, LABEL, hot.id, number)
    values = {"session_id": hot.id, "number": number, "kind": kind, "label": label, "seq": hot.event_seq}
    tx.later(_INSERT, [{**values, "base": base, "body": kept, "digest": digest}])


_LISTED = ("number", "kind", "label", "seq", "base", "marked", "created_at")
_LIST = Query(
    select(*(_c[name] for name in _LISTED), func.length(_c.body))
    .where(_c.session_id == bindparam("session"))
    .order_by(_c.number)
)
_BASE = Query(select(_c.base).where(_c.session_id == bindparam("session"), _c.number == bindparam("wanted")))
_CHAIN = Query(
    select(_c.number, _c.base, _c.body, _c.digest)
    .where(_c.session_id == bindparam("session"), _c.number.between(bindparam("first"), bindparam("last")))
    .order_by(_c.number)
)


def listing(tx: Transaction, session_id: str) -> list[dict[str, Any]]:
    """A session's checkpoints, oldest first, with `size` in bytes."""
    found = [dict(zip((*_LISTED, "size"), row, strict=True)) for row in tx.rows(_LIST, session=session_id)]
    for one in found:
        one["label"] = tx.open(one["label"], LABEL, session_id, one["number"])
    return found


def state_at(tx: Transaction, session_id: str, number: int) -> State:
    """The state at a checkpoint. Raises CheckpointNotFound, or CheckpointDamaged naming what does not match."""
    base = tx.value(_BASE, session=session_id, wanted=number)
    if base is None:
        known = ", ".join(str(c["number"]) for c in listing(tx, session_id)) or "none"
        raise CheckpointNotFound(f"session {session_id} has no checkpoint {number}; it has: {known}")
    chain = tx.rows(_CHAIN, session=session_id, first=base, last=number)
    if [row[0] for row in chain] != list(range(base, number + 1)):
        raise CheckpointDamaged(
            f"checkpoint {number} of session {session_id}: a checkpoint between {base} and {number} is missing"
        )
    bodies = []
    for own, own_base, body, digest in chain:
        if own_base != base:
            raise CheckpointDamaged(f"checkpoint {own} of session {session_id} does not match its checksum")
        bodies.append(_plain(tx, session_id, own, base, bytes(body), bytes(digest)))
    state = State.unpacked(bodies[0])
    for body in bodies[1:]:
        state.apply(_unpack(body))
    return state


_EVERY = Query(
    select(_c.number, _c.base, _c.body, _c.digest).where(_c.session_id == bindparam("session")).order_by(_c.number)
)


def states(tx: Transaction, session_id: str) -> Iterator[tuple[int, State]]:
    """All checkpoints of a session with their states, in order. Raises CheckpointDamaged, SealBroken, KeyMissing."""
    base, last, whole = 0, 0, b""
    changes: list[bytes] = []
    for number, own_base, kept, digest in tx.rows(_EVERY, session=session_id):
        body = _plain(tx, session_id, number, own_base, bytes(kept), bytes(digest))
        if own_base == number:
            base, whole, changes = number, body, []
        elif own_base != base or number != last + 1:
            raise CheckpointDamaged(f"checkpoint {number} of session {session_id}: one before it is missing")
        else:
            changes.append(body)
        last = number
        state = State.unpacked(whole)
        for change in changes:
            state.apply(_unpack(change))
        yield number, state


def replace(tx: Transaction, session_id: str, number: int, state: State) -> None:
    """Write a checkpoint anew, as one that stands on its own."""
    session_state.forget(tx, session_id, [number])
    tx.many(_REBASE, _rebased(tx, session_id, [(number, number, state)]))


_MARK = Query(
    update(checkpoints)
    .where(_c.session_id == bindparam("session"), _c.number == bindparam("wanted"))
    .values(marked=bindparam("on"))
)
_REFERS = exists().where(checkpoint_blobs.c.session_id == bindparam("session"))
_KEPT = Query(
    select(_c.number, _c.kind, _c.base, _c.marked, _c.created_at, _REFERS)
    .where(_c.session_id == bindparam("session"))
    .order_by(_c.number)
)
_DROP = Query(delete(checkpoints).where(_c.session_id == bindparam("session"), _c.number == bindparam("wanted")))
_REBASE = Query(
    update(checkpoints)
    .where(and_(_c.session_id == bindparam("session"), _c.number == bindparam("wanted")))
    .values(base=bindparam("own"), body=bindparam("full"), digest=bindparam("sum"))
)


def mark(tx: Transaction, session_id: str, number: int, marked: bool) -> bool:
    """Mark a checkpoint to be kept for good (or no longer); False if there is none of that number."""
    return tx.run(_MARK, session=session_id, wanted=number, on=int(marked)) == 1


def surplus(rows: Sequence[tuple[int, str, int, float]], keep: int, before: float = 0.0) -> list[int]:
    """Of a session's checkpoints as (number, kind, marked, created at), in order, the numbers of those that can go: all
    but the last `keep` of them, and those made before a time. Final, manual and marked ones stay, and the last.
    """
    newest = {row[0] for row in rows[-keep:]}
    last = rows[-1][0] if rows else 0
    return [
        number
        for number, kind, marked, at in rows
        if not (marked or kind in ("final", "manual") or number == last or (number in newest and at >= before))
    ]


_COUNT = Query(select(func.count()).where(_c.session_id == bindparam("session")))
_PRUNABLE = Query(
    select(_c.session_id)
    .where(_c.session_id > bindparam("after"), _c.marked == 0, _c.kind != "final", _c.kind != "manual")
    .group_by(_c.session_id)
    .having(func.count() > bindparam("keep"))
    .order_by(_c.session_id)
    .limit(bindparam("most"))
)


def count(tx: Transaction, session_id: str) -> int:
    """How many checkpoints a session has."""
    return int(tx.value(_COUNT, session=session_id))


def prunable(tx: Transaction, keep: int, after: str, most: int) -> list[str]:
    """Ids after `after`, in order, of sessions that have over `keep` checkpoints which pruning may delete."""
    return [row[0] for row in tx.rows(_PRUNABLE, keep=keep, after=after, most=most)]


def prune(tx: Transaction, hot: Hot, keep: int, before: float = 0.0, most: int | None = None) -> list[str]:
    """Delete `surplus` checkpoints of a locked session, the oldest first, at most so many. Gives the blobs that those
    which went referred to: they may have to go as well.

    A kept checkpoint whose predecessor goes is made a full one first: no chain ever leads through a missing row.
    """
    rows = tx.rows(_KEPT, session=hot.id)
    going = set(surplus([(number, kind, marked, at) for number, kind, _, marked, at, _ in rows], keep, before)[:most])
    if not going:
        return []
    stays = [row[0] not in going for row in rows]
    try:
        full = {
            row[0]: state_at(tx, hot.id, row[0])
            for stayed, row, stay in zip([True, *stays], rows, stays, strict=False)
            if stay and not stayed
        }
    except (CheckpointDamaged, SealBroken, KeyMissing):
        return []  # what is left of a damaged chain stays as it is: no step may fail because of it
    gone = [row[0] for row, stay in zip(rows, stays, strict=True) if not stay]
    freed = session_state.forget(tx, hot.id, [*gone, *full]) if rows[0][-1] else []
    base, anew = 0, list[tuple[int, int, State | None]]()
    for number, _, old_base, *_ in (row for row, stay in zip(rows, stays, strict=True) if stay):
        base = number if number in full or old_base == number else base
        if number in full or base != old_base:
            anew.append((number, base, full.get(number)))
    values = _rebased(tx, hot.id, anew)
    tx.later(_DROP, [{"session": hot.id, "wanted": number} for number in gone])
    tx.later(_REBASE, values)
    hot.checkpoint_base = base
    return freed


def _rebased(tx: Transaction, session_id: str, anew: Sequence[tuple[int, int, State | None]]) -> list[dict[str, Any]]:
    """Values of checkpoints as (number, base, state) that are to have another base; a state for one of its own."""
    changes = [number for number, _, full in anew if full is None]
    there: dict[int, Sequence[Any]] = {}
    if changes:
        there = {row[0]: row for row in tx.rows(_CHAIN, session=session_id, first=changes[0], last=changes[-1])}
    found = []
    for number, base, full in anew:
        if full is not None:
            session_state.refer(tx, session_id, number, full.values or {})
            kept, digest = _as_kept(tx, session_id, number, base, full.packed())
        else:
            _, old_base, kept, digest = there[number]
            # one that is damaged stays so: its digest is of another base
            with contextlib.suppress(CheckpointDamaged, SealBroken, KeyMissing):
                body = _plain(tx, session_id, number, old_base, bytes(kept), bytes(digest))
                kept, digest = _as_kept(tx, session_id, number, base, body)
        found.append({"session": session_id, "wanted": number, "own": base, "full": kept, "sum": digest})
    return found


_NUMBERS = Query(select(_c.number).where(_c.session_id == bindparam("session")).order_by(_c.number))


def numbers(tx: Transaction, session_id: str) -> list[int]:
    """The numbers of a session's checkpoints, in order."""
    return [row[0] for row in tx.rows(_NUMBERS, session=session_id)]
