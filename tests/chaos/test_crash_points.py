"""T10: wherever a process is killed, the next one takes up what it was doing. Every declared crash point is reached."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer

from celeriac.storage.faults import POINTS
from chaos import crashes
from chaos.conftest import ROWS, SEED, row
from chaos.crashes import Crash
from chaos.trial import Trial
from chaos.verdict import Counts

#: Makes a trial on a database and in a folder of its own.
Trials = Callable[..., Trial]


@pytest.fixture(params=["sqlite", "postgresql"])
def trials(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trials]:
    """As many trials as are asked for."""
    with ExitStack() as stack:

        def make(broker_url: str = "", **settings: Any) -> Trial:
            name = f"crash_{uuid.uuid4().hex}"
            folder = tmp_path / name
            folder.mkdir()
            url = f"sqlite:///{folder / 'celeriac.db'}"
            if request.param == "postgresql":
                server: PostgresServer = request.getfixturevalue("postgres_server")
                url = server.create_database(name)
                stack.callback(server.drop_database, name)
            trial = Trial(url, folder, broker_url, SEED, concurrency=crashes.SLOTS, **settings)
            stack.callback(trial.close)
            return trial

        yield make


def note(recipe: str, trial: Trial, found: list[Crash]) -> None:
    """One line of the table for all crashes of a sweep."""
    total = Counts(recoveries=[t for c in found for t in c.counts.recoveries])
    for name in ("attempted", "acknowledged", "ok", "lost", "duplicated", "unknown", "extra_attempts", "steps"):
        setattr(total, name, sum(getattr(c.counts, name) for c in found))
    trial.counts = total
    ROWS.append(row(f"{recipe} ({sum(c.reached for c in found)} crashes)", trial.settings["database_url"], trial))


@pytest.mark.parametrize("passes", [pytest.param(1, id="short"), pytest.param(6, id="long", marks=pytest.mark.chaos)])
def test_T10_a_crash_anywhere_in_one_process_is_mended_by_the_next(trials: Trials, passes: int) -> None:
    # The second durable call is where the first one is recorded, and must not be made again.
    last = {"after-call": max(passes, 2)}
    cases = [(trials(), point, nth) for point in POINTS for nth in range(1, last.get(point, passes) + 1)]
    note("T10_in_one_process", cases[0][0], crashes.sweep(crashes.in_one_process, cases))


@pytest.mark.chaos
def test_T10_a_crash_anywhere_in_a_worker_is_mended_by_the_next(trials: Trials, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("redis_server")
    found = []
    for point in POINTS:
        for nth in (1, 2, 4):
            server.client().flushall()
            case = (trials(server.url, carry_steps=2), point, nth)
            found += crashes.sweep(crashes.in_a_worker, [case])
    note("T10_in_a_worker", case[0], found)
