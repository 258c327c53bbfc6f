"""T24 and X13, long: backups and restores killed at random moments, and 500 changed bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from backup.conftest import Store, keys_file, new_store
from backup.test_damage import corrupt
from backup.test_killed import kill_while_creating, kill_while_restoring

__all__ = ["keys_file", "new_store"]
pytestmark = pytest.mark.chaos
ROUNDS = 40


@pytest.mark.parametrize("sealed", [False, True])
def test_500_changed_bytes_are_detected_and_nothing_is_restored(
    new_store: Callable[..., Store], keys_file: str, sealed: bool
) -> None:
    corrupt(new_store, 500, **({"backup_keys_file": keys_file} if sealed else {}))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_t24_backups_that_are_killed(new_store: Callable[..., Store], kind: str) -> None:
    kill_while_creating(new_store(kind), ROUNDS)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_t24_restores_that_are_killed(new_store: Callable[..., Store], kind: str) -> None:
    kill_while_restoring(new_store(kind), ROUNDS)


def test_t24_restores_by_a_process_of_its_own_that_are_killed(new_store: Callable[..., Store]) -> None:
    kill_while_restoring(new_store(), ROUNDS, apart=True)
