"""Kills, floods, freezes and lies, on both databases, with real workers over Redis: nothing is lost or recorded twice.

Each recipe has a short form in `make test` and a long one in `make chaos`, which prints what became of everything.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servers import RedisServer

from chaos import recipes, saving
from chaos.recipes import Size
from chaos.trial import Trial

NewTrial = Callable[..., Trial]


def sizes(short: Size, long: Size) -> pytest.MarkDecorator:
    """The short form of a recipe, and the long one under the mark `chaos`."""
    forms = [pytest.param(short, id="short"), pytest.param(long, id="long", marks=pytest.mark.chaos)]
    return pytest.mark.parametrize("size", forms)


@sizes(Size(1, 16, rounds=2, pause=0.5), Size(8, 40, rounds=20, pause=0.7))
def test_T1_a_killed_child_loses_no_step(new_trial: NewTrial, size: Size) -> None:
    recipes.kill_child(new_trial(), size)


@sizes(Size(4, rounds=1, pause=0.6), Size(180, rounds=10, pause=3.0))
def test_T2_a_killed_worker_loses_no_step(new_trial: NewTrial, size: Size) -> None:
    recipes.kill_worker(new_trial(), size)


@sizes(Size(40, rounds=2), Size(300, rounds=3))
def test_T3_a_flushed_broker_loses_no_step(new_trial: NewTrial, broker: RedisServer, size: Size) -> None:
    recipes.flush(new_trial(), size, broker)


@sizes(Size(10, pause=0.7), Size(100, rounds=5, pause=15.0))
def test_T4_a_broker_that_is_away_holds_up_nobody(new_trial: NewTrial, broker: RedisServer, size: Size) -> None:
    recipes.broker_down(new_trial(), size, broker)


@sizes(Size(8), Size(65))
def test_T7_a_commit_of_unknown_outcome_is_recorded_once(new_trial: NewTrial, size: Size) -> None:
    recipes.unknown_commits(new_trial(), size)


@sizes(Size(2, rounds=2), Size(8, rounds=8))
def test_T8_a_zombie_writes_nothing(new_trial: NewTrial, size: Size) -> None:
    recipes.zombie(new_trial(), size)


@sizes(Size(8), Size(80))
def test_T9_hints_that_come_again_do_nothing(new_trial: NewTrial, broker: RedisServer, size: Size) -> None:
    recipes.duplicates(new_trial(), size, broker)


@sizes(Size(10), Size(20, rounds=3))
def test_T16_a_poisonous_step_is_given_up(new_trial: NewTrial, size: Size) -> None:
    recipes.poison(new_trial(max_attempts=3), size)


@sizes(Size(4, rounds=2, pause=0.5), Size(90, rounds=10, pause=saving.EVERY))
def test_T21_each_backup_under_load_is_a_snapshot(new_trial: NewTrial, size: Size) -> None:
    saving.backups_under_load(new_trial(), size)


@sizes(Size(6), Size(200))
def test_T26_steps_that_meet_are_followed_once(new_trial: NewTrial, size: Size) -> None:
    recipes.fan_in(new_trial(carry_steps=1, sweep_seconds=600), size)


@sizes(Size(15, pause=0.6), Size(200, pause=2.0))
def test_T27_nothing_starts_after_a_cancel(new_trial: NewTrial, size: Size) -> None:
    recipes.cancel(new_trial(), size)
