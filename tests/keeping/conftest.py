"""An engine for each test, on SQLite and on PostgreSQL; afterwards the invariants are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import invariants
import pytest
from driver import Driver


@pytest.fixture
def make(make_driver: Callable[..., Driver]) -> Iterator[Callable[..., Driver]]:
    """Makes drivers with the agent `echo`, over one database."""
    made: list[Driver] = []

    def one(**settings: Any) -> Driver:
        driver = make_driver(**settings)

        @driver.agent("echo")
        def echo(request: Any, ctx: Any) -> Any:
            return request

        @driver.agent("fail")
        def fail(request: Any, ctx: Any) -> Any:
            raise ValueError("cannot")

        made.append(driver)
        return driver

    yield one
    invariants.check(made[-1].engine)
