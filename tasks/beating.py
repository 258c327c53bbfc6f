"""What beat sends: a message for each job of maintenance, at the times that the settings name."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, schedstate

from ..config import Settings, schedules
from ..config.schedules import Schedule
from ..orchestration.maintenance.keeper import planned

#: A message that no worker took within so many seconds, or until the next one is due, is thrown away.
EXPIRES_SECONDS = 3600.0


class Times(BaseSchedule):
    """The times of a schedule of ours, which are those of UTC whatever the time zone of the app is."""

    def __init__(self, text: str, nowfun: Any = None, app: Celery | None = None) -> None:
        super().__init__(nowfun=nowfun, app=app)
        self.text = text

    @property
    def _schedule(self) -> Schedule:
        found = schedules.parse(self.text)
        assert found is not None
        return found

    def is_due(self, last_run_at: datetime) -> Any:
        """Whether a time has passed since then, and in how many seconds the next one is; missed ones count as one."""
        now, schedule = time.time(), self._schedule
        due = schedule.following(self.maybe_make_aware(last_run_at).timestamp()) <= now
        return schedstate(is_due=due, next=max(schedule.following(now) - now, 0.001))

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """How long it is until the first time after that."""
        following = self._schedule.following(self.maybe_make_aware(last_run_at).timestamp())
        return timedelta(seconds=max(following - time.time(), 0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Times) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<times: {self.text} (UTC)>"

    def __reduce__(self) -> Any:  # beat pickles what it has sent into a file of its own
        return Times, (self.text,)


def schedule(app: Celery, settings: Settings, task: Any) -> None:
    """Add an entry for each job to the app's beat; `task` takes the name of a job."""
    options = {"queue": settings.maintenance_queue} if settings.maintenance_queue else {}
    for name, times in planned(settings).items():
        last = times.last(time.time())
        expires = min(times.following(last) - last, EXPIRES_SECONDS)
        app.add_periodic_task(
            Times(settings.maintenance[name]), task.s(name), name=f"celeriac.{name}", expires=expires, **options
        )
