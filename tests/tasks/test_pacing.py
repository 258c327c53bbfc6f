"""Steps that become due later: those of agents with a rate limit, and attempts that are made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import RedisServer

from celeriac import Celeriac
from tasks.conftest import fan, one
from tasks.processes import Worker, ended

#: No sweep helps in the time of a test.
NO_SWEEPS = {"sweep_seconds": 60.0, "lease_seconds": 120.0}


@pytest.fixture(params=["workers", "embedded"])
def c(request: pytest.FixtureRequest, tmp_path: Path, client: Callable[..., Celeriac]) -> Iterator[Celeriac]:
    """Celeriac over two workers that share a limit, and over the one in this process."""
    if request.param == "embedded":
        yield client(tmp_path, **NO_SWEEPS)
        return
    redis: RedisServer = request.getfixturevalue("own_redis")
    settings = {"broker_url": redis.url, **NO_SWEEPS}
    with ended(*(Worker(tmp_path, "-c", "1", **settings) for _ in range(2))):
        yield client(tmp_path, **settings)


def test_a_rate_limit_holds_for_all_workers_together_and_its_steps_begin_when_they_are_due(c: Celeriac) -> None:
    session = c.sessions.start(fan(12, "edge.paced"))
    assert session.wait(20) == "completed"
    began = sorted(session.result)
    sixths = [later - earlier for earlier, later in zip(began, began[6:], strict=False)]
    assert len(began) == 12 and min(sixths) > 0.45 and began[-1] - began[0] < 3.0, began


def test_an_attempt_is_made_again_when_its_backoff_is_over_without_a_sweep(c: Celeriac) -> None:
    began = time.monotonic()
    session = c.sessions.start(one("edge.second"))
    assert session.wait(10) == "completed"
    assert session.steps()[0]["attempts"] == 2 and time.monotonic() - began < 5
