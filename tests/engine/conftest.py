"""A driver for each test, on SQLite and on PostgreSQL; after each test the invariants are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import invariants
import pytest
from driver import Driver


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "damages_checkpoints: leaves checkpoints that cannot be read")


@pytest.fixture
def driver(make_driver: Callable[..., Driver], request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The test's driver, with the agents `echo` (gives its request back) and `fail` (always raises)."""
    one = make_driver()

    @one.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    @one.agent("fail")
    def fail(request: Any, ctx: Any) -> Any:
        raise ValueError(f"cannot do {request}")

    yield one
    invariants.check(one.engine, damaged="damages_checkpoints" in request.keywords)
