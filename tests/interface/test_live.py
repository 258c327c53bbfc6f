"""The live view: what it makes of a session's events, and how it looks on a terminal and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from celeriac.interface.board import Board, told
from celeriac.interface.live import Lines, Panel

from .conftest import FAN_OUT, plan


class Told:
    """A session that only tells what it was made with."""

    id = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"

    def __init__(self, steps: list[dict[str, Any]], status: str = "active") -> None:
        self._steps = steps
        self._status = status
        shape = {"list": (None, ()), "work": ("${list.items}", ()), "join": (None, ())}
        self.plan = SimpleNamespace(steps=[SimpleNamespace(name=n, each=e, plan=p) for n, (e, p) in shape.items()])

    def to_dict(self, details: bool = True) -> dict[str, Any]:
        began = datetime.now(UTC).isoformat()
        return {
            "id": self.id,
            "query": "why?",
            "plan": "demo",
            "status": self._status,
            "error": None,
            "created_at": began,
            "completed_at": None,
        }

    def steps(self) -> list[dict[str, Any]]:
        return self._steps

    def conflicts(self) -> list[dict[str, Any]]:
        return []


def row(name: str, status: str = "blocked") -> dict[str, Any]:
    return {"name": name, "status": status, "progress": 0.0, "task": None, "error": None}


def event(type_: str, step: str | None = None, **data: Any) -> Any:
    return SimpleNamespace(type=type_, step=step, data=data, at=time.time(), seq=1)


@pytest.fixture
def board() -> Board:
    """A board of `demo` whose first step runs."""
    return Board(Told([row("list", "running"), row("work"), row("join")]))  # type: ignore[arg-type]


def fan_out(board: Board, members: int, done: int) -> None:
    board.apply(event("step.done", "list"))
    board.apply(event("step.expanded", "work", steps=members))
    for number in range(members):
        board.apply(event("step.started", f"work-{number}"))
        if number < done:
            board.apply(event("step.done", f"work-{number}"))


def test_members_of_a_fan_out_are_counted_on_its_line(board: Board) -> None:
    fan_out(board, members=10, done=4)
    line = board.lines["work"]
    assert (line.total, line.count("done"), line.count("running"), line.state) == (10, 4, 6, "running")
    assert list(board.lines) == ["list", "work", "join"]
    assert board.lines["list"].state == "done" and board.lines["join"].state == "blocked"


def test_events_that_come_again_change_nothing(board: Board) -> None:
    for _ in range(2):
        fan_out(board, members=3, done=3)
        board.apply(event("step.done", "work"))
    assert (board.lines["work"].total, board.lines["work"].state, board.running) == (3, "done", {})


def test_a_snapshot_in_the_middle_shows_the_same_as_the_events_would(board: Board) -> None:
    fan_out(board, members=3, done=2)
    rows = [row("list", "done"), row("join"), row("work-0", "done"), row("work-1", "done"), row("work-2", "running")]
    later = Board(Told(rows))  # type: ignore[arg-type]
    assert (later.lines["work"].total, later.lines["work"].state) == (3, "running")
    assert later.progress == pytest.approx(board.progress)
    for one in ("work-2", "work"):
        later.apply(event("step.done", one))
    assert (later.lines["work"].total, later.lines["work"].count("done"), later.lines["work"].state) == (3, 3, "done")


def test_a_fan_out_of_sub_plans_counts_the_steps_that_do_the_work(board: Board) -> None:
    board.apply(event("step.expanded", "work", steps=2))
    for number in range(2):
        board.apply(event("step.expanded", f"work-{number}", steps=2))
        for inner in ("a", "b"):
            board.apply(event("step.started", f"work-{number}/{inner}"))
            board.apply(event("step.done", f"work-{number}/{inner}"))
        board.apply(event("step.done", f"work-{number}"))
    board.apply(event("step.done", "work"))
    assert (board.lines["work"].total, board.lines["work"].count("done"), board.lines["work"].state) == (4, 4, "done")


def test_an_empty_fan_out_is_done(board: Board) -> None:
    board.apply(event("step.expanded", "work", steps=0))
    board.apply(event("step.done", "work"))
    assert board.lines["work"].state == "done"


def test_steps_that_an_agent_adds_get_lines(board: Board) -> None:
    board.apply(event("plan.extended", "list", steps=["extra"]))
    board.apply(event("step.started", "extra"))
    assert board.lines["extra"].state == "running"


def test_nothing_is_said_of_the_time_left_before_the_fan_out_is_known(board: Board) -> None:
    assert board.left(time.time() + 60) is None
    fan_out(board, members=10, done=5)
    assert board.left(time.time() + 60) is not None


def test_a_paused_session_rests_when_its_last_step_has_finished(board: Board) -> None:
    board.apply(event("session.paused"))
    assert not board.resting
    board.apply(event("step.done", "list"))
    assert board.resting and not board.ended


def test_what_a_document_says_cannot_steer_the_terminal() -> None:
    assert (
        told({"text": "a\x1b]0;x\x07b\u202e", "path": "/very/long/way/to/a.txt", "line": 3})
        == "a ]0;x b (…/to/a.txt:3)"
    )
    assert told({"package": "celery 5.7", "licence": "BSD-3-Clause", "attention": []}) == "celery 5.7 · BSD-3-Clause"


def drawn(board: Board, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    panel = Panel(board, console)
    with console.capture() as captured:
        console.print(panel._render())
    return captured.get()


def test_the_view_shows_counts_tasks_findings_and_conflicts(board: Board) -> None:
    fan_out(board, members=10, done=4)
    board.apply(event("step.progress", "work-5", progress=0.5, task="reading a.txt"))
    board.apply(SimpleNamespace(type="step.partial", step="work-5", data={"text": "turnips"}, at=0, seq=2))  # type: ignore[arg-type]
    board.apply(event("conflict.raised", "work-5", conflict=1, severity="high"))
    text = drawn(board)
    for word in ("why?", "✓ list", "work   4/10", "reading a.txt", "turnips", "1 conflict (1 high)", "… 2 more"):
        assert word in text, text


@pytest.mark.parametrize("height", [6, 10, 24])
def test_the_view_fits_the_terminal(board: Board, height: int) -> None:
    fan_out(board, members=50, done=4)
    for number in range(40):
        board.apply(event("plan.extended", "list", steps=[f"extra-{number}-" + "x" * 60]))
    lines = drawn(board, width=60, height=height).splitlines()
    assert len(lines) < height and max(map(len, lines)) <= 60


def test_lines_tell_of_a_fan_out_once_in_a_while_and_of_its_end(board: Board) -> None:
    out = io.StringIO()
    lines = Lines(board, Console(file=out, width=100))
    board.apply(event("step.expanded", "work", steps=50))
    for number in range(50):
        one = event("step.done", f"work-{number}")
        board.apply(one)
        lines.event(one)
    assert out.getvalue().count("\n") <= 3 and "work  50/50" in out.getvalue()


def on_terminal(words: list[str], folder: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of a command whose standard streams are a terminal of 80 by 24."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", **(env or {})}
    command = [sys.executable, "-m", "celeriac", *words]
    running = subprocess.Popen(command, cwd=folder, env=settings, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    waiting = select.poll()  # `select.select` takes no more than 1,024 files
    waiting.register(ours, select.POLLIN)
    while True:
        if waiting.poll(30_000):
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
    os.close(ours)
    return running.wait(), said.decode()


def test_on_a_terminal_the_view_renews_itself_calmly_and_gives_the_cursor_back(folder: Path) -> None:
    began = time.monotonic()
    code, said = on_terminal(["run", plan(folder, FAN_OUT, seconds=0.2)], folder)
    took = time.monotonic() - began
    assert code == 0, said
    draws = said.count("\x1b[2K\x1b[1A") and len(re.findall(r"(?:\x1b\[1A\x1b\[2K)+", said))
    assert draws <= 10 * took
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    assert "6/6" in said and "█" in said and "completed" in said
    assert "\x1b[31mread" not in said  # the agents' partial results carry escape codes


def test_no_color_is_respected_on_a_terminal(folder: Path) -> None:
    code, said = on_terminal(["run", plan(folder, FAN_OUT)], folder, {"NO_COLOR": "1"})
    assert code == 0 and not re.search(r"\x1b\[[0-9;]*3[0-9]m", said)


def test_a_dumb_terminal_gets_lines(folder: Path) -> None:
    code, said = on_terminal(["run", plan(folder, FAN_OUT)], folder, {"TERM": "dumb"})
    assert code == 0 and "\x1b" not in said and "work  6/6" in said
