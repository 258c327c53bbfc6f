"""The histories of all sessions: listing them, and moving them from one place to another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from uuid import uuid4

from ...config.urls import masked
from ...errors import SessionNotFound
from ...storage import serial
from ...storage.histories.opening import open_place
from ...storage.histories.protocol import HistoryConflict, HistoryError, Item, Kept, Place
from ...storage.histories.sql import SqlPlace
from ..engine import Engine
from ..guard.access import Caller
from ..sizes import check_id
from .entries import mark_of
from .pages import pages


class Histories:
    """What is said in all sessions, at the place that the setting `history_url` names, as far as the caller may see."""

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine = engine
        self._caller = caller

    def list(self) -> Iterator[tuple[str, int]]:
        """(session id, entries) of the sessions in which something was said, in order; those that a branch shares are
        counted as well.
        """
        place, trees = self._engine.conversations, self._engine.trees
        return ((name, trees.place(name).count(name)) for name in place.conversations() if self._may_read(name))

    def _may_read(self, session_id: str) -> bool:
        access = self._engine.access
        try:
            owner = access.owner_of(self._caller, session_id)
        except SessionNotFound:  # of another tenant, or without a session
            return False
        return access.allows(self._caller, "read", f"session:{session_id}", owner=owner)

    def move(self, session_id: str, to: str) -> int:
        """Move what was said in a session from where it lives to the place of another URL (empty: the database of the
        sessions); gives how many entries.

        It is deleted here only once all of it, also what was appended meanwhile, was read back from there. A move that
        was broken off goes on where it was. Raises HistoryError where something else is there already, and for a place
        that keeps nothing.
        """
        engine = self._engine
        if not isinstance(to, str):
            raise HistoryError(f"histories cannot be moved to {to!r:.100}; allowed: a URL, or '' for the database")
        check_id(session_id)
        owner = engine.access.owner_of(self._caller, session_id)
        engine.access.require(self._caller, "admin", f"session:{session_id}", owner=owner)
        if to == engine.settings.history_url:
            raise _there_already(to)
        target = open_place(to, engine.database, engine.blobs, engine.settings.inline_result_bytes)
        if not target.capabilities.durable:
            raise HistoryError(f"{masked(to)} keeps nothing when this process ends; name a durable place")
        try:
            if is_same_place(engine.conversations, target):
                raise _there_already(to)
            return move(engine.conversations, target, session_id)
        finally:
            target.close()


def _there_already(url: str) -> HistoryError:
    return HistoryError(f"histories live at {masked(url) or 'the database of the sessions'} already")


def is_same_place(one: Place, other: Place) -> bool:
    """Whether what is written to one place is read from the other: a folder and a server have many names."""
    if isinstance(one, SqlPlace) or isinstance(other, SqlPlace):
        return isinstance(one, SqlPlace) and isinstance(other, SqlPlace)
    name = f"probe-{uuid4().hex}"
    other.append(name, [Item(b'{"role":"probe"}')])
    try:
        return one.count(name) > 0
    finally:
        other.delete(name)


def move(source: Place, target: Place, name: str) -> int:
    """Move a conversation; see `Histories.move`."""
    for place in (source, target):
        if isinstance(place, SqlPlace) and (gaps := place.gaps(name)):
            raise HistoryError(
                f"history of {name} is not moved: {gaps:,} of its entries were put away or pruned, and its numbers "
                "would change; put them back first (celeriac history uncompact), if they are only put away"
            )
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
