"""Fixtures for the Celery edge: servers that a test may break, and clients of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from celeriac import Celeriac, Plan, step  # noqa: E402


@pytest.fixture
def own_redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """A Redis of this test alone, to be flushed, frozen and killed. (`redis_server` skips where there is none.)"""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def client() -> Iterator[Callable[..., Celeriac]]:
    """Makes a Celeriac of this process, closed at the end."""
    made: list[Celeriac] = []

    def make(folder: Path, *args: Any, **settings: Any) -> Celeriac:
        c = Celeriac(*args, data_dir=folder / "data", agents=["edge_agents"], **settings)
        made.append(c)
        return c

    yield make
    for c in made:
        c.close()


def chain(n: int, agent: str = "edge.inc", **request: Any) -> Plan:
    """A plan of n steps, each after the one before."""
    first = step("s0", agent, dict(request))
    return Plan(
        "chain",
        [
            first,
            *(step(f"s{i}", agent, {"n": f"${{s{i - 1}.n}}", **request}, after=[f"s{i - 1}"]) for i in range(1, n)),
        ],
    )


def one(agent: str, **request: Any) -> Plan:
    """A plan of one step."""
    return Plan("one", [step("a", agent, dict(request))])


def fan(n: int, agent: str = "edge.inc", **request: Any) -> Plan:
    """A plan that fans out over a list of n."""
    return Plan(
        "fan", [step("l", "edge.list", {"n": n}), step("a", agent, {"item": "${item}", **request}, each="${l}")]
    )
