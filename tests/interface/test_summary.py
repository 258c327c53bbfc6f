"""What is printed at the end of a session."""

from __future__ import annotations

import pytest

from celeriac.interface.summary import _print_answer


def test_an_answer_is_printed_without_marks_and_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    _print_answer({"summary": [r"**Settings:** `a_b` of `__init__` is \>= 0, not 2 \* 3 [1]"]})
    assert capsys.readouterr().out.strip() == "Settings: a_b of __init__ is >= 0, not 2 * 3 [1]"
