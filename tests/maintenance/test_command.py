"""`celeriac maintenance`, and a worker without beat that does what is due."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tasks.processes import until

from celeriac import Celeriac
from celeriac.interface.main import celeriac

Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERIAC_MAINTENANCE", "statistics=off")
    yield lambda *words: CliRunner().invoke(celeriac, ["maintenance", *words], prog_name="celeriac")


def told(cli: Cli, *words: str) -> Any:
    result = cli(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_job_is_run_by_hand_and_its_run_is_shown(cli: Cli) -> None:
    assert all(one["last_run"] is None for one in told(cli))
    done = told(cli, "run", "expiry")
    assert (done["job"], done["outcome"], done["detail"]) == (
        "expiry",
        "done",
        {"cached": 0, "state": 0, "sessions": 0},
    )
    (run,) = told(cli, "history", "expiry")
    assert (run["source"], run["outcome"], run["scheduled_at"]) == ("hand", "done", done["scheduled_at"])
    listed = {one["name"]: one for one in told(cli, "list")}
    assert listed["expiry"]["last_outcome"] == "done" and listed["expiry"]["next_run"] > listed["expiry"]["last_run"]
    assert (listed["statistics"]["schedule"], listed["statistics"]["next_run"]) == ("off", None)
    assert listed["backup"]["schedule"] == "0 3 * * *" and listed["backup"]["next_run"].endswith("T03:00:00+00:00")
    shown = cli().output
    assert "expiry" in shown and "done" in shown and "0 3 * * *" in shown
    words = " ".join(cli("history", "expiry").output.split())
    assert "cached 0, state 0" in words and words.endswith("sessions 0")


def test_statistics_are_shown(cli: Cli) -> None:
    assert told(cli, "stats") == [] and "none yet" in cli("stats").output
    assert "done in" in cli("run", "statistics").output and cli("run", "statistics").exit_code == 0
    (one,) = told(cli, "stats")
    assert one["sessions"] == {} and one["bytes"]["database"] > 0
    assert "database" in cli("stats").output and cli("stats", "--last", "5").output.count("\n") >= 3


@pytest.mark.parametrize("words", [("run", "sleep"), ("history", "sleep")])
def test_an_unknown_job_is_one_line(cli: Cli, words: tuple[str, str]) -> None:
    result = cli(*words)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "there is no job 'sleep'; there are: sweep, expiry" in result.stderr


def test_a_job_that_fails_says_why_and_exits_1(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CELERIAC_BACKUPS_DIR", str(tmp_path / "file"))
    result = cli("run", "backup")
    assert result.exit_code == 1 and "failed in" in result.stdout and "file" in result.stderr
    assert not caplog.records  # neither a traceback nor the same again
    (job,) = (one for one in told(cli) if one["name"] == "backup")
    assert job["last_outcome"] == "failed" and "file" in job["error"]
    assert "backup: " in cli().output
    doctor = CliRunner().invoke(celeriac, ["doctor", "--json"], prog_name="celeriac")
    (found,) = (one for one in json.loads(doctor.stdout)["checks"] if one["check"] == "maintenance")
    assert found["status"] == "warn" and found["found"].startswith("backup failed: ")


def test_an_embedded_worker_does_what_is_due(tmp_path: Path) -> None:
    every = {"sweep": "off", "expiry": "0.5", "statistics": "1", "checkpoints": "off", "backup": "off",
             "backup_retention": "off", "pruning": "off", "retention": "off"}  # fmt: skip
    c = Celeriac(data_dir=tmp_path, maintenance=every)
    try:
        with c.embedded():
            until(lambda: len(c.maintenance.history("expiry")) >= 3 and len(c.maintenance.stats(9)) >= 2)
        assert {run.outcome for run in c.maintenance.history("expiry")} == {"done"}
        assert {run.source for run in c.maintenance.history("expiry")} == {"worker"}
    finally:
        c.close()
