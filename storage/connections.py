"""The driver's connections of one process: kept between transactions, closed before a fork, never shared across one."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, NullPool, create_engine, event

from ..errors import StorageError
from . import sqlite

#: Connections to PostgreSQL that one process may have open at once, and how long one is waited for, in seconds.
MOST = 64
WAIT_SECONDS = 10.0
#: Every statement of ours has its index. Plans are made while tables are small and kept while they grow: none of them
#: may be one that reads a whole table.
_OPTIONS = (
    "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000 -c enable_seqscan=off -c jit=off"
    " -c plan_cache_mode=force_generic_plan"
)


class Connections:
    """Hands out driver connections and takes them back. Transactions are said in SQL, so there is nothing to reset.

    SQLAlchemy's own pool costs about a fifth of a short transaction; this is a stack of what is idle.
    """

    def __init__(self, url: URL, keep: int) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._keep = keep
        self._engine: Engine | None = None
        self._starting = threading.Lock()
        self._idle: deque[Any] = deque()
        self._room = threading.Semaphore(MOST)
        self.busy = Busy()
        self.gate: sqlite.WriteGate | None = None
        if self.is_sqlite:
            path = Path(url.database or "").absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            self.gate = sqlite.WriteGate(path.with_name(path.name + "-gate"))
        self.watches: weakref.WeakSet[Changes | Own] = weakref.WeakSet()
        _all.add(self)

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for what is not hot: the schema, and opening connections. It keeps none of its own."""
        if self._engine is None:
            with self._starting:
                self._engine = self._engine or self._new_engine()
        return self._engine

    def _new_engine(self) -> Engine:
        if self.is_sqlite:
            engine = create_engine(
                self.url,
                module=sqlite.library(),
                paramstyle="named",
                poolclass=NullPool,
                connect_args={"check_same_thread": False, "cached_statements": 256},
            )
            event.listen(engine, "connect", sqlite.prepare)
            return engine
        return create_engine(
            self.url,
            poolclass=NullPool,
            connect_args={
                "connect_timeout": 5,
                "autocommit": True,  # BEGIN and COMMIT are said by us, as on SQLite
                "options": _OPTIONS,
                "keepalives_idle": 15,
                "prepare_threshold": 1,
            },
        )

    def open(self) -> Any:
        """A new connection of the driver, outside of what is kept."""
        fairy = self.engine.raw_connection()
        connection = fairy.driver_connection
        fairy.detach()
        return connection

    def take(self) -> Any:
        """An idle connection, or a new one. Raises StorageError when too many are in use for too long."""
        if not self.is_sqlite and not self._room.acquire(timeout=WAIT_SECONDS):
            raise StorageError(f"all {MOST} connections to the database have been in use for {WAIT_SECONDS:g} s")
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self.open()
        except BaseException:
            self._freed()
            raise

    def give(self, connection: Any) -> None:
        """Take back a connection that is in no transaction."""
        if len(self._idle) < self._keep:
            self._idle.append(connection)
        else:
            connection.close()
        self._freed()

    def discard(self, connection: Any) -> None:
        """Close a connection that may be broken; and the idle ones, which most likely broke with it."""
        self._freed()
        _close_quietly(connection)
        if not self.is_sqlite:
            self.close_idle()

    def _freed(self) -> None:
        if not self.is_sqlite:
            self._room.release()

    def close_idle(self) -> None:
        """Close what is not in use."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            _close_quietly(connection)

    def close(self) -> None:
        """Close what is not in use, and the gate."""
        self.close_idle()
        for watch in list(self.watches):
            if isinstance(watch, Own):
                watch.close()
        if self.gate is not None:
            self.gate.close()

    def let_go(self) -> None:
        """Close all that this process has open, once nothing is at work; the next use opens it again."""
        self.busy.close(5.0)
        try:
            self._close_watched()
        finally:
            self.busy.open()

    def _close_watched(self) -> None:
        self.close_idle()
        for watch in list(self.watches):
            watch.close()

    # -- forks ---------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """SQLite must not be open in a process that forks: an inherited handle claims locks that the kernel did not
        inherit.
        """
        self.busy.close(5.0)
        if self.is_sqlite:
            self._close_watched()

    def after_fork_in_child(self) -> None:
        """Start anew. psycopg leaves an inherited connection alone: it closes only what its own process opened."""
        self.busy = Busy()
        self._starting = threading.Lock()
        self._room = threading.Semaphore(MOST)
        self._idle = deque()
        self._engine = None
        for watch in self.watches:
            if isinstance(watch, Own):
                watch.forget()
        if self.gate is not None:
            self.gate.forget()


class Changes:
    """Tells whether the database has changed. SQLite keeps a counter for that; PostgreSQL has none: there it may
    always have.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: Any = None
        self._version = -1
        if connections.is_sqlite:
            connections.watches.add(self)
            self.any()

    def any(self) -> bool:
        """Whether another connection has committed since this was last asked."""
        if not self._connections.is_sqlite:
            return True
        with self._connections.busy:
            if self._connection is None:  # the first time, or closed for a fork
                self._connection, self._version = self._connections.open(), -1
            before = self._version
            self._version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        return self._version != before

    def close(self) -> None:
        """Close the connection; asking again opens a new one, and counts as a change."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _close_quietly(connection)


class Own:
    """A connection to SQLite that is kept for one purpose, with a cursor; used with `alone` held. Safe in threads and
    across forks.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: Any = None
        self._cursor: Any = None
        self.alone = threading.Lock()
        connections.watches.add(self)

    def _opened(self) -> Any:
        """The cursor of a new connection."""
        self._connection = self._connections.open()
        self._cursor = self._connection.cursor()
        return self._cursor

    def forget(self) -> None:
        """After a fork, before which it was closed: with a lock that nobody holds."""
        self.alone = threading.Lock()

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        with self.alone:
            connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            _close_quietly(connection)


class Glance(Own):
    """One short query that SQLite answers again and again on a connection of its own, without a transaction said
    around it: about a fifteenth of what `Database.read` costs. Each answer is of now.
    """

    def __init__(self, connections: Connections, sql: str) -> None:
        super().__init__(connections)
        self._sql = sql

    def rows(self, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """All rows. Raises what the driver raises."""
        with self._connections.busy, self.alone:
            cursor = self._cursor or self._opened()
            return cursor.execute(self._sql, values).fetchall()  # type: ignore[no-any-return]


class Busy:
    """Counts connections at work, so that a fork can wait until none is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # taken by itself: a condition's own methods cost more
        self._idle = threading.Condition(self._lock)
        self._is_waited_for = False
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._is_waited_for and not self._count:
                self._idle.notify_all()

    def close(self, seconds: float) -> None:
        """Wait until nothing is at work (at most so long), and let nothing begin until `open`."""
        self._lock.acquire()
        self._is_waited_for = True
        self._idle.wait_for(lambda: not self._count, seconds)

    def open(self) -> None:
        """Let work begin again."""
        self._is_waited_for = False
        self._lock.release()


def _close_quietly(connection: Any) -> None:
    try:
        connection.close()
    except Exception:  # it is broken, which is why it goes
        return


_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_stopped: list[Connections] = []


def _before_fork() -> None:
    for one in list(_all):
        _stopped.append(one)
        one.before_fork()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().busy.open()


def _after_fork_in_child() -> None:
    _stopped.clear()
    for one in list(_all):
        one.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
