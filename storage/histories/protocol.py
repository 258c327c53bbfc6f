"""What a place for conversations has to do. One's own: write a class with these methods, name it in the entry point
group `celeriac.histories`, and run `celeriac.testing.HistoryPlaceSuite` on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

from ...errors import CeleriacError

#: Entries that are written at once, and their bytes.
CHUNK: Final = 500
_CHUNK_BYTES: Final = 4_000_000
#: What a conversation can be called: its session's id is one of these.
_NAME: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")


class HistoryError(CeleriacError):
    """A history cannot do what was asked; nothing was written."""


class HistoryConflict(HistoryError):
    """A conversation has grown since it was looked at; nothing was deleted or appended."""


@dataclass(frozen=True, slots=True)
class Item:
    """An entry to be appended: `body` is a JSON object in UTF-8 on one line; `at` its time (seconds since 1970, UTC),
    None for now.

    Those with a `mark` (1 to 9) can be found apart from the others.
    """

    body: bytes
    mark: int = 0
    at: float | None = None


class Kept(NamedTuple):
    """An entry as it is kept."""

    number: int
    at: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a place can do: keep entries when the process ends (`durable`); let several processes see the same ones
    (`shared`); write in the transaction that records a step (`with_steps`), without which a call and the entries that
    tell of it can part in a crash.
    """

    durable: bool
    shared: bool
    with_steps: bool = False


@runtime_checkable
class Place(Protocol):
    """A place for conversations. The entries of each are numbered 1, 2, 3 ... without a gap, in the order in which they
    were appended. All methods can be called from any thread.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        """Append all items, next to each other, or none; gives the numbers of the first and the last (of none: 1 more
        than there are, and as many as there are).

        `items` may be gone through again from the start, and may be more than fit into memory.
        """

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
        """The entries numbered `first` to `last`, in order; only the first `limit` of them, with `newest` the last
        ones; with a `mark` only those that have it. Every acknowledged append is seen.
        """

    def count(self, conversation: str) -> int:
        """How many entries there are; 0 where there is no such conversation."""

    def delete(self, conversation: str, expected: int | None = None) -> int:
        """Delete a conversation; gives how many entries it had. Numbers then begin with 1 again.

        Raises HistoryConflict unless it has as many entries as `expected`, if that is given.
        """

    def conversations(self) -> Iterator[str]:
        """The names of all conversations that have entries, in order."""

    def close(self) -> None:
        """Let go of files and connections. A use after that may open them again."""


@runtime_checkable
class Expecting(Protocol):
    """A place that can also append only to a conversation that is as long as it was. What is brought from one session
    into another then comes once, also where the one who brings it dies, or comes late.
    """

    def append_after(self, conversation: str, items: Iterable[Item], expected: int) -> tuple[int, int]:
        """As `Place.append`. Raises HistoryConflict, and appends nothing, unless there are `expected` entries."""


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items in parts that fit into memory: up to 500, and a few megabytes unless a single one is larger."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == CHUNK or size + len(item.body) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.body)
    if chunk:
        yield chunk


def named(conversation: str) -> str:
    """The name, if a conversation can be called so. Raises HistoryError."""
    if not _NAME.fullmatch(conversation):
        raise HistoryError(
            f"{conversation!r:.120} cannot name a conversation; allowed: 1 to 100 letters, digits, - and _"
        )
    return conversation


def grown(conversation: str, expected: int, found: int) -> HistoryConflict:
    """The error for a conversation that is not as long as it was."""
    return HistoryConflict(f"conversation {conversation} was expected to have {expected:,} entries but has {found:,}")


def chosen(entries: int, first: int, last: int | None, limit: int | None, newest: bool) -> range:
    """The numbers that `Place.load` gives of a conversation with so many entries."""
    low = max(first, 1)
    high = entries + 1 if last is None else min(last, entries) + 1
    if limit is not None:
        low, high = (max(low, high - limit), high) if newest else (low, min(high, low + limit))
    return range(low, max(low, high))
