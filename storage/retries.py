"""Faults of transactions: which of them another try can mend, and how long it is tried."""

from __future__ import annotations

import random
import time

from ..errors import StorageError

#: How long a transaction is tried again after busy, deadlock or a lost connection, in seconds.
RETRY_SECONDS = 30.0
#: SQLSTATE classes worth another try: connection (08), rollback (40: serialization, deadlock), shutdown (57P).
_RETRY_STATES = ("08", "40", "57P", "53300")
#: When two transactions wrote the same key at once, the work is tried so many times: it may look first, then insert.
_CLASHES = 3


class UnknownCommit(Exception):
    """COMMIT raised: the transaction may or may not be in."""


class Tries:
    """How often a transaction has failed, and whether it is worth another try."""

    def __init__(self, began: float) -> None:
        self._deadline = began + RETRY_SECONDS
        self.count = 0
        self._clashes = 0

    def failed(self, fault: Exception) -> None:
        """Wait a little before the next try; or raise what ends them."""
        cause = fault.__cause__ or fault if isinstance(fault, UnknownCommit) else fault
        original: BaseException = getattr(cause, "orig", None) or cause
        in_doubt = isinstance(fault, UnknownCommit)
        if not (in_doubt or is_of_driver(original)):
            raise fault
        self.count += 1
        clash = _is_clash(original)
        self._clashes += clash
        if clash and self._clashes >= _CLASHES or not (clash or in_doubt or _is_passing(original)):
            raise StorageError(f"the database refused: {type(original).__name__}: {original}") from original
        if time.monotonic() > self._deadline:
            raise StorageError(
                f"the database did not take the transaction in {RETRY_SECONDS:g} s: {original}"
            ) from original
        time.sleep(random.uniform(0.2, 1.0) * min(0.002 * 2**self.count, 1.0))


def is_of_driver(fault: BaseException) -> bool:
    """Whether the driver raised it."""
    return type(fault).__module__.startswith(("sqlite3", "pysqlite3", "apsw", "psycopg", "sqlalchemy"))


def _is_clash(fault: BaseException) -> bool:
    if getattr(fault, "sqlstate", None) == "23505":
        return True
    return type(fault).__name__ == "IntegrityError" and "UNIQUE constraint" in str(fault)


def _is_passing(fault: BaseException) -> bool:
    """Whether the fault is one that goes away: busy, deadlock, a lost or refused connection, a server that restarts."""
    name = type(fault).__name__
    if type(fault).__module__.startswith(("sqlite3", "pysqlite3")):
        return name == "OperationalError" and any(word in str(fault) for word in ("locked", "busy"))
    state = getattr(fault, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_RETRY_STATES)
    return name in ("OperationalError", "InterfaceError", "ConnectionTimeout")


def was_refused(fault: Exception) -> bool:
    """Whether the server itself said no to a statement: then nothing of the transaction is in."""
    state = getattr(fault, "sqlstate", None)
    return state is not None and not str(state).startswith(("08", "57P"))
