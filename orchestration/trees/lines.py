"""The line of a branch: whose histories it shares, up to which entries. It never changes, so it is kept at hand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ...storage import trees as rows
from ...storage.archives import tables as archives
from ...storage.database import Transaction
from ...storage.histories.protocol import Capabilities, HistoryError, Item, Kept, Place
from ...storage.histories.sql import SqlPlace
from . import states

if TYPE_CHECKING:
    from ..engine import Engine

T = TypeVar("T")

_MOST_KNOWN: Final = 10_000


class Part(NamedTuple):
    """Entries of one session in the history of a branch: number n there is n + `offset` here, up to `last` here (None:
    to the end).
    """

    session_id: str
    offset: int
    last: int | None


class Trees:
    """What a process knows of branches. Safe in threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lines: OrderedDict[str, tuple[Part, ...]] = OrderedDict()
        self._awake: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def place(self, session_id: str) -> Place:
        """Where the history of a session is, as numbers of that session have it."""
        line = self.line(session_id)
        return Shared(self._engine.conversations, line, self._is_away) if line else self._engine.conversations

    def _is_away(self, session_id: str) -> bool:
        return self._engine.database.read(lambda tx: archives.get(tx, session_id)) is not None

    def line(self, session_id: str) -> tuple[Part, ...]:
        """The parts of a branch's history, from the root on; none of a session that is no branch."""
        known = self._lines.get(session_id)
        if known is None:
            known = self._engine.database.read(lambda tx: line_of(tx, session_id))
            with self._lock:
                _keep(self._lines, session_id, known)
        return known

    def awaken(self, prefix: str, scope: str) -> None:
        """See to it that a session's own keyed state is there: that of a branch lies with its parent until it is used
        for the first time. Not inside a transaction.
        """
        session_id = scope.partition(":")[2]
        if session_id not in self._awake and states.thaw(self._engine, session_id, prefix):
            with self._lock:
                _keep(self._awake, session_id, True)


def _keep(known: OrderedDict[str, T], key: str, value: T) -> None:
    known[key] = value
    if len(known) > _MOST_KNOWN:
        known.popitem(last=False)


def line_of(tx: Transaction, session_id: str) -> tuple[Part, ...]:
    """See `Trees.line`."""
    above = rows.above(tx, session_id)
    if not above:
        return ()
    limit = above[0][1]
    parts = [Part(session_id, limit, None)]
    for place, (one, entries) in enumerate(above):
        offset = above[place + 1][1] if place + 1 < len(above) else 0
        limit = min(limit, entries)
        if offset < limit:
            parts.append(Part(one, offset, limit))
    return tuple(reversed(parts))


class Shared:
    """The history of a branch: what it shares, then its own. Wherever histories live, nothing of it is copied.

    `is_away` says of a session whether it is in an archive: as any other that is, a branch then has no entries here.
    """

    def __init__(self, place: Place, line: Sequence[Part], is_away: Callable[[str], bool]) -> None:
        self._place = place
        self._line = line
        self._own = line[-1]
        self._is_away = is_away

    @property
    def capabilities(self) -> Capabilities:
        return self._place.capabilities

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        first, last = self._place.append(conversation, items)
        return first + self._own.offset, last + self._own.offset

    def load(
        self,
        conversation: str,
        first: int = 1,
        last: int | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        mark: int | None = None,
    ) -> list[Kept]:
        # Asked after reading: then nothing was put away before all was read.
        try:
            found = self._joined(first, last, limit, newest, mark)
        except HistoryError:
            if self._is_away(self._own.session_id):
                return []
            raise
        return [] if self._is_away(self._own.session_id) else found

    def _joined(self, first: int, last: int | None, limit: int | None, newest: bool, mark: int | None) -> list[Kept]:
        found: list[Kept] = []
        for part in reversed(self._line) if newest else self._line:
            left = None if limit is None else limit - len(found)
            if left is not None and left <= 0:
                break
            kept = self._load(part, first, last, left, newest, mark)
            found = kept + found if newest else found + kept
        return found

    def _load(
        self, part: Part, first: int, last: int | None, limit: int | None, newest: bool, mark: int | None
    ) -> list[Kept]:
        low = max(first, part.offset + 1)
        high = last if part.last is None else part.last if last is None else min(last, part.last)
        if high is not None and high < low:
            return []
        top = None if high is None else high - part.offset
        place = self._of(part)
        kept = place.load(part.session_id, low - part.offset, top, limit=limit, newest=newest, mark=mark)
        if part.last is not None and high is not None and mark is None:
            wanted = high - low + 1 if limit is None else min(limit, high - low + 1)
            if len(kept) < wanted and not _has_gaps(place, part):
                raise HistoryError(
                    f"the history of {self._own.session_id} shares entries of {part.session_id}, of which some are gone"
                )
        return [Kept(number + part.offset, at, body) for number, at, body in kept]

    def _of(self, part: Part) -> Place:
        """Where a part is."""
        return self._place

    def count(self, conversation: str) -> int:
        count = self._own.offset + self._place.count(conversation)
        return 0 if self._is_away(self._own.session_id) else count

    def delete(self, conversation: str, expected: int | None = None) -> int:
        """Delete what is the branch's own."""
        return self._place.delete(conversation, None if expected is None else expected - self._own.offset)

    def conversations(self) -> Iterator[str]:
        return self._place.conversations()

    def close(self) -> None:
        """The place is the engine's."""


def _has_gaps(place: Place, part: Part) -> bool:
    return isinstance(place, SqlPlace) and place.gaps(part.session_id) > 0
