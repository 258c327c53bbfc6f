"""The Celery app of T13: Celeriac with ten jobs of maintenance, each due every second, that write what they do down."""

from __future__ import annotations

import os
import random
import time
from typing import Any

from celeriac import Celeriac
from celeriac.config import Settings
from celeriac.orchestration.maintenance.jobs import JOBS, Job, Run
from chaos import ledger, mutants

PERIOD = 1.0
NAMES = [f"job{n}" for n in range(10)]


def work(run: Run) -> dict[str, Any]:
    """Take a while, so that some are killed at it."""
    key, written = f"{run.job}/{run.scheduled_at}", ledger.here()
    written.write(key, run.epoch, "start")
    time.sleep(random.uniform(0.02, 0.12))
    written.write(key, run.epoch, "end")
    return {"pid": os.getpid()}


def settings(loaded: Settings) -> Settings:
    """Those settings with schedules for these jobs, and with runs enough to be looked at afterwards."""
    return loaded.model_copy(update={"maintenance": dict.fromkeys(NAMES, str(PERIOD)), "maintenance_kept": 100_000})


if ledger.VARIABLE in os.environ:  # in a process of the system under test
    JOBS.clear()
    JOBS.update({name: Job(name, work.__doc__ or "", work) for name in NAMES})
    if os.environ.get(mutants.VARIABLE):
        mutants.MUTANTS[os.environ[mutants.VARIABLE]]()
    app = Celeriac(settings=settings(Settings.load())).app
