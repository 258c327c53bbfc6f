"""The kinds of things that retention looks after: what of each is to go, and how it goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol

from ...errors import BlobNotFound
from ...storage import aging, checkpoints, results, sessions
from ...storage.aging import Found
from ...storage.batches import Batches
from ...storage.cache import entries
from ...storage.database import Transaction
from ..engine import Engine
from .removing import let_go

#: How many there are, and their bytes.
Sum = tuple[int, int]
_CHUNK: Final = 200


class Kind(Protocol):
    """Things of a kind, and the rule by which some of them go."""

    @property
    def name(self) -> str: ...

    @property
    def rule(self) -> str: ...

    def found(self) -> Sum:
        """What is to go."""

    def remove(self, batches: Batches) -> Sum:
        """Let it go; gives what went."""


@dataclass(frozen=True)
class Kept:
    """A kind of which nothing goes."""

    name: str
    rule: str

    def found(self) -> Sum:
        """Nothing."""
        return 0, 0

    def remove(self, batches: Batches) -> Sum:
        """Do nothing."""
        return 0, 0


@dataclass(frozen=True)
class Rows:
    """Rows that are found one by one, and go some at a time. `take` gives those of the keys that it has deleted."""

    name: str
    rule: str
    candidates: Callable[[], Iterator[Found]]
    take: Callable[[Transaction, list[Any]], list[Any]]
    engine: Engine
    freed: list[str] = field(default_factory=list)

    def found(self) -> Sum:
        """What is to go."""
        count = size = 0
        for _, bytes_ in self.candidates():
            count += 1
            size += bytes_
        return count, size

    def remove(self, batches: Batches) -> Sum:
        """Let it go, and then the blobs that nothing refers to any more."""
        count = size = 0
        for gone in batches.run(self.candidates(), self._take):
            count += len(gone)
            size += sum(gone)
        let_go(self.engine, batches, self.freed)
        return count, size

    def _take(self, tx: Transaction, found: list[Found]) -> list[int]:
        sizes = dict(found)
        return [sizes[key] for key in self.take(tx, [key for key, _ in found])]


def aged(engine: Engine, name: str, rule: str, before: float, without: Container[str] = ()) -> Rows:
    """Rows older than a time, but for those of the sessions that are left out."""
    freed: list[str] = []

    def find() -> Iterator[Found]:
        return (one for one in aging.OTHERS[name](engine.database, before=before) if one[0][0] not in without)

    def take(tx: Transaction, keys: list[Any]) -> list[Any]:
        gone = []
        for key in keys:
            went, blob = aging.take(tx, name, key, before)
            if went:
                gone.append(key)
            if blob:
                freed.append(blob)
        return gone

    return Rows(name, rule, find, take, engine, freed)


def cached_results(engine: Engine, rule: str, now: float) -> Rows:
    """Cached results that may not be served any more."""
    freed: list[str] = []

    def take(tx: Transaction, keys: list[Any]) -> list[Any]:
        stale = aging.stale(tx, [key for (key,) in keys], now)
        freed.extend(entries.remove(tx, stale))
        return [(key,) for key in stale]

    return Rows(
        "cached results", rule, lambda: aging.OTHERS["cached results"](engine.database, before=now), take, engine, freed
    )


def blobs(engine: Engine, rule: str, now: float, age: float) -> Rows:
    """Blobs that nothing refers to, and that nobody has put for a while."""

    def find() -> Iterator[Found]:
        rows = aging.OTHERS["blobs"](engine.database, before=now - age)
        for names in _chunks(name for (name,), _ in rows):
            free = engine.database.read(lambda tx: [n for n in names if not results.is_referred_to(tx, n)])  # noqa: B023
            yield from _aged_blobs(engine, free, age)

    return Rows("blobs", rule, find, lambda tx, keys: _gone(results.delete_unreferenced, tx, engine, keys), engine)


def stray_files(engine: Engine, rule: str, age: float) -> Rows:
    """Files of blobs that no row knows, as a killed process leaves them."""

    def find() -> Iterator[Found]:
        for names in _chunks(engine.blobs.hashes()):
            stray = engine.database.read(lambda tx: [n for n in names if not results.has_row(tx, n)])  # noqa: B023
            yield from _aged_blobs(engine, stray, age)

    return Rows("blob files", rule, find, lambda tx, keys: _gone(results.delete_stray, tx, engine, keys), engine)


def _gone(delete: Callable[..., list[str]], tx: Transaction, engine: Engine, keys: list[Any]) -> list[Any]:
    return [(name,) for name in delete(tx, engine.blobs, [name for (name,) in keys])]


def _aged_blobs(engine: Engine, names: list[str], age: float) -> Iterator[Found]:
    for name in names:
        with contextlib.suppress(BlobNotFound):
            if engine.blobs.age(name) < age:
                continue
        yield (name,), engine.blobs.stored_bytes(name)


def _chunks(names: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(names, _CHUNK)):
        yield chunk


@dataclass(frozen=True)
class TemporaryFiles:
    """What killed writers of blobs have left."""

    name: str
    rule: str
    engine: Engine
    age: float

    def found(self) -> Sum:
        """What is to go."""
        sizes = [size for _, size in self.engine.blobs.temporary(self.age)]
        return len(sizes), sum(sizes)

    def remove(self, batches: Batches) -> Sum:
        """Let it go."""
        count = size = 0
        for path, bytes_ in list(self.engine.blobs.temporary(self.age)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                count += 1
                size += bytes_
        return count, size


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints that are more than a session keeps, or older."""

    name: str
    rule: str
    engine: Engine
    before: float
    without: Container[str]

    def _candidates(self) -> Iterator[tuple[str, dict[int, int]]]:
        """(session, {number: bytes}) of those that are to go."""
        keep = self.engine.settings.checkpoints_kept
        for session_id, rows in aging.chains(self.engine.database, keep, self.before):
            if session_id in self.without:
                continue
            going = set(checkpoints.surplus([row[:4] for row in rows], keep, self.before))
            if going:
                yield session_id, {row[0]: row[4] for row in rows if row[0] in going}

    def found(self) -> Sum:
        """What is to go."""
        sizes = [size for _, going in self._candidates() for size in going.values()]
        return len(sizes), sum(sizes)

    def remove(self, batches: Batches) -> Sum:
        """Let it go, the oldest of a session first."""
        count = size = 0
        for session_id, going in self._candidates():
            for gone in batches.run(sorted(going), lambda tx, some: self._prune(tx, session_id, len(some))):  # noqa: B023
                count += len(gone)
                size += sum(going.get(number, 0) for number in gone)
        return count, size

    def _prune(self, tx: Transaction, session_id: str, most: int) -> list[int]:
        hot = sessions.lock(tx, session_id)
        if hot is None:
            return []
        there = checkpoints.numbers(tx, session_id)
        freed = checkpoints.prune(tx, hot, self.engine.settings.checkpoints_kept, self.before, most)
        gone = sorted(set(there) - set(checkpoints.numbers(tx, session_id)))
        if gone:
            sessions.rebase(tx, hot)
            results.let_go(tx, self.engine.database, self.engine.blobs, freed)
        return gone
