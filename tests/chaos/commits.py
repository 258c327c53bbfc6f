"""Commits whose outcome nobody knows: each COMMIT may go in and then raise, or raise and not go in."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

from celeriac.storage import database, sqlite

logger = logging.getLogger("chaos.commits")

#: `seed:probability`; half of the faults come after the commit.
VARIABLE = "CELERIAC_TEST_COMMITS"
#: What a process that breaks a commit says.
BROKEN = "a commit is broken"


def breaking(setting: str, is_sqlite: bool) -> Callable[[Any], None]:
    """A function to take the place of a database's COMMIT."""
    seed, _, probability = setting.partition(":")
    dice = random.Random(seed)

    def commit(cursor: Any) -> None:
        drawn = dice.random() / float(probability)
        if drawn >= 1:
            database._commit(cursor)
            return
        if drawn < 0.5:
            database._commit(cursor)
        logger.warning(BROKEN)
        raise lost_connection(is_sqlite)

    return commit


def lost_connection(is_sqlite: bool) -> Exception:
    """What the driver says when the answer to a COMMIT never came."""
    if is_sqlite:
        return sqlite.library().OperationalError("disk I/O error (made by the test)")
    import psycopg

    return psycopg.OperationalError("server closed the connection unexpectedly (made by the test)")
