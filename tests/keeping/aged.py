"""Making rows old, and counting them."""

from __future__ import annotations

from typing import Any

from driver import Driver
from sqlalchemy import text

from celeriac.orchestration.keeping.retention import Retained, Retention
from celeriac.orchestration.session import Session

DAY = 86400.0


def sql(driver: Driver, statement: str, **values: Any) -> None:
    driver.engine.database.write(lambda tx: tx.run(text(statement), **values))


def count(driver: Driver, what: str, **values: Any) -> int:
    return int(driver.engine.database.read(lambda tx: tx.value(text(f"SELECT count(*) FROM {what}"), **values)))


def age(driver: Driver, session: Session | str, days: float) -> None:
    """Let a session, all that happened in it and all that was said be so many days older."""
    session_id = session if isinstance(session, str) else session.id
    seconds = days * DAY
    sql(driver, "UPDATE sessions SET updated_at = updated_at - :s, created_at = created_at - :s WHERE id = :i",
        s=seconds, i=session_id)  # fmt: skip
    for statement in (
        "UPDATE conversations SET updated_at = updated_at - :s WHERE session_id = :i",
        "UPDATE events SET at = at - :s WHERE session_id = :i",
        "UPDATE checkpoints SET created_at = created_at - :s WHERE session_id = :i",
        "UPDATE history SET at = at - :s WHERE session_id = :i",
        "UPDATE cold_history SET at = at - :s WHERE session_id = :i",
    ):
        sql(driver, statement, s=seconds, i=session_id)


def retention(driver: Driver) -> Retention:
    return Retention(driver.engine, driver.engine.caller)


def counts(found: Retained) -> dict[str, tuple[int, int]]:
    """(how many, bytes) of the kinds of which something goes."""
    return {name: (one.count, one.bytes) for name, one in found.kinds.items() if one.count}
