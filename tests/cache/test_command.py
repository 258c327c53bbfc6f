"""`celeriac cache`: figures, taking results out, and what it says to input that cannot be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celeriac import Celeriac
from celeriac.interface.main import celeriac


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cli(*words: str) -> Result:
    return CliRunner().invoke(celeriac, list(words), prog_name="celeriac")


def told(*words: str) -> Any:
    result = cli(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def filled(folder: Path) -> Celeriac:
    c = Celeriac(embed=False)
    for n in range(3):
        c.cache.put(c.cache.key("reader", n, permissions=[]), n, tags=["odd" if n % 2 else "even"], seconds=2)
    c.cache.put(c.cache.key("writer", 0, permissions=[]), "x")
    c.cache.get(c.cache.key("reader", 1, permissions=[]))
    c.close()
    return c


def test_stats_tells_what_is_there_and_how_often_it_was_found(filled: Celeriac) -> None:
    found = told("cache", "stats")
    assert (found["entries"], found["hits"], found["agents"]["reader"]["entries"]) == (4, 1, 3)
    shown = cli("cache", "stats")
    assert shown.exit_code == 0 and "4 of" in shown.stdout and "reader" in shown.stdout


def test_results_are_invalidated_by_what_they_are(filled: Celeriac) -> None:
    assert told("cache", "invalidate", "--tag", "even") == {"invalidated": 2}
    assert told("cache", "invalidate", "--agent", "writer") == {"invalidated": 1}
    assert cli("cache", "invalidate", "--everything").stdout == "invalidated: 1\n"
    assert told("cache", "stats")["entries"] == 0


def test_results_are_pruned(filled: Celeriac) -> None:
    assert told("cache", "prune", "--min-accesses", "1") == {"pruned": 3}
    assert told("cache", "prune", "--expired") == {"pruned": 0}
    assert told("cache", "prune", "--max-entries", "0") == {"pruned": 1}


@pytest.mark.parametrize(
    "words",
    [["invalidate"], ["invalidate", "--tag", "a", "--everything"], ["prune"], ["prune", "--max-bytes", "-1"], ["no"]],
)
def test_bad_input_ends_with_two_and_says_what_is_allowed(folder: Path, words: list[str]) -> None:
    result = cli("cache", *words)
    assert result.exit_code == 2 and result.stderr and "Traceback" not in result.stderr


PLAN = """
name: twice
steps:
  - {name: first, agent: cache.quick, request: {n: 1}}
  - {name: second, agent: cache.quick, request: {n: 1}, after: [first]}
  - {name: third, agent: cache.quick, request: {n: 1}, after: [second], cache: false}
"""


def test_running_a_plan_says_what_came_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_LEDGER", str(folder / "ledger"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("CELERIAC_AGENTS", "cache_agents")
    (folder / "plan.yaml").write_text(PLAN)
    command = [sys.executable, "-m", "celeriac", "run", "plan.yaml", "--query", "x"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+)  from the cache", done.stdout + done.stderr) == ["second"]
    assert len((folder / "ledger").read_text().splitlines()) == 2
    (session,) = told("sessions", "list")
    assert session["saved"]["runs"] == 1
    assert "1 run, " in cli("sessions", "show", session["id"]).stdout


def test_what_the_page_on_the_cache_shows_is_so(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cache.md").read_text()
    first, second, own = re.findall(r"```python\n(.*?)```", page, re.S)
    for script, says in ((first + second, "True 1"), (own, "{'tea': 4.2}")):
        (folder / "page.py").write_text(script)
        done = subprocess.run([sys.executable, "page.py"], cwd=folder, capture_output=True, text=True, timeout=60)
        assert (done.stdout.strip(), done.stderr) == (says, "")
