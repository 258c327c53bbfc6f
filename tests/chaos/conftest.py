"""Trials for the recipes, and the table that is printed when all of them have run."""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac.storage import sqlite
from chaos.trial import Trial

#: What is printed at the end: one list of cells for each run of a recipe.
ROWS: list[list[str]] = []
HEAD = "recipe database attempted acked ok lost duplicated unknown extra steps p50 max seed".split()
#: The same seed makes the same faults.
SEED = int(os.environ.get("CELERIAC_TEST_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.fixture
def broker(redis_server: RedisServer) -> RedisServer:
    """The Redis of this run, emptied."""
    redis_server.client().flushall()
    return redis_server


@pytest.fixture
def new_trial(
    request: pytest.FixtureRequest, database_url: str, broker: RedisServer, tmp_path: Path
) -> Iterator[Callable[..., Trial]]:
    """Makes the trial of a test; its counts go into the table."""
    made: list[Trial] = []

    def make(mutant: str = "", **settings: Any) -> Trial:
        trial = Trial(database_url, tmp_path, broker.url, SEED, **settings)
        if mutant:
            trial.variables["CELERIAC_TEST_MUTANT"] = mutant
        made.append(trial)
        return trial

    yield make
    for trial in made:
        trial.close()
        if "mutant" not in request.node.name:
            ROWS.append(row(request.node.originalname.removeprefix("test_"), database_url, trial))


def row(recipe: str, database_url: str, trial: Trial) -> list[str]:
    """One line of the table."""
    c, times = trial.counts, trial.counts.recoveries
    spread = [f"{f(times):.2f}" if times else "-" for f in (statistics.median, max)]
    numbers = [c.attempted, c.acknowledged, c.ok, c.lost, c.duplicated, c.unknown, c.extra_attempts, c.steps]
    return [recipe, database_url.partition(":")[0].partition("+")[0], *map(str, numbers), *spread, str(trial.seed)]


def pytest_report_header() -> str:
    return f"chaos: seed {SEED} (CELERIAC_TEST_SEED)"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, and the versions that it holds for."""
    if not ROWS:
        return
    table = [HEAD, *ROWS]
    widths = [max(len(line[n]) for line in table) for n in range(len(HEAD))]
    terminalreporter.section("what became of everything that was asked for")
    for line in table:
        left, right = zip(line[:2], widths[:2], strict=True), zip(line[2:], widths[2:], strict=True)
        cells = [*(cell.ljust(width) for cell, width in left), *(cell.rjust(width) for cell, width in right)]
        terminalreporter.write_line("  ".join(cells))
    found = sqlite.describe()
    names = ("celery", "kombu", "billiard", "redis", "SQLAlchemy", "psycopg")
    terminalreporter.write_line(
        f"Python {platform.python_version()}, SQLite {found['version']} ({found['module']}, {found['journal_mode']}), "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + f", {os.cpu_count()} cores, {sys.platform}"
    )
    terminalreporter.write_line(
        "p50 and max: seconds from a fault until what it hit is ready again, or from its end to that of all sessions. "
        "Not tested: power loss, disks that lie, networks that part."
    )
