"""`celeriac state`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner, Result

from celeriac.config.settings import StateClass
from celeriac.interface import state as commands
from celeriac.interface.main import celeriac

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `celeriac state` in an empty folder."""
    for name in [name for name in os.environ if name.startswith("CELERIAC_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*words: str, **more: Any) -> Result:
        return CliRunner().invoke(celeriac, ["state", *words], prog_name="celeriac", **more)

    return call


def test_a_value_is_set_got_listed_and_deleted(cli: Cli) -> None:
    assert cli("set", "agent:a", "k", '{"n": [1, 2]}').exit_code == 0
    assert cli("set", "agent:a", "other", input='"from standard input"').exit_code == 0
    assert json.loads(cli("get", "agent:a", "k").stdout) == {"n": [1, 2]}
    assert cli("list", "agent:a").stdout == "k\nother\n"
    assert json.loads(cli("list", "agent:a", "--prefix", "o", "--values", "--json").stdout) == [
        {"key": "other", "value": "from standard input"}
    ]
    assert json.loads(cli("delete", "agent:a", "k", "none", "--json").stdout) == {"scope": "agent:a", "deleted": ["k"]}
    assert cli("clear", "agent:a").exit_code == 2, "there is nobody to ask"
    assert json.loads(cli("clear", "agent:a", "--yes", "--json").stdout)["deleted"] == 1
    assert json.loads(cli("list", "agent:a", "--json").stdout) == []


def test_a_version_that_has_moved_on_is_exit_code_1(cli: Cli) -> None:
    first = json.loads(cli("set", "global", "k", "1", "--expect", "0", "--json").stdout)
    assert first["written"] and json.loads(cli("get", "global", "k", "--json").stdout)["version"] == first["version"]
    late = cli("set", "global", "k", "2", "--expect", "0")
    assert late.exit_code == 1 and "nothing was written" in late.stderr
    assert cli("set", "global", "k", "2", "--expect", str(first["version"])).exit_code == 0
    assert cli("get", "global", "k").stdout == "2\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (("set", "global", "k", "not json"), "VALUE is not JSON"),
        (("set", "nowhere", "k", "1"), "'nowhere' is no scope; there are: global, agent:ID"),
        (("get", "global", "none"), "global has no key 'none'"),
        (("set", "global", "k", "1", "--class", "sensitive"), "there is no key"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(cli: Cli, words: tuple[str, ...], said: str) -> None:
    wrong = cli(*words)
    assert wrong.exit_code == 2 and said in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_an_unknown_backend_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_STATE_URL", "nosuch://user:secret@host")
    wrong = cli("list", "global")
    assert wrong.exit_code == 2 and "no backend is known" in wrong.stderr and "rocksdb:///folder" in wrong.stderr
    assert "secret" not in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_text_is_text_and_classes_are_those_that_there_are(cli: Cli) -> None:
    assert cli("set", "global", "k", "plain words", "--text", "--ttl", "60").exit_code == 0
    assert cli("get", "global", "k").stdout == '"plain words"\n'
    assert get_args(StateClass) == commands.STATE_CLASSES
