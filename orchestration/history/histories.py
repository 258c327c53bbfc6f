"""The histories of all sessions: listing them, and moving them from one place to another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ...storage import serial
from ...storage.histories.opening import open_place
from ...storage.histories.protocol import HistoryConflict, HistoryError, Item, Kept, Place
from ..engine import Engine
from .entries import mark_of
from .pages import pages


class Histories:
    """What is said in all sessions, at the place that the setting `history_url` names."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self) -> Iterator[tuple[str, int]]:
        """(session id, entries) of all sessions in which something was said, in order."""
        place = self._engine.conversations
        return ((name, place.count(name)) for name in place.conversations())

    def place(self, url: str) -> Place:
        """Another place. Raises SettingsError for a URL that none is known for."""
        engine = self._engine
        return open_place(url, engine.database, engine.blobs, engine.settings.inline_result_bytes)

    def move(self, session_id: str, to: str) -> int:
        """Move what was said in a session from where it lives to the place of another URL (empty: the database of the
        sessions); gives how many entries.

        It is deleted here only once all of it, also what was appended meanwhile, was read back from there. A move that
        was broken off goes on where it was. Raises HistoryError where something else is there already.
        """
        target = self.place(to)
        try:
            return move(self._engine.conversations, target, session_id)
        finally:
            target.close()


def move(source: Place, target: Place, name: str) -> int:
    """Move a conversation; see `Histories.move`."""
    there, sure = target.count(name), 0
    while True:
        here = source.count(name)
        if there > here:
            raise _other(name, f"{there:,} entries, of {here:,}")
        _compare(source, target, name, sure, there)
        if there < here:
            first, last = target.append(name, _Copied(source, name, there, here))
            if (first, last) != (there + 1, here):
                raise _other(name, "entries of somebody else, who writes there")
            _compare(source, target, name, there, here)
        there = sure = here
        try:
            return source.delete(name, expected=here)
        except HistoryConflict:  # it has grown meanwhile
            continue


def _compare(source: Place, target: Place, name: str, after: int, last: int) -> None:
    """Raises HistoryError unless both hold the same entries from `after` to `last`."""
    if after == last:
        return
    found = chain.from_iterable(pages(target, name, after, last))
    for kept in chain.from_iterable(pages(source, name, after, last)):
        other = next(found, None)
        if other is None or not _is_same(kept, other):
            raise _other(name, f"another entry {kept.number}")


def _is_same(one: Kept, other: Kept) -> bool:
    if (one.number, one.at) != (other.number, other.at):
        return False
    return one.body == other.body or serial.decode(one.body) == serial.decode(other.body)


def _other(name: str, what: str) -> HistoryError:
    return HistoryError(f"history of {name} is not moved: the place to move it to has {what}; nothing was deleted")


class _Copied:
    """Entries of a place as items for another one, as often as they are asked for."""

    def __init__(self, source: Place, name: str, after: int, last: int) -> None:
        self._asked = (source, name, after, last)

    def __iter__(self) -> Iterator[Item]:
        for kept in chain.from_iterable(pages(*self._asked)):
            yield Item(kept.body, mark_of(serial.decode(kept.body)), kept.at)
