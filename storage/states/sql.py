"""State in the database: values in `state_values`, every change in `state_events`, both in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ...errors import BlobNotFound
from .. import results, session_state
from ..blobs import BlobStore
from ..connections import Changes
from ..database import Database, Transaction
from . import rows
from .protocol import Capabilities, Entry, Origin, Watch, Write
from .quick import Quick

T = TypeVar("T")

_NOBODY = Origin()
#: A value whose blob was replaced while it was read is read again so many times.
_READS = 5


class SqlBackend:
    """Values in a database; those of over `inline` bytes as blobs.

    `with_steps`: it is the database of the sessions, so that `put_in` can write in a step's own transaction, and
    checkpoints keep the scopes of sessions.
    """

    def __init__(self, database: Database, blobs: BlobStore, inline: int, with_steps: bool) -> None:
        self._database = database
        self._blobs = blobs
        self._inline = inline
        self._with_steps = with_steps
        self.capabilities = Capabilities(durable=True, shared=True, with_steps=with_steps)
        self._quick = Quick(database) if database.is_sqlite else None

    @property
    def database(self) -> Database:
        """Where the values lie."""
        return self._database

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        for last in (False,) * (_READS - 1) + (True,):
            found = self._database.read(lambda tx: rows.get(tx, scope, keys))
            try:
                return {row.key: row.entry(self._blobs) for row in found}
            except BlobNotFound:
                if last:
                    raise
        raise AssertionError

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        if origin is None and len(writes) == 1 and (version := self._put_quickly(scope, writes[0])):
            return [version]
        stored = [(write, self._stored(write)) for write in writes]  # before the transaction: blobs are slow
        return self._in_batch(origin, lambda tx, batch: self._noted(tx, scope, stored, batch))

    def _put_quickly(self, scope: str, write: Write) -> int:
        """Make a change that is a plain set; gives its version, or 0 if it is none."""
        body = write.body
        if self._quick is None or body is None or len(body) > self._inline:
            return 0
        if write.expected is not None or write.ttl is not None or write.bind is not None:
            return 0
        if self._with_steps and "session:" in scope and session_state.session_of(scope) is not None:
            return 0
        return self._quick.put(scope, write, body)

    def put_in(self, tx: Transaction, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        """As `put`, of keys that `locked` holds, in an open transaction of the same database: all is written if that
        is committed.
        """
        batch = rows.Batch(origin or Origin())
        versions = self._write(tx, scope, [(write, self._stored(write)) for write in writes], batch)
        self._let_go(tx, batch)
        return versions

    def change(
        self, scope: str, key: str, work: Callable[[Entry | None], Write], origin: Origin | None = None
    ) -> tuple[Write, int]:
        def held(tx: Transaction, batch: rows.Batch) -> tuple[Write, int]:
            write = work(self.locked(tx, scope, key))
            return write, self._write(tx, scope, [(write, self._stored(write))], batch)[0]

        return self._in_batch(origin, held)

    def locked(self, tx: Transaction, scope: str, key: str) -> Entry | None:
        """The entry of a key, held until the transaction ends."""
        self._note(tx, scope, (key,))  # first: a session's row is locked before its values
        found = rows.locked(tx, scope, key)
        return found.entry(self._blobs) if found is not None else None

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        return self._database.read(lambda tx: rows.keys(tx, scope, prefix, after, limit))

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        return self._database.read(lambda tx: rows.left(tx, scope, keys))

    def scopes(self) -> list[str]:
        return self._database.read(rows.scopes)

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        return self._in_batch(origin, lambda tx, batch: self._clear(tx, scope, batch))

    def clear_in(self, tx: Transaction, scope: str, origin: Origin | None = None) -> int:
        """As `clear`, in an open transaction of the same database."""
        batch = rows.Batch(origin or Origin())
        count = self._clear(tx, scope, batch)
        self._let_go(tx, batch)
        return count

    def replace_in(
        self,
        tx: Transaction,
        scope: str,
        values: Mapping[str, session_state.Value],
        origin: Origin,
        bind: Callable[[str, session_state.Value], Callable[[int], bytes] | None],
    ) -> int:
        """Put these values in the place of all that a scope has, in an open transaction of the same database; gives
        how many keys that changes. `bind` gives what seals a value for its new version. Raises StorageError for a blob
        that cannot be read.
        """
        moment = tx.now()
        wanted = {k: v for k, v in values.items() if v.expires_at is None or v.expires_at > moment}
        present = rows.versions(tx, scope)
        writes: list[tuple[Write, str | None]] = [(Write(key, None), None) for key in present if key not in wanted]
        for key, value in wanted.items():
            if present.get(key) != value.version:
                body = self._blobs.get(value.blob) if value.blob is not None else value.body or b""
                left = None if value.expires_at is None else value.expires_at - moment
                writes.append((Write(key, body, value.meta, ttl=left, bind=bind(key, value)), value.blob))
        batch = rows.Batch(origin)
        self._noted(tx, scope, writes, batch)
        self._let_go(tx, batch)
        return len(writes)

    def forget_past(self, most: int) -> int:
        """Delete at most so many values whose time is over, of any scope; gives how many. Nobody could read them."""

        def work(tx: Transaction) -> int:
            count, freed = rows.drop_any_past(tx, most)
            results.let_go(tx, self._database, self._blobs, freed)
            return count

        return self._database.write(work)

    def watch(self) -> Watch | None:
        # PostgreSQL has no counter of changes that would not make all writers wait for each other.
        return _Counter(self._database.changes()) if self._database.is_sqlite else None

    def close(self) -> None:
        if not self._with_steps:  # else it is the engine's
            self._database.dispose()

    # -- writing -----------------------------------------------------------------------------------------------------

    def _stored(self, write: Write) -> str | None:
        if write.body is None or len(write.body) <= self._inline:
            return None
        return self._blobs.put(write.body)

    def _write(
        self, tx: Transaction, scope: str, writes: Sequence[tuple[Write, str | None]], batch: rows.Batch
    ) -> list[int]:
        if len(writes) == 1:
            return [rows.write(tx, self._blobs, scope, *writes[0], batch)]
        versions = [0] * len(writes)
        for place in sorted(range(len(writes)), key=lambda n: writes[n][0].key):  # one order, or locks could cross
            versions[place] = rows.write(tx, self._blobs, scope, *writes[place], batch)
        return versions

    def _noted(
        self, tx: Transaction, scope: str, writes: Sequence[tuple[Write, str | None]], batch: rows.Batch
    ) -> list[int]:
        self._note(tx, scope, [write.key for write, _ in writes])
        return self._write(tx, scope, writes, batch)

    def _clear(self, tx: Transaction, scope: str, batch: rows.Batch) -> int:
        self._note(tx, scope, None)
        return rows.clear(tx, scope, batch)

    def _note(self, tx: Transaction, scope: str, keys: Sequence[str] | None) -> None:
        if self._with_steps:
            session_state.note(tx, scope, keys)

    def _in_batch(self, origin: Origin | None, work: Callable[[Transaction, rows.Batch], T]) -> T:
        """Run `work` in a transaction of its own. It goes in once, whatever happens to the COMMIT."""
        origin = origin or _NOBODY
        tried: list[tuple[rows.Batch, T]] = []

        def transaction(tx: Transaction) -> T:
            batch = rows.Batch(origin)
            result = work(tx, batch)
            if batch.freed:
                self._let_go(tx, batch)
            tried.append((batch, result))
            return result

        def settled(tx: Transaction) -> T | None:
            batch, result = tried[-1] if tried else (None, None)
            if batch is None or not batch.went_in(tx):
                return None
            self._let_go(tx, batch)
            return result

        return self._database.write(transaction, settled)

    def _let_go(self, tx: Transaction, batch: rows.Batch) -> None:
        """Delete replaced blobs that nothing refers to, once it is certain that they were replaced."""
        results.let_go(tx, self._database, self._blobs, batch.freed)


class _Counter:
    """SQLite's own count of commits: any commit by anyone, ours too, makes all copies old."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._asked = False

    def look(self) -> set[tuple[str, str]] | None:
        changed, asked = self._changes.any(), self._asked
        self._asked = True
        return None if changed or not asked else set()

    def close(self) -> None:
        self._changes.close()
