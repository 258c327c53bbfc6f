"""Drivers over the test's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver


@pytest.fixture
def make_driver(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Makes drivers over the test's database."""
    made: list[Driver] = []

    def make(**settings: Any) -> Driver:
        made.append(Driver(database_url, tmp_path / "data", **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
