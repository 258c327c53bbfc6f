"""The system with one of its safeguards taken out: recipes that do not notice prove nothing."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, update

from celeriac.orchestration import engine, sweeping
from celeriac.storage import maintenance, steps
from celeriac.storage.database import Query, now

VARIABLE = "CELERIAC_TEST_MUTANT"


class _WithoutEpoch(Query):
    __slots__ = ()

    def text(self, dialect: Any) -> tuple[str, dict[str, Any]]:
        sql, carried = super().text(dialect)
        changed, count = re.subn(r" AND steps\.epoch = [^\s]+", "", sql)
        assert count == 1, sql
        return changed, carried


def no_epoch() -> None:
    """Whoever ends a running step may, whether or not the claim is still theirs."""
    for name in ("_FINISH", "_FAIL", "_RENEW"):
        setattr(steps, name, _WithoutEpoch(getattr(steps, name).construct))


def no_sweeper() -> None:
    """Nobody looks for what was lost on the way."""
    sweeping.sweep = lambda _engine: sweeping.Swept()


def publish_before_commit() -> None:
    """Hints go out while the transaction that they tell of is still open; the window is wide enough to be seen."""
    follow = engine.Engine._next

    def too_early(self: Any, c: Any, record: Callable[[Any], Any], *more: Any) -> Any:
        def record_and_publish(turn: Any) -> Any:
            recorded = record(turn)
            if recorded.hints:
                self.hints.publish(recorded.hints)
                time.sleep(0.1)
            return dataclasses.replace(recorded, hints=[])

        return follow(self, c, record_and_publish, *more)

    engine.Engine._next = too_early  # type: ignore[method-assign]


def no_key() -> None:
    """Whoever found a job due takes it, also if it was taken since; the window is wide enough to be seen."""
    jobs, take = maintenance.maintenance_jobs.c, maintenance.take
    maintenance._TAKE = Query(
        update(maintenance.maintenance_jobs)
        .where(jobs.job == bindparam("named"))
        .values(
            epoch=jobs.epoch + 1,
            scheduled_at=bindparam("due"),
            claim=bindparam("who"),
            lease_until=now() + bindparam("lease"),
        )
        .returning(jobs.epoch)
    )

    def slowly(tx: Any, *more: Any, **others: Any) -> Any:
        time.sleep(0.03)
        return take(tx, *more, **others)

    maintenance.take = slowly


MUTANTS = {
    "no-epoch": no_epoch,
    "no-sweeper": no_sweeper,
    "publish-before-commit": publish_before_commit,
    "no-key": no_key,
}
