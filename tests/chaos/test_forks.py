"""T22: what a process has open is not used by the children that it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.workers import environment


@pytest.mark.parametrize("count", [pytest.param(20, id="short"), pytest.param(200, id="long", marks=pytest.mark.chaos)])
def test_T22_children_share_no_connection_with_their_parent(database_url: str, tmp_path: Path, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos.forking", database_url, str(count)],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
