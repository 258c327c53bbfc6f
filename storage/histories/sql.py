"""Histories in the database of the sessions: the default."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence

from .. import results
from ..blobs import BlobStore
from ..database import Database, Row, Transaction
from . import cold, rows, thinning
from .protocol import Capabilities, Item, Kept, grown

_NAMES_AT_ONCE = 1000
#: So many of the newest entries are read at a glance; more would hold up others who glance.
_GLANCE = 200


class SqlPlace:
    """Conversations as rows beside their sessions; large entries are blobs. Only a session that exists has one."""

    capabilities = Capabilities(durable=True, shared=True, with_steps=True)

    def __init__(self, database: Database, blobs: BlobStore, inline: int) -> None:
        self._database = database
        self._blobs = blobs
        self._inline = inline
        self._newest = database.glances(rows.NEWEST)

    def append(self, conversation: str, items: Iterable[Item], admit: rows.Admit | None = None) -> tuple[int, int]:
        if isinstance(items, Sequence):  # their files are synced before the transaction, not in it
            for item in items:
                if len(item.body) > self._inline:
                    self._blobs.put(item.body)
        turn = secrets.randbits(63)
        found = range(0)

        def work(tx: Transaction) -> range:
            nonlocal found
            found = self.append_with(tx, conversation, items, turn, admit)
            return found

        def settled(tx: Transaction) -> range | None:
            return found if found and rows.went_in(tx, conversation, found.start, turn) else None

        numbers = self._database.write(work, settled)
        return numbers.start, numbers.stop - 1

    def append_with(
        self, tx: Transaction, conversation: str, items: Iterable[Item], turn: int, admit: rows.Admit | None = None
    ) -> range:
        """Append in a transaction of the caller's, whose random name is `turn`; gives the numbers."""
        return rows.append(tx, self._blobs, conversation, items, self._inline, turn, admit)

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
        def read(tx: Transaction) -> list[Kept]:
            found = rows.load(tx, conversation, first, last, limit, newest, mark)
            bodies = [self._large(tx, conversation, row[0]) if row[2] is None else row[2].encode() for row in found]
            return [Kept(row[0], row[1], body) for row, body in zip(found, bodies, strict=True) if body]

        return self._database.read(read)

    def newest(self, conversation: str, limit: int) -> Sequence[Row]:
        """As `load` of the newest entries, with bodies as text or bytes: where that costs least."""
        if 0 < limit <= _GLANCE:
            found = self._newest(session=conversation, most=limit)
            bodies = [body for _, _, body in found]
            if not bodies or (None not in bodies and max(bodies)[0] == "{"):  # neither in blobs nor sealed: `~CLS1~`
                found.reverse()
                return found
        return self.load(conversation, limit=limit, newest=True)

    def _large(self, tx: Transaction, conversation: str, number: int) -> bytes | None:
        blob = rows.blob_of(tx, conversation, number)
        return None if blob is None else self._blobs.get(blob)

    def count(self, conversation: str) -> int:
        return self._database.read(lambda tx: rows.count(tx, conversation))

    def gaps(self, conversation: str) -> int:
        """How many numbers no entry has any more."""
        return self._database.read(lambda tx: thinning.gaps(tx, conversation))

    def delete(self, conversation: str, expected: int | None = None) -> int:
        return self._database.write(lambda tx: self.delete_with(tx, conversation, expected))

    def delete_with(self, tx: Transaction, conversation: str, expected: int | None = None) -> int:
        """Delete in a transaction of the caller's."""
        rows.hold(tx, conversation)
        found = rows.count(tx, conversation)
        if expected is not None and found != expected:
            raise grown(conversation, expected, found)
        hashes = rows.blobs_of(tx, conversation) + cold.blobs_of(tx, conversation)
        rows.clear(tx, conversation)
        results.delete_unreferenced(tx, self._blobs, hashes)
        return found

    def conversations(self) -> Iterator[str]:
        beyond = ""
        while page := list(self._database.read(lambda tx: rows.names(tx, beyond, _NAMES_AT_ONCE))):  # noqa: B023
            yield from page
            beyond = page[-1]

    def close(self) -> None:
        """The database is the engine's."""
