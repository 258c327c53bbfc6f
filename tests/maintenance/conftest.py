"""A keeper over the test's database, with jobs of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driver import Driver

from celeriac.orchestration.cache import ResultCache
from celeriac.orchestration.maintenance.jobs import Job, Run
from celeriac.orchestration.maintenance.keeper import Keeper


class Upkeep(Keeper):
    """A keeper whose clock can be set forward."""

    later = 0.0

    def _clock(self) -> float:
        return super()._clock() + self.later


@pytest.fixture
def make_keeper(make_driver: Callable[..., Driver]) -> Callable[..., Upkeep]:
    """Makes keepers, as several processes would have them: `jobs` by name, `schedules` by name, settings."""

    def make(jobs: dict[str, Callable[[Run], Any]], schedules: dict[str, str] | None = None, **settings: Any) -> Upkeep:
        engine = make_driver(lease_seconds=settings.pop("lease_seconds", 5.0), **settings).engine
        engine.settings = engine.settings.model_copy(update={"maintenance": schedules or dict.fromkeys(jobs, "100")})
        cache = ResultCache(engine.settings, engine.database, engine.blobs)
        return Upkeep(engine, cache, {name: Job(name, "", work) for name, work in jobs.items()})

    return make
