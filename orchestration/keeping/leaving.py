"""Sessions that go by their age: branches before what they branched from, and that not before all of them go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ...storage import aging, trees
from ...storage.batches import Batches
from ...storage.database import Transaction
from ..engine import Engine
from .removing import remove


@dataclass(frozen=True)
class Sessions:
    """Sessions of a status that have not changed for a while and are not pinned."""

    status: str
    rule: str
    engine: Engine
    before: float
    #: Bytes of those that went.
    gone: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As `sessions: completed`."""
        return f"sessions: {self.status}"

    @cached_property
    def ids(self) -> list[str]:
        """Those that are to go, as of the first look."""
        return [key[0] for key, _ in aging.SESSIONS[self.status](self.engine.database, before=self.before)]

    def found(self) -> tuple[int, int]:
        """What is to go: how many, and their bytes."""
        return len(self.ids), sum(map(self._size, self.ids))

    def _size(self, session_id: str) -> int:
        return self.engine.database.read(lambda tx: aging.bytes_of(tx, session_id))[0]

    def remove(self, batches: Batches) -> tuple[int, int]:
        """What `let_go` has let go."""
        return len(self.gone), sum(self.gone)

    def take(self, batches: Batches, session_id: str) -> None:
        """Let one go, if it still is what it was."""
        size = self._size(session_id)
        if remove(self.engine, batches, session_id, lambda tx: self._may_go(tx, session_id)):
            self.gone.append(size)

    def _may_go(self, tx: Transaction, session_id: str) -> bool:
        found = aging.stands(tx, session_id, self.before)
        if found is None:
            return False
        status = {"dead": "failed", "idle": "active"}.get(self.status, self.status)
        return found[0] == status and not (status == "active" and found[1])


def keep_shared(engine: Engine, kinds: Sequence[Sessions]) -> None:
    """Let those stay that have a branch which stays: it shares what they have."""
    going = {one for kind in kinds for one in kind.ids}
    if not going:
        return
    for branch, parent in engine.database.read(trees.links):
        if branch not in going:
            going.discard(parent)
    for kind in kinds:
        kind.ids[:] = [one for one in kind.ids if one in going]


def let_go(engine: Engine, kinds: Sequence[Sessions], batches: Batches) -> None:
    """Let the sessions of all kinds go, those that are furthest down in trees first."""
    whose = {one: kind for kind in kinds for one in kind.ids}
    branches = [branch for branch, _ in engine.database.read(trees.links)] if whose else []
    for one in dict.fromkeys([*(branch for branch in branches if branch in whose), *whose]):
        whose[one].take(batches, one)
