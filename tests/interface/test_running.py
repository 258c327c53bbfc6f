"""`run`, `enqueue`, `worker`, `sessions resume` and `retry`: exit codes, what is printed, what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import RedisServer

from .conftest import FAILING, FAN_OUT, Cli, plan

Process = Callable[..., subprocess.Popen[str]]


def ledger(folder: Path) -> list[str]:
    file = folder / "ledger"
    return file.read_text().splitlines() if file.exists() else []


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_plan_that_completes_exits_0_and_prints_one_json_document(cli: Cli, folder: Path) -> None:
    done = cli("run", plan(folder, FAN_OUT), "--query", "why?", "--user", "ana", "--tag", "x", "--json")
    assert done.exit_code == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["status"], view["query"], view["user"], view["tags"]) == ("completed", "why?", "ana", ["x"])
    assert view["result"] == {"count": 6, "query": "why?"}
    assert [s["name"] for s in view["steps"]] == ["list", "join", *(f"work-{n}" for n in range(6))]


def test_without_a_terminal_there_are_lines_and_no_escape_codes(cli: Cli, folder: Path) -> None:
    done = cli("run", plan(folder, FAN_OUT))
    assert "\x1b" not in done.output
    for told in ("started   list", "opened    work  6 steps", "work  6/6", "done      join", "completed", '"count": 6'):
        assert told in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 220


def test_quiet_prints_nothing_when_all_is_well(cli: Cli, folder: Path) -> None:
    done = cli("run", plan(folder, FAN_OUT), "--quiet")
    assert (done.exit_code, done.output) == (0, "")
    failed = cli("run", plan(folder, FAILING), "--quiet")
    assert (failed.exit_code, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.startswith("celeriac: ") and "the disk is on fire" in failed.stderr


def test_a_plan_that_fails_exits_1_and_says_why_and_can_be_retried(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = cli("run", plan(folder, FAILING))
    assert failed.exit_code == 1
    assert "ValueError: the disk is on fire" in failed.stdout
    (session,) = json.loads(cli("sessions", "list", "--status", "failed", "--json").stdout)
    assert session["id"] in failed.stdout
    monkeypatch.setenv("CLI_MENDED", "1")
    mended = cli("sessions", "retry", session["id"][:13], "--json")
    assert mended.exit_code == 0, mended.stderr
    assert json.loads(mended.stdout)["result"] == {"mended": True}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nsteps: [{name: a, agent: nobody}]", "nobody"),
        ("name: x\nsteps: [{name: a, agent: cli.fail, after: [a]}]", "cycle"),
        ("name: [", "not YAML"),
    ],
)
def test_a_bad_plan_exits_2_with_one_line(cli: Cli, folder: Path, text: str, told: str) -> None:
    (folder / "bad.yaml").write_text(text)
    refused = cli("run", "bad.yaml")
    assert refused.exit_code == 2
    assert told in refused.stderr and len(refused.stderr.splitlines()) == 1 and not refused.stdout


def test_a_missing_plan_exits_2(cli: Cli) -> None:
    refused = cli("run", "nowhere.yaml")
    assert refused.exit_code == 2 and "nowhere.yaml" in refused.stderr


def test_a_permission_that_is_not_held_fails_the_step_and_is_named(cli: Cli, folder: Path) -> None:
    file = plan(folder, {"name": "secret", "steps": [{"name": "read", "agent": "cli.secret"}]})
    assert json.loads(cli("run", file, "--permission", "docs:read", "--json").stdout)["result"] == {
        "granted": ["docs:read"]
    }
    refused = cli("run", file, "--permission", "docs:write")
    assert refused.exit_code == 1 and "docs:read" in refused.stdout


def test_the_same_key_is_the_same_session(cli: Cli, folder: Path) -> None:
    file = plan(folder, FAN_OUT)
    first, second = (json.loads(cli("run", file, "--key", "order-17", "--json").stdout) for _ in range(2))
    assert first["id"] == second["id"] and ledger(folder).count("list") == 1


def test_enqueue_does_not_wait_and_a_worker_runs_it(cli: Cli, folder: Path, process: Process) -> None:
    enqueued = cli("enqueue", plan(folder, FAN_OUT))
    assert enqueued.exit_code == 0 and "no worker is running" in enqueued.stderr
    session = enqueued.stdout.strip()
    assert not ledger(folder)
    worker = process("worker")
    try:
        until(lambda: json.loads(cli("sessions", "show", session, "--json").stdout)["status"] == "completed")
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=20)
    finally:
        worker.kill()
    assert worker.returncode == 0 and "Traceback" not in told


def test_ctrl_c_pauses_and_resume_goes_on_without_doing_again_what_is_done(
    folder: Path, process: Process, cli: Cli
) -> None:
    running = process("run", plan(folder, FAN_OUT, seconds=0.4))
    until(lambda: len(ledger(folder)) >= 3)
    running.send_signal(signal.SIGINT)
    out, told = running.communicate(timeout=30)
    assert running.returncode == 130, told
    assert "celeriac sessions resume" in told and "Traceback" not in told
    (session,) = json.loads(cli("sessions", "list", "--json").stdout)
    assert session["status"] == "paused"
    steps = json.loads(cli("steps", "list", session["id"], "--json").stdout)
    assert not [step for step in steps if step["status"] == "running"]
    resumed = cli("sessions", "resume", session["id"], "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["result"]["count"] == 6
    assert sorted(ledger(folder)) == sorted({"list", "join", *(f"work {n}" for n in range(6))})


def test_the_second_ctrl_c_leaves_at_once_and_nothing_is_lost(folder: Path, process: Process, cli: Cli) -> None:
    running = process("run", plan(folder, FAN_OUT, seconds=8))
    until(lambda: len(ledger(folder)) >= 3)
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=10)
    assert running.returncode == 130 and time.monotonic() - began < 2
    (session,) = json.loads(cli("sessions", "list", "--json").stdout)
    assert session["status"] == "paused"


def test_a_killed_run_is_finished_by_resume(folder: Path, process: Process, cli: Cli) -> None:
    running = process("run", plan(folder, FAN_OUT, seconds=0.3))
    until(lambda: len(ledger(folder)) >= 4)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    (session,) = json.loads(cli("sessions", "list", "--json").stdout)
    assert session["status"] == "active"
    resumed = cli("sessions", "resume", session["id"], "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["status"] == "completed" and ledger(folder).count("list") == 1


def test_a_session_that_another_process_pauses_ends_the_run_with_3(folder: Path, process: Process, cli: Cli) -> None:
    running = process("run", plan(folder, FAN_OUT, seconds=0.3))
    until(lambda: len(ledger(folder)) >= 2)
    (session,) = json.loads(cli("sessions", "list", "--json").stdout)
    assert cli("sessions", "pause", session["id"]).exit_code == 0
    _, told = running.communicate(timeout=20)
    assert running.returncode == 3 and "celeriac sessions resume" in told


def test_resuming_a_completed_session_is_refused(cli: Cli, folder: Path) -> None:
    session = json.loads(cli("run", plan(folder, FAN_OUT), "--json").stdout)["id"]
    refused = cli("sessions", "resume", session)
    assert refused.exit_code == 2 and "completed" in refused.stderr and len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
def test_with_a_broker_the_workers_run_it_and_run_follows(
    folder: Path, process: Process, cli: Cli, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_BROKER_URL", redis_server.url)
    monkeypatch.setenv("CELERIAC_REDIS_URL", redis_server.url)
    monkeypatch.setenv("CELERIAC_QUEUE", "cli-test")
    running = process("run", plan(folder, FAN_OUT), "--json")
    assert running.stderr is not None
    told = ""
    while "no worker is running" not in told:
        told = running.stderr.readline()
        assert told, "it ended without a word of the missing worker"
    worker = process("worker", "--concurrency", "2")
    try:
        out, _ = running.communicate(timeout=40)
        assert running.returncode == 0 and json.loads(out)["result"]["count"] == 6
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=20)
    finally:
        worker.kill()
    assert worker.returncode == 0
    seen = {one["check"]: one["status"] for one in json.loads(cli("doctor", "--json").stdout)["checks"]}
    assert seen["broker"] == seen["redis"] == "ok" and "broker memory" not in seen
