"""As for the tests of the engine: a driver for each test, on SQLite and PostgreSQL; then invariants are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import invariants
import pytest
from driver import Driver


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Iterator[Driver]:
    """The test's driver."""
    one = make_driver()
    yield one
    invariants.check(one.engine)
