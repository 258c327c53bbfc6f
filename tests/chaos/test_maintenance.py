"""T13: two beats, workers that look for themselves, and processes that die: each due time of a job is run once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos import keeping
from chaos.recipes import Size
from chaos.trial import Trial
from chaos.verdict import Broken

NewTrial = Callable[..., Trial]
FORMS = [
    pytest.param(Size(0, rounds=2, pause=1.2), id="short"),
    pytest.param(Size(0, rounds=12, pause=5.0), id="long", marks=pytest.mark.chaos),
]


@pytest.mark.parametrize("size", FORMS)
def test_T13_two_beats_that_die_run_no_job_twice_and_leave_none_out(new_trial: NewTrial, size: Size) -> None:
    keeping.two_beats(new_trial(), size)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_T13_fails_for_a_mutant_without_the_conditional_key(new_trial: NewTrial) -> None:
    with pytest.raises(Broken, match="was run twice|was at work|began after"):
        keeping.two_beats(new_trial("no-key"), Size(0, rounds=0, pause=2.0))
