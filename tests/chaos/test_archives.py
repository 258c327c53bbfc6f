"""T29 and archives that are killed, long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives.test_damage import corrupt
from archives.test_hostile import refuse_archives, refuse_backups
from archives.test_killed import kill_while_moving, kill_while_moving_a_tree
from backup.conftest import Store, keys_file, new_store

__all__ = ["keys_file", "new_store"]
pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("sealed", [False, True])
def test_each_of_2000_changed_bytes_is_detected(new_store: Callable[..., Store], keys_file: str, sealed: bool) -> None:
    corrupt(new_store, 2000, **({"keys_file": keys_file} if sealed else {}))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_t29_hostile_files(new_store: Callable[..., Store], tmp_path: Path, kind: str) -> None:
    refuse_archives(new_store(kind), bombs=True)
    refuse_backups(new_store(kind, "b"), tmp_path)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_archives_that_are_killed(new_store: Callable[..., Store], kind: str) -> None:
    kill_while_moving(new_store(kind), 40)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_trees_that_are_killed_while_they_move(new_store: Callable[..., Store], kind: str) -> None:
    kill_while_moving_a_tree(new_store(kind), 40)
