"""Long transactions on a connection of their own: a snapshot of everything, or a change of everything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ...errors import StorageError
from .. import sqlite
from ..database import Database
from ..retries import is_of_driver

_WITHOUT_LIMITS = tuple(
    f"SET LOCAL {name} = 0" for name in ("statement_timeout", "idle_in_transaction_session_timeout")
)
#: What they begin with: on SQLite or not, to write or not.
_BEGINNINGS = {
    (True, False): ("BEGIN",),
    (True, True): ("BEGIN IMMEDIATE",),
    (False, False): ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", *_WITHOUT_LIMITS),
    (False, True): ("BEGIN", *_WITHOUT_LIMITS, "SET LOCAL lock_timeout = '10s'"),
}


@contextlib.contextmanager
def alone(database: Database, write: bool = False, whole: bool = False) -> Iterator[Any]:
    """A connection of the driver in one transaction without limits of time: a snapshot of all, or (`write`) a change of
    all. Committed at the end; nothing of it is in if anything is raised. What the driver raises is a StorageError.

    `whole`: nearly every row is written. A SQLite file that nobody else has open is then written in place, which is
    half as much as into the write-ahead log and from there; whoever opens it meanwhile has to wait.
    """
    connections = database.connections
    if whole and database.is_sqlite:
        connections.let_go()
    with connections.busy, contextlib.ExitStack() as held:
        if write and connections.gate is not None:
            held.enter_context(sqlite.through(connections.gate))
        connection = connections.open()
        held.callback(connection.close)  # rolls back what was not committed
        try:
            if whole and database.is_sqlite:
                sqlite.leave_log(connection)
            for statement in _BEGINNINGS[database.is_sqlite, write]:
                connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
        except Exception as fault:
            if is_of_driver(fault):
                raise StorageError(f"the database refused: {type(fault).__name__}: {fault}") from fault
            raise
