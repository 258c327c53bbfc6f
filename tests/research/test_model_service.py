"""The research job with a model behind an OpenAI-compatible service, through the whole machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.orchestration.research.documents import analyze

from .model_server import ModelServer, Script
from .run_plan import Context

pytest.importorskip("openai")

MODEL = "openai-chat:gpt-4o-mini"
QUOTE = "The visibility timeout is one hour"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Script], ModelServer]]:
    servers: list[ModelServer] = []

    def start(script: Script) -> ModelServer:
        servers.append(ModelServer(script))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url)
        monkeypatch.setenv("OPENAI_API_KEY", "unused")
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "guide.md").write_text("# Guide\n\nThe visibility timeout is\none hour for every queue.\n")
    return folder


def research(docs: Path) -> tuple[str | None, str]:
    """The session's error, and the report as Markdown."""
    celeriac = Celeriac(data_dir=docs.parent / "data")
    try:
        out = docs.parent / "out"
        session = celeriac.research("What is the visibility timeout?", [docs], out=out, model=MODEL)
        session.wait(90)
        report = (out / "report.md").read_text() if (out / "report.md").exists() else ""
        return session.error, report
    finally:
        celeriac.close()


def script(prompt: str) -> dict[str, Any]:
    if "<passage" in prompt:
        notes = [{"statement": "It lasts an hour.", "quote": QUOTE}, {"statement": "Two.", "quote": "It is two hours"}]
        return {"notes": notes, "findings": []}
    return {"summary": ["A message stays hidden for an hour [1]."], "sections": []}


def test_the_agents_ask_the_model_and_hold_it_to_the_document(
    docs: Path, serve: Callable[[Script], ModelServer]
) -> None:
    server = serve(script)
    error, report = research(docs)
    assert error is None and len(server.asked) == 2
    assert "A message stays hidden for an hour" in report and "guide.md" in report
    assert "It is two hours" not in report
    assert "quotes dropped because the document does not hold them: 1" in report
    assert "2 requests, 200 tokens in, 40 out" in report


def test_what_the_model_took_is_known(docs: Path, serve: Callable[[Script], ModelServer]) -> None:
    serve(script)
    lines = [[1, "The visibility timeout is"], [2, "one hour for every queue."]]
    passage = {"heading": "", "page": None, "blocks": [{"kind": "prose", "label": "", "lines": lines}]}
    document = {"path": "guide.md", "title": "Guide", "score": 1.0, "passages": [passage]}
    request = {"question": "How long?", "document": document, "weights": {}, "model": MODEL}
    output = analyze(request, Context("How long?"))
    assert output.cost is not None and 0 < output.cost < 0.001
    assert output.data["spent"]["input_tokens"] == 100
    assert output.data["dropped_quotes"] == 1


def test_a_model_that_fails_for_a_moment_is_asked_again(docs: Path, serve: Callable[[Script], ModelServer]) -> None:
    failures = iter([503] * 4)  # the client itself tries three times, then the step is tried again
    server = serve(lambda prompt: next(failures, None) or script(prompt))
    error, report = research(docs)
    assert error is None and "stays hidden" in report
    assert len(server.asked) > 4


def test_a_model_that_stays_away_fails_the_session_with_one_clear_error(
    docs: Path, serve: Callable[[Script], ModelServer]
) -> None:
    serve(lambda prompt: 500)
    error, report = research(docs)
    assert MODEL in error and "failed" in error and "on fire" in error
    assert "Traceback" not in error and report == ""


def test_a_request_that_is_refused_is_not_made_again(docs: Path, serve: Callable[[Script], ModelServer]) -> None:
    server = serve(lambda prompt: 401)
    error, _ = research(docs)
    assert "401" in error and len(server.asked) == 1
