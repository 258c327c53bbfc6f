"""`celeriac chat`: over a pipe, as JSON lines, and in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celeriac import Celeriac
from celeriac.interface.main import celeriac
from celeriac.orchestration.conversations import sending

pytest.importorskip("pydantic_ai")

from conversations import talking_agents

TESTS = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "celeriac", "chat"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CELERIAC_")}
    own = {"CELERIAC_AGENTS": "conversations.talking_agents", "PYTHONPATH": str(TESTS), "CELERIAC_CONCURRENCY": "1"}
    return {**kept, **own, "CELERIAC_DATA_DIR": str(tmp_path / "data"), "TERM": "xterm"}


def piped(env: dict[str, str], folder: Path, said: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], input=said, cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def here(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Says lines to the command in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda said, *options: CliRunner().invoke(celeriac, ["chat", *options], input=said, env=env)


def test_over_a_pipe_each_line_is_a_message_or_a_command(env: dict[str, str], tmp_path: Path) -> None:
    lines = ["hello", "", "shout loud", "/history 4", "/sessions", "/export talk.jsonl", "/help", "/exit", "never"]
    done = piped(env, tmp_path, "\n".join(lines), "--agent", "talker.cli")
    assert done.returncode == 0, done.stderr
    answers, _, rest = done.stdout.partition("They shout: LOUD")
    assert answers == "you said hello \n" and "\x1b" not in done.stdout
    assert "tool: LOUD\nassistant: They shout: LOUD" in rest
    (id_,) = re.findall(r"\* (\S+)  hello\n", rest)
    assert "/export" in rest and "never" not in done.stdout
    assert 'assistant: calls shout {"text": "loud"}' in rest
    exported = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    roles = [entry["role"] for entry in exported]
    assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "assistant"]
    again = piped(env, tmp_path, "more\n/clear\n/history\n/nope\n/export talk.jsonl\n", "--session", id_)
    assert again.returncode == 1 and again.stdout == "you said more \n"
    told = again.stderr.splitlines()
    assert told[0] == "9 entries deleted" and told[1] == "nothing was said yet"
    assert "no command '/nope'" in told[2] and "is there already" in told[3]


def test_as_json_everything_is_a_line(here: Callable[..., Result]) -> None:
    done = here("shout x\nfail\n/sessions\n", "--agent", "talker.cli", "--json")
    assert done.exit_code == 1
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] != "text"] == ["session", "tool", "answer", "answer", "sessions"]
    text = "".join(e["text"] for e in events if e["event"] == "text")
    good, bad = (e for e in events if e["event"] == "answer")
    assert (
        good["success"] and good["result"] == text and [s["call"] for s in good["steps"]] == ["model", "tool", "model"]
    )
    assert not bad["success"] and "bad request" in bad["error"] and events[-1]["here"] == events[0]["id"]


def test_two_processes_that_speak_at_once_are_answered_one_after_the_other(env: dict[str, str], tmp_path: Path) -> None:
    first = piped(env, tmp_path, "first\n", "--agent", "talker.cli", "--json")
    session_id = json.loads(first.stdout.splitlines()[0])["id"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": env}
    speakers = [subprocess.Popen([*COMMAND, "--session", session_id], **pipes) for _ in range(2)]
    for number, one in enumerate(speakers):
        one.stdin.write("".join(f"{number}{letter}\n" for letter in "abc"))
        one.stdin.close()
    for number, one in enumerate(speakers):
        said = one.stdout.read()
        assert one.wait(60) == 0 and said == "".join(f"you said {number}{letter} \n" for letter in "abc")
    c = Celeriac(data_dir=tmp_path / "data", embed=False)
    contents = [entry["content"] for entry in c.sessions.get(session_id).history() if entry["role"] != "system"]
    c.close()
    assert len(contents) == 14
    assert all(answer == f"you said {said} " for said, answer in zip(contents[::2], contents[1::2], strict=True))


def test_a_conversation_that_a_crash_left_is_finished_by_resume(env: dict[str, str], tmp_path: Path) -> None:
    talking_agents.talker  # noqa: B018, it is registered here too
    c = Celeriac(data_dir=tmp_path / "data", embed=False)
    session = c.sessions.create("talk", agent="talker.cli")
    for text in ("one", "two"):
        sending.send(c.engine, session.id, text, 10, None, None)
    asked = [sys.executable, "-m", "celeriac", "sessions", "resume", session.id]
    done = subprocess.run(asked, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"celeriac chat --session {session.id}" in done.stderr, done.stderr
    assert session.status == "active" and session.history()[-1]["content"] == "you said two "
    again = subprocess.run([*asked, "--json"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and json.loads(again.stdout)["status"] == "active"
    c.close()


def test_without_a_model_a_folder_answers(here: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text("# Guide\n\nThe visibility timeout of a queue is one hour.\n")
    done = here("What is the visibility timeout?\n", "--folder", "docs")
    assert done.exit_code == 0 and "is one hour. [1]" in done.stdout and "[1] guide.md:3" in done.stdout
    assert "CELERIAC_MODEL" in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "docs" / "guide.md").write_text("# Suppliers\n\nAcme Trading supplies the cocoa.\n")
    short = here("Who supplies the cocoa?\n/exit\n", "--folder", "docs")
    assert short.stdout == "Acme Trading supplies the cocoa. [1]\n\n[1] guide.md:3\n"
    nothing = here("hello\n")
    assert nothing.exit_code == 1 and "CELERIAC_MODEL" in nothing.stderr and nothing.stderr.count("\n") == 1


def test_what_cannot_be_gone_on_with_is_one_line(here: Callable[..., Result], tmp_path: Path) -> None:
    c = Celeriac(data_dir=tmp_path / "data", embed=False)
    over, paused = c.sessions.create("x"), c.sessions.create("y")
    over.cancel()
    paused.pause()
    c.close()
    for session_id, said in ((over.id, "is cancelled"), (paused.id, "sessions resume"), ("nobody", "no session")):
        done = here("hello\n", "--session", session_id)
        assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1
        assert not done.stdout


def test_what_cannot_be_asked_begins_no_session(here: Callable[..., Result], tmp_path: Path) -> None:
    for agent in ("nope", "research.locate"):
        done = here("hello\n", "--agent", agent)
        assert done.exit_code == 2 and f"agent '{agent}' answers no messages" in done.stderr
    done = here("nul \x00\n" + "x" * 1_000_001, "--agent", "talker.cli")
    assert done.exit_code == 1 and [line.split()[1] for line in done.stderr.splitlines()] == ["message"] * 2
    c = Celeriac(data_dir=tmp_path / "data", embed=False)
    assert c.sessions.list() == []
    c.close()


def test_a_piece_of_an_answer_may_be_large(here: Callable[..., Result]) -> None:
    said = "ü" * 300_000
    done = here(f"{said}\n", "--agent", "talker.cli", "--json")
    assert done.exit_code == 0, done.stdout[-500:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(e["text"] for e in events if e["event"] == "text") == f"you said {said} " == events[-1]["result"]


def test_a_branch_that_is_cleared_tells_its_own_entries(
    here: Callable[..., Result],
) -> None:
    done = here("one\n/branch\ntwo\n/clear\n/clear\n/history\n", "--agent", "talker.cli")
    assert [text for text in done.stderr.splitlines() if "deleted" in text] == [
        "2 entries deleted",
        "0 entries deleted",
    ]
    assert "user: one" in done.stdout and "user: two" not in done.stdout


def test_in_a_terminal_lines_are_edited_and_answers_stream(env: dict[str, str], tmp_path: Path) -> None:
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = subprocess.Popen([*COMMAND, "--agent", "talker.cli"], cwd=tmp_path, env=env, **streams)
    os.close(slave)
    _until(master, "/help tells")
    os.write(master, b"helXo\x1b[D\x7fl\r")  # the X is replaced from within the line
    _until(master, "you said hello")
    os.write(master, b"shout it\r")
    screen = _until(master, "They shout: IT")
    assert "· shout" in screen and "\x1b[2J" not in screen.partition("They shout")[2]
    os.write(master, b"\x1b[A\r")  # the line before
    _until(master, "They shout: IT")
    os.write(master, b"\x04")
    assert process.wait(30) == 0
    os.close(master)


def _until(master: int, wanted: str) -> str:
    """What the terminal was sent until it has shown that, and the next prompt, which takes what is pasted."""
    seen, deadline = "", time.monotonic() + 40
    while "\x1b[?2004h" not in seen.partition(wanted)[2]:
        assert time.monotonic() < deadline, seen
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 65536).decode(errors="replace")
            if "\x1b[6n" in seen:  # it asks where the cursor is
                os.write(master, b"\x1b[1;1R")
                seen = seen.replace("\x1b[6n", "")
    return seen
