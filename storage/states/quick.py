"""The plainest change of keyed state, where it is made most often: a value set on SQLite, in one statement.

It is a transaction by itself, and what records the change is a trigger that only this connection has. So a set is one
trip to SQLite instead of four. Whatever is not plain is left to `rows`: it gives 0, and nothing was written.
"""

from __future__ import annotations

import random
from fcntl import LOCK_UN, flock
from time import time_ns
from typing import Any, Final

from ..connections import Own
from ..database import Database
from ..faults import point
from ..retries import is_of_driver
from . import rows
from .protocol import Write

#: It must have a version over all that were given, and may replace no value that is a blob or ends by itself.
_SET: Final = (
    "INSERT INTO state_values (version, scope, key, body, size, meta, updated_at) VALUES ("
    "CASE WHEN ?1 > ifnull((SELECT max(version) FROM state_events), 0) THEN ?1 END, ?2, ?3, ?4, ?5, ?6, ?1 / 1e6)"
    " ON CONFLICT (scope, key) DO UPDATE SET version = excluded.version, body = excluded.body, packed = NULL,"
    " size = excluded.size, meta = excluded.meta, updated_at = excluded.updated_at"
    " WHERE blob IS NULL AND expires_at IS NULL"
)
_TRIGGER: Final = (
    "CREATE TEMP TRIGGER set_{when} AFTER {when} ON main.state_values BEGIN"
    " INSERT INTO state_events (version, at, scope, key, operation, old, new, turn)"
    " VALUES (NEW.version, NEW.updated_at, NEW.scope, NEW.key, 'set', {old}, {new}, {turn}); END"
)


class Quick(Own):
    """Sets plain values in a SQLite database, one after the other."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connections)
        self._database = database
        assert database.connections.gate is not None
        self._gate = database.connections.gate
        #: What this connection's events have as the name of their transaction; their version tells them apart.
        self._turn = 0
        self._last = 0

    def put(self, scope: str, write: Write, body: bytes) -> int:
        """Set a key to a body that expects nothing, is not to end and not sealed; gives its version, or 0 if that has
        to be done in another way. Raises StorageError.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return 0
        if "\0" in text:
            return 0
        version = 0
        try:
            with self._connections.busy, self.alone:
                cursor = self._cursor or self._prepared()
                self._last = version = max(time_ns() // 1000, self._last + 1)
                gate = self._gate
                with gate.thread:
                    handle = gate.handle()
                    try:
                        gate.lock()
                        point("before-commit")
                        self._database.single(cursor, _SET, (version, scope, write.key, text, len(body), write.meta))
                    finally:
                        flock(handle, LOCK_UN)
                return version if cursor.rowcount else 0
        except Exception as fault:
            if not is_of_driver(fault):
                raise
            turn = self._turn
            self.close()
            if type(fault).__name__ == "IntegrityError":  # the clock went back, or another process was quicker
                return 0
            return version if self._went_in(version, turn) else 0

    def _prepared(self) -> Any:
        cursor = self._opened()
        self._turn = random.getrandbits(63)
        for when, old in (("INSERT", "NULL"), ("UPDATE", rows.told_in_sql("OLD"))):
            new = rows.told_in_sql("NEW")
            cursor.execute(_TRIGGER.format(when=when, old=old, new=new, turn=self._turn))
        return cursor

    def _went_in(self, version: int, turn: int) -> bool:
        """Whether a set whose outcome is unknown is there."""
        return bool(version) and self._database.read(lambda tx: rows.turn_of(tx, version)) == turn
