"""A Celeriac of a test's own, whose history lives in the database or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac


@pytest.fixture
def open_one(tmp_path: Path) -> Iterator[Callable[..., Celeriac]]:
    """Makes a Celeriac that runs no steps, on this test's data; closed at the end."""
    made: list[Celeriac] = []

    def make(**settings: Any) -> Celeriac:
        made.append(Celeriac(embed=False, **{"data_dir": tmp_path / "data", **settings}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def celeriac(open_one: Callable[..., Celeriac]) -> Celeriac:
    """One on SQLite."""
    return open_one()


@pytest.fixture
def anywhere(open_one: Callable[..., Celeriac], database_url: str) -> Celeriac:
    """One on SQLite, and once more on PostgreSQL."""
    return open_one(database_url=database_url)
