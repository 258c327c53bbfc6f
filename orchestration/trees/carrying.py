"""Bringing entries of a branch into its parent where histories live outside of the database: once, whoever is killed.

First it is noted which entries are to come, and after how many of the parent's. They are appended only if the parent
has so many. So who comes later finds them there, or knows that they never come to that place any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

from ...errors import SessionError
from ...storage import serial
from ...storage import trees as rows
from ...storage.histories.protocol import Expecting, HistoryConflict, Item, Kept
from ..guard import doors
from ..history.entries import mark_of
from ..history.pages import pages
from ..reuse import moved
from ..turn import Turn
from .notes import ENTRIES, note, noted

if TYPE_CHECKING:
    from ..engine import Engine

#: So often it is tried to append behind what others append meanwhile.
_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Due:
    """Entries of a branch that come into its parent: those with numbers over `after` up to `upto` of the branch, right
    behind the first `at` of the parent's own.
    """

    after: int
    upto: int
    at: int


def entries(engine: Engine, source: str, target: str, after: int, upto: int) -> Iterator[tuple[int, Item]]:
    """Entries of a branch with their numbers, as items for its parent."""
    for kept in _kept(engine, source, after, upto):
        body = serial.decode(kept.body)
        there = moved(engine.guard, body, source, target)
        yield kept.number, Item(kept.body if there is body else serial.encode(there), mark_of(body), kept.at)


def _kept(engine: Engine, source: str, after: int, upto: int) -> Iterator[Kept]:
    return chain.from_iterable(pages(engine.trees.place(source), source, after, upto))


def last(engine: Engine, session_id: str) -> int:
    """The number of the last entry of a session."""
    newest = engine.trees.place(session_id).load(session_id, limit=1, newest=True)
    return newest[0].number if newest else 0


def bring(engine: Engine, target: str, source: str) -> int:
    """Append what is new in a branch to its parent's history, which is outside of the database; gives up to which of
    the branch's entries they are there. What was begun before is taken up. Raises SessionError.
    """
    there, given_up = 0, None
    for _ in range(_TRIES):
        due, is_new = _due(engine, target, source, there, given_up)
        if due.after == due.upto:
            return due.upto
        try:
            _append(engine, target, source, due)
        except HistoryConflict:
            # Others have appended, maybe these very entries; if not, they cannot come to that place any more.
            if not _has_arrived(engine, target, source, due):
                given_up = due
                continue
        there = due.upto
        if is_new:
            return there
    raise SessionError(f"session {source} is not merged: the history of {target} grows again and again meanwhile")


def _due(engine: Engine, target: str, source: str, there: int, given_up: Due | None) -> tuple[Due, bool]:
    """What is to come, and whether it is noted only now. What was noted before counts, unless it is given up or is
    `there`; something is noted only once all before it is there.
    """
    newest, length = last(engine, source), engine.conversations.count(target)

    def work(turn: Turn) -> tuple[Due, bool]:
        check_open(turn, "and cannot be changed; allowed: nothing")
        check_open(engine.turn(turn.tx, source), "and cannot be merged any more")
        mine = rows.get(turn.tx, source)
        if mine is None:
            raise SessionError(f"session {source} is no branch any more")
        before = Due(*(noted(turn.tx, source, ENTRIES) or (0, 0, 0)))
        after = max(mine.merged, before.after, there)
        if before.upto > after and before != given_up:
            return before, False
        due = Due(after, max(newest, after), length)
        if due.after < due.upto:
            note(turn.tx, source, ENTRIES, [due.after, due.upto, due.at])
        return due, True

    return engine.in_turn(target, work)


def check_open(turn: Turn, what: str) -> None:
    """Raises SessionError for a session that is archived."""
    if turn.hot.status == "archived":
        raise SessionError(f"session {turn.hot.id} is archived {what}")


class _Items:
    """Entries that are to come, as often as they are asked for."""

    def __init__(self, engine: Engine, source: str, target: str, due: Due) -> None:
        self._asked = (engine, source, target, due.after, due.upto)

    def __iter__(self) -> Iterator[Item]:
        return (item for _, item in entries(*self._asked))


def _append(engine: Engine, target: str, source: str, due: Due) -> None:
    place, items = engine.conversations, _Items(engine, source, target, due)
    if isinstance(place, Expecting):
        place.append_after(target, items, due.at)
        return
    # One's own place that cannot do that: whoever is killed is found out, two who merge at the same time are not.
    if (found := place.count(target)) != due.at:
        raise HistoryConflict(f"conversation {target} was expected to have {due.at} entries but has {found}")
    place.append(target, items)


def _has_arrived(engine: Engine, target: str, source: str, due: Due) -> bool:
    """Whether the entries are where they were to come."""
    end = due.at + due.upto - due.after
    if engine.conversations.count(target) < end:
        return False
    there = chain.from_iterable(pages(engine.conversations, target, due.at, end))
    return all(
        one is not None and other is not None and _is_same(engine, one, source, other, target)
        for one, other in zip_longest(_kept(engine, source, due.after, due.upto), there)
    )


def _is_same(engine: Engine, one: Kept, source: str, other: Kept, target: str) -> bool:
    if one.at != other.at:
        return False
    return one.body == other.body or _plain(engine, one, source) == _plain(engine, other, target)


def _plain(engine: Engine, kept: Kept, session_id: str) -> Any:
    """An entry in the clear: what a rule seals is sealed in another way each time."""
    value = serial.decode(kept.body)
    return engine.guard.reveal(value, doors.place_of(session_id)) if engine.guard.seals else value
