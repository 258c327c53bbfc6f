"""A driver whose agents write down what they are asked, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import invariants
import pytest
from driver import Driver

from trees.ledger import Ledger


@pytest.fixture
def ledger(make_driver: Callable[..., Driver]) -> Iterator[Ledger]:
    """The test's driver; the invariants are checked after it."""
    one = make_driver(Ledger)
    assert isinstance(one, Ledger)
    yield one
    invariants.check(one.engine)
