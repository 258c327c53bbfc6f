"""The messages that pruning looks at, and how they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any, Final

from ...storage import pruning, serial
from ...storage.batches import Batches
from ...storage.database import Transaction
from ...storage.histories import reads, rows, thinning
from ...storage.histories.cold import Stored
from ..engine import Engine
from ..history.compaction import of_database
from ..history.entries import text_of
from ..history.tokens import tokens_of
from .removing import let_go
from .strategies import Choice, Given, Item, Limits, choose, limit

_MOST: Final = 1 << 62
_PAGE: Final = 200


class Messages:
    """The messages of a tenant's sessions, or of one session; sessions that are `going` are left out."""

    def __init__(self, engine: Engine, tenant: str, session: str | None, going: set[str]) -> None:
        self._engine = engine
        self._tenant = tenant
        self._session = session
        self._going = going
        if session is not None:
            of_database(engine, session)

    def limits(self, strategy: str, given: Given) -> Limits:
        """How many there are and may be."""
        settings, database = self._engine.settings, self._engine.database
        alone = self._session is not None
        count = size = 0
        if strategy in ("lru", "lfu"):
            count = self._total()
        elif strategy == "size":
            size = database.read(lambda tx: pruning.bytes_said(tx, self._tenant, self._session))
            size -= sum(database.read(partial(pruning.bytes_said, tenant="", session_id=one)) for one in self._going)
        return Limits(
            count,
            limit(given.keep, 0 if alone else settings.prune_messages),
            size,
            limit(given.max_bytes, 0 if alone else settings.prune_message_bytes),
            given.similarity or settings.prune_similarity,
        )

    def _total(self) -> int:
        database, session = self._engine.database, self._session
        if session is not None:
            return database.read(lambda tx: rows.count(tx, session))
        count = database.read(lambda tx: pruning.said(tx, self._tenant))
        return count - sum(database.read(partial(rows.count, session_id=one)) for one in self._going)

    def choose(self, strategy: str, given: Given, limits: Limits) -> list[Choice]:
        """Those that are to go, session by session, in order."""
        now = self._engine.database.read(lambda tx: tx.now())
        return sorted(choose(strategy, self._items(strategy, given), limits, now), key=lambda one: one[0].key)

    def _items(self, strategy: str, given: Given) -> Iterator[Item]:
        for session_id, type_ in self._talks():
            preserve = getattr(self._engine.settings, f"prune_preserve_{type_}")
            border = self._engine.database.read(partial(pruning.border, session_id=session_id, preserve=preserve))
            if strategy == "semantic":
                yield from self._texts(session_id, border)
            elif strategy == "ttl":
                yield from self._lives(session_id, border, given)
            else:
                yield from self._uses(session_id, border)

    def _talks(self) -> Iterator[tuple[str, str]]:
        if self._session is None:
            found = pruning.talks(self._engine.database, self._tenant)
            return (one for one in found if one[0] not in self._going)
        session_id = self._session
        type_ = self._engine.database.read(lambda tx: pruning.type_of(tx, session_id))
        return iter([(session_id, type_)] if type_ is not None else [])

    def _uses(self, session_id: str, border: int) -> Iterator[Item]:
        database = self._engine.database
        counted = database.read(partial(reads.of, session_id=session_id))
        for number, at, mark, size in pruning.messages(database, session_id, border):
            if not mark:
                uses, read_at = counted.get(number // reads.BLOCK, (0, 0.0))
                yield Item((session_id, number), max(at, read_at), uses, size)

    def _lives(self, session_id: str, border: int, given: Given) -> Iterator[Item]:
        usual = given.ttl if given.ttl is not None else self._engine.settings.prune_message_ttl
        for one, entry in self._entries(session_id, border):
            if not one.mark:
                own = (entry.get("metadata") or {}).get("ttl")
                yield Item((session_id, one.number), one.at, 0, one.size, usual if own is None else own, one.at)

    def _texts(self, session_id: str, border: int) -> Iterator[Item]:
        """The newest first: what an older one says again is not needed."""
        items = [
            Item(
                (session_id, one.number),
                one.at,
                0,
                one.size,
                text=f"{entry.get('role') or ''}\0{text_of(entry)}",
                stays=bool(one.mark) or one.number >= border,
                group=session_id,
            )
            for one, entry in self._entries(session_id, _MOST)
        ]
        return reversed(items)

    def _entries(self, session_id: str, before: int, after: int = 0) -> Iterator[tuple[Stored, dict[str, Any]]]:
        database, blobs = self._engine.database, self._engine.blobs
        while page := database.read(lambda tx: thinning.stored(tx, session_id, after, before, _PAGE)):  # noqa: B023
            for one in page:
                yield one, serial.decode(one.body if one.body is not None else blobs.get(one.blob or ""))
            after = page[-1].number

    def shown(self, session_id: str, choices: Iterable[Choice]) -> list[dict[str, Any]]:
        """Those that go of a session: {session, number, bytes, tokens, why}."""
        counter, found = tokens_of(self._engine.settings.model), []
        for item, why in choices:
            number = item.key[1]
            for one, entry in self._entries(session_id, number + 1, number - 1):
                about = {"session": session_id, "number": number, "bytes": one.size}
                found.append({**about, "tokens": counter.of(entry), "why": why})
        return found

    def remove(self, batches: Batches, session_id: str, numbers: list[int]) -> set[int]:
        """Take entries out of a session's history, if it may lose some still; gives the numbers of those that went."""
        gone, freed = set[int](), list[str]()
        for taken, blobs in batches.run(numbers, lambda tx, some: _take(tx, session_id, some)):
            gone.update(taken)
            freed += blobs
        let_go(self._engine, batches, freed)
        return gone


def _take(tx: Transaction, session_id: str, numbers: list[int]) -> tuple[list[int], list[str]]:
    rows.hold(tx, session_id)
    if pruning.type_of(tx, session_id) is None:
        return [], []
    return thinning.take_out(tx, session_id, numbers)


def by_session(choices: list[Choice]) -> Iterator[tuple[str, list[Choice]]]:
    """Choices of messages by their session."""
    for session_id, found in groupby(choices, key=lambda one: one[0].key[0]):
        yield session_id, list(found)
