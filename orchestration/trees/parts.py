"""Merging a branch's keyed state into its parent's where state lives outside of the database: part by part, each of
them whole, and once, whoever is killed.

A part is written down beside the branch's state before anything is changed; the parent takes it on in one change, which
says whose it is; it is recorded in the database; then what the branch has is the new base. Who comes later finishes
what was begun.
"""

from __future__ import annotations

import heapq
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from ...errors import SessionError
from ...storage import serial, sessions
from ...storage import trees as rows
from ...storage.database import Transaction
from ...storage.states.protocol import Entry, StateConflict, Write
from ..state.copying import Plain
from ..state.places import PATIENCE_SECONDS
from .apart import BASE, NEXT, SIDE, Own, Values
from .notes import STATE, noted
from .states import ELSEWHERE
from .three_way import ABSENT, merge, same

if TYPE_CHECKING:
    from ..engine import Engine

#: Keys of a part, and the bytes of their values, about.
_MOST: Final = 1000
_BYTES: Final = 8_000_000


@dataclass(slots=True)
class Part:
    """What a branch has made of some keys since the base (`changed`; None: they went). Of them the parent takes on
    those in `taken`, if they have that version there (0: none); of those in `sides` both have made something else:
    where the base and theirs are kept. `fresh`: sides that were kept for this part.
    """

    token: str
    changed: dict[str, Plain | None]
    taken: dict[str, int] = field(default_factory=dict)
    sides: dict[str, tuple[str, str]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)


class Merging:
    """The merge of one branch's state."""

    def __init__(self, engine: Engine, session_id: str, branch_id: str) -> None:
        tenant = engine.database.read(lambda tx: engine.owner_of(tx, session_id))[0]
        self._engine = engine
        self._ours = Own(engine, session_id, tenant)
        self._theirs = Own(engine, branch_id, tenant)

    def parts(self) -> Iterator[Part]:
        """The parts, one after the other; each is to be recorded before the next one is asked for, and the end."""
        yield from self._begun_before()
        changed: list[str] = []
        weight = 0
        for keys, theirs in self._theirs.parts(self._keys()):
            new = _changed(keys, self._theirs.kept(BASE, keys), theirs)
            changed += new
            weight += sum(len(theirs.entries[key].body) for key in new if key in theirs.entries)
            if len(changed) >= _MOST or weight >= _BYTES:
                yield from self._part(changed)
                changed, weight = [], 0
        yield from self._part(changed)

    def _keys(self) -> Iterator[str]:
        both = heapq.merge(self._theirs.kept_keys(BASE), self._theirs.names())
        return (key for key, _ in groupby(both))

    def _part(self, keys: Sequence[str]) -> Iterator[Part]:
        until = time.monotonic() + PATIENCE_SECONDS
        while keys and (part := self._compared(keys)) is not None:
            try:
                self._begin(part)
            except StateConflict:  # somebody has changed one of these keys meanwhile
                self._drop(part)
                if time.monotonic() > until:
                    raise
                time.sleep(random.uniform(0, 0.05))
                continue
            yield part
            self._done(part)
            return

    def _compared(self, keys: Sequence[str]) -> Part | None:
        base, theirs, ours = self._theirs.kept(BASE, keys), self._theirs.read(keys), self._ours.read(keys)
        self._engine.database.read(self._check_there)
        keys = [key for key in _changed(keys, base, theirs) if key not in ours.unknown]
        if not keys:
            return None
        sides = ({key: side[key].value for key in keys if key in side} for side in (base, ours.plain, theirs.plain))
        result = merge(*sides)
        part = Part(secrets.token_hex(8), {key: theirs.plain.get(key) for key in keys})
        part.taken = {key: ours.version(key) for key in result.taken}
        writes = self._sides(part, result.conflicts, base)
        self._ours.put_kept(writes)
        return part

    def _check_there(self, tx: Transaction) -> None:
        """After reading: state goes after the session does, so what was read then was not the emptiness that is left.

        Raises SessionError.
        """
        for one in (self._ours.session_id, self._theirs.session_id):
            status = (sessions.status(tx, one) or ("deleted",))[0]
            if status in ("archived", "deleted"):
                raise SessionError(f"session {one} is {status} and cannot be merged any more")

    def _sides(self, part: Part, keys: Sequence[str], base: dict[str, Plain]) -> list[Write]:
        """What keeps the sides of conflicts: of one that is open already, what is theirs now."""
        if not keys:
            return []
        found = self._engine.database.read(lambda tx: rows.conflicts(tx, self._ours.session_id))
        mine = [one for one in found if one.branch == self._theirs.session_id and not one.resolved]
        known = {one.key: (one.base, one.theirs) for one in mine}
        writes = []
        for number, key in enumerate(keys):
            refs = []
            for place, side in enumerate((base.get(key), part.changed[key])):
                ref = known[key][place] if key in known else ""
                if side is not None and not (ref and (place == 0 or ref.startswith(ELSEWHERE))):
                    ref = f"{ELSEWHERE}{part.token}:{number}:{place}"
                    part.fresh.append(ref)
                elif side is None and place == 1:
                    ref = ""
                refs.append(ref)
                if side is not None and ref.startswith(ELSEWHERE) and (place == 1 or ref in part.fresh):
                    writes.append(self._ours.keep(SIDE, ref.removeprefix(ELSEWHERE), side, of=key))
            part.sides[key] = (refs[0], refs[1])
        return writes

    def _begin(self, part: Part) -> None:
        """Write down what is about to be done, and let the parent take on its share. Raises StateConflict."""
        theirs, ours = self._theirs, self._ours
        changes = [_marked(ours.write(key, part.changed[key]), part.token, at) for key, at in part.taken.items()]
        next_ = []
        for key, plain in part.changed.items():
            sides = part.sides.get(key)
            next_.append(theirs.keep(NEXT, key, plain, merge=part.token, was=part.taken.get(key), sides=sides))
        part.versions = dict(zip(part.changed, theirs.put_kept(next_), strict=True))
        if changes:
            ours.put(changes, "merge")

    def _done(self, part: Part) -> None:
        """What the branch had is the base of the next merge."""
        writes = []
        for key, plain in part.changed.items():
            writes.append(Write(BASE + key, None) if plain is None else self._theirs.keep(BASE, key, plain))
            writes.append(Write(NEXT + key, None, expected=part.versions[key]))
        self._put_or_leave(writes)

    def _drop(self, part: Part) -> None:
        """Nothing of a part was done: forget it, but for what others may have kept who merge at the same time."""
        self._put_or_leave([Write(NEXT + key, None, expected=version) for key, version in part.versions.items()])
        self._ours.put_kept([Write(SIDE + ref.removeprefix(ELSEWHERE), None) for ref in part.fresh])

    def _put_or_leave(self, writes: list[Write]) -> None:
        try:
            self._theirs.put_kept(writes)
        except StateConflict:  # another one, who merges too, has finished it
            return

    # -- what was begun before -----------------------------------------------------------------------------------------

    def _begun_before(self) -> Iterator[Part]:
        """Finish what a merge that was killed has left: recorded, it is only to be the base; taken on, it is to be
        recorded; else nothing was done.
        """
        keys = list(self._theirs.kept_keys(NEXT))
        if not keys:
            return
        branch_id = self._theirs.session_id
        recorded = self._engine.database.read(lambda tx: noted(tx, branch_id, STATE))
        for part in self._left(keys):
            if part.token != recorded:
                if not self._was_taken(part):
                    self._drop(part)
                    continue
                yield part
            self._done(part)

    def _left(self, keys: Sequence[str]) -> list[Part]:
        """The parts that were begun: one, unless several have merged at the same time."""
        entries = self._theirs.kept_entries(NEXT, keys)
        plain, found = self._theirs.kept_opened(NEXT, entries), dict[str, Part]()
        for key, entry in entries.items():
            about = serial.decode(entry.meta)
            part = found.setdefault(about["merge"], Part(about["merge"], {}))
            part.changed[key] = plain.get(key)
            part.versions[key] = entry.version
            if about["was"] is not None:
                part.taken[key] = about["was"]
            if about["sides"] is not None:
                part.sides[key] = tuple(about["sides"])
        return list(found.values())

    def _was_taken(self, part: Part) -> bool:
        """Whether the parent has taken its share on: all of it or nothing."""
        ours = self._ours.read(list(part.taken))
        if any(_mark_of(ours.entries.get(key)) == part.token for key in part.taken):
            return True
        if any(ours.version(key) == version for key, version in part.taken.items()):
            return False
        return any(part.changed[key] is None and key not in ours.entries for key in part.taken)


def _changed(keys: Sequence[str], base: dict[str, Plain], theirs: Values) -> list[str]:
    known = [key for key in keys if key not in theirs.unknown]
    return [key for key in known if not same(_value(base.get(key)), _value(theirs.plain.get(key)))]


def _value(plain: Plain | None) -> Any:
    return ABSENT if plain is None else plain.value


def _marked(write: Write, token: str, version: int) -> Write:
    """A change that replaces that version, and says of which part it is."""
    if write.body is None:
        return replace(write, expected=version)
    meta = serial.encode({**(serial.decode(write.meta) if write.meta else {}), "merge": token}).decode()
    return replace(write, meta=meta, expected=version)


def _mark_of(entry: Entry | None) -> str | None:
    found: str | None = serial.decode(entry.meta).get("merge") if entry is not None and entry.meta else None
    return found
