"""The command itself: it starts lightly, says what is wrong in one line, and joins `celery`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.interface import known_faults
from celeriac.interface.main import COMMANDS

from .conftest import Cli


def test_help_of_every_command_imports_neither_celery_nor_a_database(folder: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from celeriac.interface.main import celeriac\n"
        "out = CliRunner().invoke(celeriac, ['--help']).output; assert 'research' in out, out\n"
        f"for name in {list(COMMANDS)}: assert CliRunner().invoke(celeriac, [name, '--help']).exit_code == 0, name\n"
        "print(sorted({'celery', 'kombu', 'sqlalchemy', 'pydantic', 'rich', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_can_speak_json(cli: Cli) -> None:
    todo = [(name,) for name in COMMANDS]
    while todo:
        names = todo.pop()
        words = cli(*names, "--help").stdout
        if "Commands:" not in words:
            assert "--json" in words, " ".join(names)
            continue
        todo += [(*names, line.split()[0]) for line in words.split("Commands:")[1].splitlines() if line[:3].strip()]


def test_a_mistyped_command_gets_a_suggestion(cli: Cli) -> None:
    wrong = cli("sesions")
    assert wrong.exit_code == 2 and "'sessions'" in wrong.stderr


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("deep.json", "[" * 100_000),
        ("deep.yaml", "[" * 2_000),
        ("date.yaml", "name: x\nsteps: [{name: a, agent: locator, request: 2024-13-45}]"),
        ("list.yaml", "- 1"),
        ("number.yaml", "5"),
        ("empty.yaml", ""),
    ],
)
def test_a_file_that_is_no_plan_is_one_line_and_starts_nothing(cli: Cli, folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    for command in ("run", "enqueue"):
        wrong = cli(command, file)
        assert (wrong.exit_code, len(wrong.stderr.splitlines()), wrong.stdout) == (2, 1, ""), wrong.stderr
        assert file in wrong.stderr and "unexpected" not in wrong.stderr
    assert cli("sessions", "list", "--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "show", "x" * 100_000),
        ("state", "migrate", "global", "a\nb"),
        ("state", "get", "global", "a\x1b[2J\nb"),
        ("state", "list", "global", "--limit", "9" * 30),
    ],
)
def test_an_error_is_told_in_one_line_whatever_was_typed(cli: Cli, arguments: tuple[str, ...]) -> None:
    wrong = cli(*arguments)
    said = [line for line in wrong.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert wrong.exit_code == 2 and len(said) == 1 and len(said[0]) < 2_100
    assert "unexpected" not in said[0] and "\x1b" not in said[0]


def test_a_bad_setting_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_LEASE_SECONDS", "soon")
    wrong = cli("sessions", "list")
    assert wrong.exit_code == 2 and len(wrong.stderr.splitlines()) == 1
    assert "lease_seconds" in wrong.stderr and "soon" in wrong.stderr


def test_a_missing_settings_file_is_one_line(cli: Cli) -> None:
    wrong = cli("--config", "nowhere.toml", "sessions", "list")
    assert wrong.exit_code == 2 and "nowhere.toml" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_a_settings_file_is_used(cli: Cli, folder: Path) -> None:
    (folder / "mine.toml").write_text('data_dir = "elsewhere"\n')
    assert cli("--config", "mine.toml", "sessions", "list").exit_code == 0
    assert (folder / "elsewhere" / "celeriac.db").exists()


def test_an_agents_module_that_is_not_there_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_AGENTS", "no.such.module")
    wrong = cli("sessions", "list")
    assert wrong.exit_code == 2 and "no.such.module" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_a_database_that_does_not_answer_is_one_line_without_its_password(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/x")
    for command in (("sessions", "list"), ("db", "status")):
        wrong = cli(*command)
        assert wrong.exit_code == 2 and len(wrong.stderr.splitlines()) == 1, wrong.stderr
        assert "127.0.0.1" in wrong.stderr and "hunter2" not in wrong.stderr


def test_a_broker_that_does_not_answer_is_one_line_but_enqueue_keeps_the_session(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "p.yaml").write_text("name: p\nsteps: [{name: a, agent: cli.fail}]")
    monkeypatch.setenv("CELERIAC_BROKER_URL", "redis://:hunter2@127.0.0.1:9/0")
    for command in (("run", "p.yaml"), ("worker",)):
        wrong = cli(*command)
        assert wrong.exit_code == 2 and "broker" in wrong.stderr and len(wrong.stderr.splitlines()) == 1, wrong.stderr
        assert "hunter2" not in wrong.stderr
    kept = cli("enqueue", "p.yaml")
    assert kept.exit_code == 0 and "the session is stored" in kept.stderr
    assert json.loads(cli("sessions", "show", kept.stdout.strip(), "--json").stdout)["status"] == "active"


def test_a_file_that_is_no_database_is_one_line(cli: Cli, folder: Path) -> None:
    (folder / ".celeriac").mkdir()
    (folder / ".celeriac" / "celeriac.db").write_bytes(b"this is no database" * 1000)
    wrong = cli("sessions", "list")
    assert wrong.exit_code == 2 and "not a database" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("--debug", "sessions", "show", "nothing").stderr


def test_a_fault_of_ours_is_one_line_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.config import Settings

    monkeypatch.setattr(Settings, "load", lambda **_: 1 / 0)
    wrong = cli("sessions", "list")
    assert wrong.exit_code == 2 and "--debug" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_it_is_a_command_of_celery_with_the_users_app(folder: Path) -> None:
    (folder / "shop.py").write_text("from celery import Celery\napp = Celery('shop', broker='memory://')\n")
    (folder / "p.yaml").write_text("name: p\nsteps: [{name: a, agent: cli.fail}]")
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}"}
    celery = [sys.executable, "-m", "celery", "-A", "shop", "celeriac"]

    def call(*words: str) -> str:
        done = subprocess.run([*celery, *words], capture_output=True, text=True, env=env, cwd=folder, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    session = call("enqueue", "p.yaml").strip()
    assert [one["id"] for one in json.loads(call("sessions", "list", "--json"))] == [session]


@pytest.mark.parametrize(
    ("found", "status"),
    [((3, 11, 7), "warn"), ((3, 11, 17), "ok"), ((3, 13, 3), "warn"), ((3, 13, 6), "ok"), ((3, 14, 0), "ok")],
)
def test_doctor_knows_the_tar_faults_of_python(found: tuple[int, ...], status: str) -> None:
    assert known_faults.python(found)[0] == status


@pytest.mark.parametrize(
    ("found", "status"),
    [("6.2.19", "warn"), ("6.2.20", "ok"), ("7.0.15", "warn"), ("7.2.11", "ok"), ("8.2.1", "warn"), ("8.4.0", "ok")],
)
def test_doctor_knows_the_lua_faults_of_redis(found: str, status: str) -> None:
    assert known_faults.redis(found)[0] == status


def test_doctor_changes_nothing_and_tells_settings_and_where_they_come_from(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "celeriac.toml").write_text('queue = "mine"\n')
    before = sorted(folder.iterdir())
    done = cli("doctor", "--json")
    view = json.loads(done.stdout)
    assert done.exit_code == 0 and sorted(folder.iterdir()) == before
    assert view["settings"]["queue"] == {"value": "mine", "from": "celeriac.toml"}
    assert view["settings"]["agents"]["from"] == "CELERIAC_AGENTS"
    assert view["settings"]["model"]["from"] == "default"
    assert {"python", "celery", "sqlite", "database", "broker", "disk"} <= {one["check"] for one in view["checks"]}


def test_doctor_exits_1_when_a_server_does_not_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_BROKER_URL", "amqp://guest:hunter2@127.0.0.1:9//")
    monkeypatch.setenv("CELERIAC_REDIS_URL", "redis://:hunter2@127.0.0.1:9/1")
    monkeypatch.setenv("CELERIAC_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/x")
    done = cli("doctor")
    assert done.exit_code == 1 and done.stdout.count("broken") >= 3 and "hunter2" not in done.output
