"""Processes that change one key at once lose no change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.orchestration.state.state import State

from .conftest import SHARED, url_of

SCRIPT = Path(__file__).with_name("counting.py")


@pytest.mark.parametrize("kind", SHARED)
def test_increments_by_four_processes_are_all_counted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[..., State]
) -> None:
    assert counted(url_of(kind, request, tmp_path), tmp_path, opened, 4, 100) == 400


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("kind", SHARED)
def test_8_processes_and_1000_increments_give_exactly_8000(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, opened: Callable[..., State]
) -> None:
    assert counted(url_of(kind, request, tmp_path), tmp_path, opened, 8, 1000) == 8000


def counted(url: str, folder: Path, opened: Callable[..., State], processes: int, times: int) -> int:
    """What the key holds after that many processes have added 1 so many times each; checks each version's turn too."""
    state = opened(url)
    command = [sys.executable, str(SCRIPT), url, str(folder), str(times)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for one in running:
            assert one.stdout is not None and one.stdout.readline() == "ready\n"
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        assert [one.wait(300) for one in running] == [0] * processes
    finally:
        for one in running:
            one.kill()
            one.communicate()
    return int(state.get("global", "n", consistent=True))
