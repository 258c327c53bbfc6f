"""A working folder with a database of its own, agents, and the command line in it: in this process or as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from celeriac.interface.main import celeriac

TESTS = Path(__file__).parent.parent
FAN_OUT = {
    "name": "demo",
    "steps": [
        {"name": "list", "agent": "cli.list", "request": {"count": 6}},
        {"name": "work", "agent": "cli.work", "each": "${list.items}", "request": {"item": "${item}", "seconds": 0}},
        {"name": "join", "agent": "cli.join", "request": {"parts": "${work}", "query": "${query}"}},
    ],
}
FAILING = {"name": "failing", "steps": [{"name": "burn", "agent": "cli.fail"}]}

Cli = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; plans are written to it by `plan`."""
    for name in [name for name in os.environ if name.startswith("CELERIAC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CELERIAC_AGENTS", "interface.acting")
    monkeypatch.setenv("CLI_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("CELERIAC_CONCURRENCY", "2")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path) -> Cli:
    """Runs a command in this process: `cli("sessions", "list")`."""

    def call(*words: str, **more: Any) -> Result:
        return CliRunner().invoke(celeriac, [str(word) for word in words], prog_name="celeriac", **more)

    return call


@pytest.fixture
def process(folder: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a command as a process of its own."""

    def call(*words: str, **more: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": folder} | more
        return subprocess.Popen([sys.executable, "-m", "celeriac", *words], **pipes)

    return call


def plan(folder: Path, data: dict[str, Any], **of_work: Any) -> str:
    """Write a plan file; `of_work` goes into the request of the step `work`."""
    data = json.loads(json.dumps(data))
    for step in data["steps"]:
        if step["name"] == "work":
            step["request"] |= of_work
    file = folder / f"{data['name']}.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)
