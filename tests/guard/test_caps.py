"""Every door has a size that it takes; what is larger is refused, and nothing of it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driver import Driver

from celeriac.errors import CeleriacError, PlanError, SessionError, TooLarge
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.plans import Plan, step

LARGE = "x" * 5000


@pytest.fixture
def driver(tmp_path: Path) -> Any:
    made = Driver(
        f"sqlite:///{tmp_path / 'c.db'}", tmp_path / "data", max_document_bytes=3000, max_request_bytes=2000,
        max_result_bytes=2500,
    )  # fmt: skip

    @made.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    @made.agent("does")
    def does(request: Any, ctx: Any) -> Any:
        return {
            "result": lambda: LARGE,
            "partial": lambda: ctx.partial("x" * (1 << 18)),
            "findings": lambda: AgentOutput(None, [Finding("a", "b", n) for n in range(10_001)]),
            "finding": lambda: AgentOutput(None, [Finding("a", "b", "x" * (1 << 24))]),
            "progress": lambda: ctx.progress(0.5, "x" * 100_000),
            "error": lambda: (_ for _ in ()).throw(ValueError("x" * 100_000)),
        }[request]()

    yield made
    made.close()


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"a": LARGE}},
        {"preferences": {"a": LARGE}},
        {"notes": LARGE},
        {"title": LARGE},
        {"user": LARGE},
        {"key": LARGE},
        {"query": LARGE * 300},
        {"tags": ["x" * 300]},
        {"tags": [str(n) for n in range(101)]},
        {"file_paths": [LARGE]},
        {"permissions": [LARGE]},
    ],
)
def test_a_session_with_something_too_large_is_not_started(driver: Driver, more: dict[str, Any]) -> None:
    with pytest.raises((TooLarge, SessionError), match="limit|at most"):
        driver.start(step("a", agent="echo"), **more)
    assert driver.sessions.list() == []


def test_a_plan_or_a_request_that_is_too_large_is_refused(driver: Driver) -> None:
    with pytest.raises(PlanError, match="request of step 'a'"):
        driver.start(step("a", agent="echo", request=LARGE))
    steps = [step(f"s{n}", agent="echo", request="x" * 1000) for n in range(4)]
    with pytest.raises(TooLarge, match="session plan"):
        driver.start(*steps)
    assert driver.sessions.list() == []
    empty = driver.sessions.create("q")
    with pytest.raises(TooLarge, match="session plan"):
        empty.run(Plan("p", steps))
    assert empty.steps() == []


def test_what_is_added_to_a_session_has_its_size_too(driver: Driver) -> None:
    session = driver.sessions.create("q")
    for change in ({"metadata": {"a": LARGE}}, {"preferences": {"a": LARGE}}, {"notes": LARGE}, {"tags": ["t"] * 101}):
        with pytest.raises(CeleriacError, match="limit|at most"):
            session.change(**change)  # type: ignore[arg-type]
    for call in (lambda: session.complete(LARGE), lambda: session.resolve_conflict(1, LARGE)):
        with pytest.raises(TooLarge):
            call()
    assert session.status == "active" and session.to_dict()["metadata"] == {}


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("result", "TooLarge: output of a is 5,002 bytes"),
        ("partial", "TooLarge: partial result of a"),
        ("findings", "TooLarge: step a answered with 10001 findings"),
        ("finding", "TooLarge: findings of a"),
        ("error", "ValueError: xxx"),
    ],
)
def test_what_an_agent_gives_has_its_size(driver: Driver, what: str, error: str) -> None:
    session = driver.start(step("a", agent="does", request=what))
    driver.run_to_end(session)
    (shown,) = session.steps()
    assert shown["status"] == "failed" and shown["error"].startswith(error) and len(shown["error"]) <= 4000
    assert session.partials() == {} and session.findings() == []


def test_a_line_of_progress_is_cut(driver: Driver) -> None:
    session = driver.start(step("a", agent="does", request="progress"))
    driver.run_to_end(session)
    assert session.status == "completed" and len(session.steps()[0]["task"] or "") <= 500
