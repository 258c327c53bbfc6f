"""The database: one engine per process, whole-transaction retries, and an answer for commits whose outcome is unknown.

Statements are SQLAlchemy Core constructs, compiled once to text (`Query`) and run on the driver's cursor: the Core
execution layer costs about as much again as the whole transaction (feasibility: 12).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from fcntl import LOCK_UN, flock
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ClauseElement, Engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float

from . import sqlite
from .connections import Changes, Connections, Glance
from .faults import point
from .keys.codec import Codec, Seals
from .retries import Tries, UnknownCommit, is_of_driver, was_refused

logger = logging.getLogger("celeriac.database")

T = TypeVar("T")
Row = tuple[Any, ...]


class now(FunctionElement[float]):
    """The database's clock as seconds since 1970 (UTC, float). Leases are compared by this clock only."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(_element: Any, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(_element: Any, _compiler: Any, **_: Any) -> str:
    return "(extract(epoch from clock_timestamp())::float8)"


class Query:
    """A Core construct that is compiled once per dialect and then run as text."""

    __slots__ = ("_compiled", "construct")

    def __init__(self, construct: ClauseElement) -> None:
        self.construct = construct
        self._compiled: dict[str, tuple[str, dict[str, Any]]] = {}

    def text(self, dialect: Dialect) -> tuple[str, dict[str, Any]]:
        """SQL text with named parameters for that dialect, and the values that the construct itself carries."""
        known = self._compiled.get(dialect.name)
        if known is None:
            compiled = self.construct.compile(dialect=dialect)
            binds = getattr(compiled, "binds", {})
            carried = {k: v for k, v in (compiled.params or {}).items() if k in binds and not binds[k].required}
            known = self._compiled[dialect.name] = (str(compiled), carried)
        return known


#: A statement and its values.
Call = tuple[Query, Mapping[str, Any]]


class Transaction(Seals):
    """One open transaction: runs statements on the driver's cursor. Rows are plain tuples."""

    __slots__ = ("_cursor", "_dialect", "_later", "after_commit", "dialect_name")

    def __init__(self, cursor: Any, dialect: Dialect, codec: Codec | None = None) -> None:
        self._cursor = cursor
        super().__init__(codec)
        self._dialect = dialect
        self.dialect_name = dialect.name
        self._later: list[tuple[Query, Mapping[str, Any]]] = []
        #: Called in order once the transaction is known to be committed.
        self.after_commit: list[Callable[[], None]] = []

    def _execute(self, query: Query | ClauseElement, values: Mapping[str, Any]) -> Any:
        if not isinstance(query, Query):
            query = Query(query)
        if self._later:
            self._send_waiting()
        text, carried = query.text(self._dialect)
        self._cursor.execute(text, {**carried, **values} if carried else values)
        return self._cursor

    def run(self, query: Query | ClauseElement, /, **values: Any) -> int:
        """Run a statement; gives the number of rows that it touched."""
        return int(self._execute(query, values).rowcount)

    def inserted(self, query: Query, values: Mapping[str, Any]) -> int:
        """Run an INSERT of one row, on SQLite; gives its rowid. Costs less than asking for it with RETURNING."""
        return int(self._execute(query, values).lastrowid)

    def rows(self, query: Query | ClauseElement, /, **values: Any) -> list[Row]:
        """Run a query (or a statement with RETURNING); gives all its rows."""
        return list(self._execute(query, values).fetchall())

    def row(self, query: Query | ClauseElement, /, **values: Any) -> Row | None:
        """The first row, or None."""
        found = self._execute(query, values).fetchall()
        return found[0] if found else None

    def value(self, query: Query | ClauseElement, /, **values: Any) -> Any:
        """The first column of the first row, or None."""
        found = self.row(query, **values)
        return found[0] if found else None

    def many(self, query: Query, values: Sequence[Mapping[str, Any]]) -> None:
        """Run one statement for each set of values."""
        if len(values) < 2:  # psycopg's executemany opens a pipeline, which for one row only costs
            for one in values:
                self._execute(query, one)
            return
        if self._later:
            self._send_waiting()
        text, carried = query.text(self._dialect)
        if carried:
            values = [{**carried, **v} for v in values]
        self._cursor.executemany(text, values)

    def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        """Run queries (or statements with RETURNING), in order; gives the rows of each.

        On PostgreSQL they travel in one round trip.
        """
        if self.dialect_name == "sqlite" or len(calls) < 2:
            return [self.rows(query, **values) for query, values in calls]
        connection = self._cursor.connection
        with connection.pipeline():
            cursors = [connection.cursor() for _ in calls]
            for cursor, (query, values) in zip(cursors, calls, strict=True):
                text, carried = query.text(self._dialect)
                cursor.execute(text, {**carried, **values} if carried else values)
        return [list(cursor.fetchall()) for cursor in cursors]

    def later(self, query: Query, values: Sequence[Mapping[str, Any]]) -> None:
        """Run one statement for each set of values, before the next query or with the COMMIT: nothing is read from it.

        On PostgreSQL they travel together with the COMMIT, in one round trip; in this process they cost nothing more.
        """
        if self.dialect_name == "sqlite":
            self.many(query, values)
        else:
            self._later += [(query, one) for one in values]

    def _send_waiting(self) -> None:
        """Run what waits, in one round trip."""
        if len(self._later) == 1:  # a pipeline for one statement only costs
            self.send_later()
            return
        with self._cursor.connection.pipeline():
            self.send_later()

    def send_later(self) -> None:
        """Run what waits."""
        waiting, self._later = self._later, []
        for query, values in waiting:
            self._execute(query, values)

    @property
    def has_later(self) -> bool:
        """Whether statements wait."""
        return bool(self._later)

    def now(self) -> float:
        """The database's clock."""
        return float(self.value(_NOW))


_NOW = Query(select(now()))


class Database:
    """Access to one database URL, safe across threads and forks.

    `write(fn)` runs `fn(tx)` in a transaction that may write, and runs it again from the start after a retryable
    fault. When COMMIT itself fails the outcome is unknown, so `fn` must bear to be run again after it went in, or look
    first (as `Engine.in_turn` does); or `settled(tx)`, which is asked before each further try, gives the result.
    What the driver raises reaches the caller as StorageError.
    """

    def __init__(self, url: str, pool_size: int = 8) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._connections = Connections(self.url, pool_size)
        self._commit: Callable[[Any], None] = _commit
        #: Runs a statement that is a transaction by itself.
        self.single: Callable[[Any, str, Sequence[Any]], None] = _single
        self._dialect = self._connections.engine.dialect
        #: Whether a commit may come to the disk later than it is answered. Without WAL it could leave a torn file.
        self._can_lag = self.is_sqlite and sqlite.describe()["sound"]
        #: Seals and opens what is in rows; None: there are no keys.
        self.codec: Codec | None = None
        if self.is_sqlite:
            self.path = Path(self.url.database or "").absolute()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine of this process, for what is not hot: the schema and its migrations."""
        return self._connections.engine

    @property
    def connections(self) -> Connections:
        """The driver's connections of this process, for transactions that are not short."""
        return self._connections

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    def dispose(self) -> None:
        """Close this process's idle connections and files; the next use opens new ones."""
        self._connections.close()

    def changes(self) -> Changes:
        """A watch that tells whether any process has committed since it was last asked."""
        return Changes(self._connections)

    def glance(self, query: Query) -> Callable[..., Any]:
        """A function that gives the first value that a short query finds now (None: no row), where that costs least.

        Each call sees all that was committed before it.
        """
        glances = self.glances(query)

        def glance(**values: Any) -> Any:
            found = glances(**values)
            return found[0][0] if found else None

        return glance

    def glances(self, query: Query) -> Callable[..., list[Row]]:
        """As `glance`, of all rows."""
        if not self.is_sqlite:
            return lambda **values: self.read(lambda tx: tx.rows(query, **values))
        sql, carried = query.text(self._dialect)
        look = Glance(self._connections, sql)

        def glances(**values: Any) -> list[Row]:
            try:
                return look.rows({**carried, **values} if carried else values)
            except Exception as fault:
                if not is_of_driver(fault):
                    raise
                look.close()
                return self.read(lambda tx: tx.rows(query, **values))  # tries again, and says what is wrong

        return glances

    # -- transactions ------------------------------------------------------------------------------------------------

    def write(
        self,
        work: Callable[[Transaction], T],
        settled: Callable[[Transaction], T | None] | None = None,
        synced: bool = True,
    ) -> T:
        """Run `work` in one transaction; see the class for what happens when something breaks.

        What is not `synced` may be gone after a loss of power, though not without all that was committed after it.
        On SQLite it does not wait for the disk. PostgreSQL may lose power alone, and then would give an epoch twice
        that a live worker holds: there everything is synced.
        """

        def ask_first(tx: Transaction) -> T:
            found = settled(tx) if settled is not None else None
            return found if found is not None else work(tx)

        began, tries = time.monotonic(), None
        while True:
            try:
                result, after = self._attempt(work if tries is None else ask_first, True, synced or not self._can_lag)
                break
            except Exception as fault:
                tries = tries or Tries(began)
                tries.failed(fault)
        for call in after:
            try:
                call()
            except Exception:  # the transaction is in: what only watches it must not make it look as if it were not
                logger.exception("a listener failed")
        return result

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction that only reads: it sees one snapshot on SQLite, committed rows on PostgreSQL."""
        began, tries = time.monotonic(), None
        while True:
            try:
                return self._attempt(work, False, True)[0]
            except Exception as fault:
                tries = tries or Tries(began)
                tries.failed(fault)

    def _attempt(
        self, work: Callable[[Transaction], T], write: bool, synced: bool
    ) -> tuple[T, list[Callable[[], None]]]:
        with self._connections.busy:
            gate = self._connections.gate
            if write and gate is not None:
                with gate.thread:
                    handle = gate.handle()
                    try:
                        # Inside the `try`: an exception from outside can be raised as soon as a call returns. So what
                        # unlocks is no function of ours, at whose beginning one could be raised as well.
                        gate.lock()
                        return self._transact(work, "BEGIN IMMEDIATE", write, synced)
                    finally:
                        flock(handle, LOCK_UN)
            return self._transact(work, "BEGIN", write, synced)

    def _transact(
        self, work: Callable[[Transaction], T], begin: str, write: bool, synced: bool
    ) -> tuple[T, list[Callable[[], None]]]:
        connection = self._connections.take()
        cursor = None
        clean = False
        try:
            cursor = connection.cursor()
            if not synced:
                cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute(begin)
            transaction = Transaction(cursor, self._dialect, self.codec)
            result = work(transaction)
            if write:
                point("before-commit")
            try:
                if transaction.has_later:
                    with connection.pipeline():
                        transaction.send_later()
                        self._commit(cursor)
                else:
                    self._commit(cursor)
            except Exception as fault:
                if was_refused(fault):
                    raise
                raise UnknownCommit from fault
            clean = True
            return result, transaction.after_commit
        finally:
            # Also SystemExit, KeyboardInterrupt and a time limit can land anywhere in here (reliability: 2.3).
            whole = clean or (cursor is not None and _rolled_back(cursor))
            if whole and (synced or _is_synced_again(cursor)):
                self._connections.give(connection)
            else:
                self._connections.discard(connection)


def _commit(cursor: Any) -> None:
    cursor.execute("COMMIT")


def _single(cursor: Any, sql: str, values: Sequence[Any]) -> None:
    cursor.execute(sql, values)


def _is_synced_again(cursor: Any) -> bool:
    """Let the next transaction of the connection wait for the disk; False if that fails."""
    try:
        cursor.execute("PRAGMA synchronous=FULL")
    except Exception:
        return False
    return True


def _rolled_back(cursor: Any) -> bool:
    """Leave the connection without a transaction; False if even that fails."""
    try:
        cursor.execute("ROLLBACK")
    except Exception as fault:
        return "no transaction is active" in str(fault)
    return True


__all__ = ["Call", "Changes", "Database", "Query", "Row", "Transaction", "now"]
