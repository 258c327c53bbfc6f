"""Testing the tests: with one safeguard taken out of the system, a recipe has to fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servers import RedisServer

from chaos import recipes
from chaos.recipes import Size
from chaos.trial import Trial
from chaos.verdict import Broken

NewTrial = Callable[..., Trial]


def test_T8_fails_for_a_mutant_without_the_check_of_the_epoch(new_trial: NewTrial) -> None:
    with pytest.raises(Broken, match="I4: step only of .* counts the result of epoch"):
        recipes.zombie(new_trial("no-epoch"), Size(1, rounds=1))


def test_T3_fails_for_a_mutant_without_a_sweeper(new_trial: NewTrial, broker: RedisServer) -> None:
    with pytest.raises(Broken, match=r"has started: not in"):
        recipes.flush(new_trial("no-sweeper"), Size(40, rounds=1), broker, limit=4)


def test_T26_fails_for_a_mutant_that_publishes_before_it_commits(new_trial: NewTrial) -> None:
    with pytest.raises(Broken, match=r"lost: [1-9]"):
        recipes.fan_in(new_trial("publish-before-commit", carry_steps=1, sweep_seconds=600), Size(1), limit=4)
