"""With a model: the same agents ask it, and hold what it says to the documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import CeleriacError
from celeriac.orchestration.research import model
from celeriac.orchestration.research.model import DocumentAnswer, WrittenAnswer, ask, cited, locate_quote

from .run_plan import run_plan

QUESTION = "What is the visibility timeout?"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "guide.md").write_text("# Guide\n\nThe visibility timeout is\none hour for every queue.\n")
    return docs


def scripted(answers: dict[type, dict[str, Any]]) -> Any:
    """A pydantic-ai model that gives these answers by output type."""
    pytest.importorskip("pydantic_ai")
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def reply(messages: Any, info: Any) -> Any:
        tool = info.output_tools[0]
        kind = DocumentAnswer if "notes" in str(tool.parameters_json_schema["properties"]) else WrittenAnswer
        return ModelResponse(parts=[ToolCallPart(tool.name, answers[kind])])

    return FunctionModel(reply)


def test_a_quote_that_the_document_does_not_hold_is_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true, false = "The visibility timeout is one hour", "The visibility timeout is two hours"
    answers: dict[type, dict[str, Any]] = {
        DocumentAnswer: {
            "notes": [{"statement": "It is one hour.", "quote": true}, {"statement": "It is two.", "quote": false}],
            "findings": [
                {"entity": "visibility timeout", "attribute": "Length", "value": "one hour", "quote": true},
                {"entity": "visibility timeout", "attribute": "Length", "value": "nine hours", "quote": true},
            ],
        },
        WrittenAnswer: {"summary": ["It is one hour [1][7].", "Uncited."], "sections": []},
    }
    fake = scripted(answers)
    original = model.ask
    monkeypatch.setattr(model, "ask", lambda name, *rest: original(fake, *rest))
    done = run_plan("documents", QUESTION, [str(folder)], "unused", model="openai:any", publish=False)
    (analysis,) = done["analyze"]
    assert [note["statement"] for note in analysis["notes"]] == ["It is one hour."]
    assert (analysis["notes"][0]["line_start"], analysis["notes"][0]["line_end"]) == (3, 4)
    assert [finding["value"] for finding in analysis["findings"]] == ["one hour"]
    assert analysis["dropped_quotes"] == 2
    assert done["synthesise"]["summary"] == ["It is one hour [1]."]
    assert done["synthesise"]["facts"]["model"] == "openai:any"


def test_an_answer_that_cites_nothing_falls_back_to_the_documents_own_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote = "The visibility timeout is one hour"
    answers: dict[type, dict[str, Any]] = {
        DocumentAnswer: {"notes": [{"statement": "One hour.", "quote": quote}], "findings": []},
        WrittenAnswer: {"summary": ["I think so."], "sections": []},
    }
    fake = scripted(answers)
    original = model.ask
    monkeypatch.setattr(model, "ask", lambda name, *rest: original(fake, *rest))
    report = run_plan("documents", QUESTION, [str(folder)], "unused", model="openai:any", publish=False)["synthesise"]
    assert quote in report["summary"][-1]
    assert "cited nothing" in report["facts"]["model"]


def test_citations_of_unknown_sources_are_struck_out() -> None:
    assert cited(["A [1][9].", "B [9].", "C."], {1}) == ["A [1]."]


def test_a_quote_is_found_whatever_its_line_breaks_and_signs() -> None:
    lines = [[4, "The **visibility"], [5, "timeout** is one hour."]]
    document = {
        "title": "t",
        "passages": [{"heading": "h", "page": None, "blocks": [{"kind": "prose", "lines": lines}]}],
    }
    place = locate_quote("the visibility timeout is", document)
    assert place is not None
    assert (place["line_start"], place["line_end"]) == (4, 5)
    assert locate_quote("visibility timeout was one", document) is None


def test_a_missing_library_and_an_unknown_model_are_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CeleriacError, match="no-such-maker:x"):
        ask("no-such-maker:x", "", "", WrittenAnswer)
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    with pytest.raises(CeleriacError, match=r"celeriac\[llm\]"):
        ask("openai:x", "", "", WrittenAnswer)
