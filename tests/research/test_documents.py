"""The document job end to end: a question over folders gives a cited report."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import CeleriacError
from celeriac.orchestration.research.crosschecking import group_findings, merge_notes, normal_value
from celeriac.orchestration.research.publishing import LEFT_AFTER
from celeriac.orchestration.research.terms import question_terms, stem
from celeriac.storage.passages import PassageIndex

from .run_plan import run_plan

GUIDE = """# Guide

The worker keeps a message invisible for a while. The visibility timeout is the time a message stays invisible to the
other workers after one has taken it.

The default of visibility timeout is 1 hour.
"""
NOTES = """# Notes

The default for visibility timeout is 30 minutes. Restart the workers when you change the visibility timeout.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "guide.md").write_text(GUIDE)
    (docs / "notes.md").write_text(NOTES)
    (docs / "other.txt").write_text("Bread is baked in an oven at a high heat for most of an hour.\n")
    return docs


def answer(folder: Path, question: str) -> dict[str, Any]:
    return run_plan("documents", question, [str(folder)], str(folder.parent / "out"), publish=False)


def test_the_answer_quotes_the_sentence_with_its_file_and_line(folder: Path) -> None:
    report = answer(folder, "What is the visibility timeout?")["synthesise"]
    source = report["sources"][0]
    assert source["quote"].startswith("The visibility timeout is the time a message stays invisible")
    assert source["path"].endswith("guide.md")
    assert (source["line_start"], source["line_end"]) == (3, 4)
    assert "[1]" in report["summary"][0]
    assert all("other.txt" not in source["path"] for source in report["sources"])


def test_documents_that_disagree_are_a_conflict_of_high_severity(folder: Path) -> None:
    done = answer(folder, "What is the default visibility timeout?")
    (conflict,) = done["crosscheck"]["conflicts"]
    assert (conflict["entity"], conflict["attribute"], conflict["severity"]) == (
        "visibility timeout",
        "default",
        "high",
    )
    assert {value["value"] for value in conflict["values"]} == {"1 hour", "30 minutes"}
    assert len(done["synthesise"]["conflicts"]) == 1


def test_the_same_question_gives_the_same_report(folder: Path) -> None:
    first, second = (answer(folder, "How long is the visibility timeout?")["synthesise"] for _ in range(2))
    first.pop("created_at"), second.pop("created_at")
    assert first == second


def test_a_question_that_nothing_answers_says_so(folder: Path) -> None:
    report = answer(folder, "Where do penguins hibernate?")["synthesise"]
    assert report["sources"] == []
    assert "no sentence that answers this" in report["summary"][0]


@pytest.mark.parametrize(
    "question", ['"; DROP TABLE passages; --', "NEAR(a b) OR *", 'visibility"timeout AND NOT', "a:b ^c {d}", "\0x"]
)
def test_a_question_may_hold_any_signs(folder: Path, question: str) -> None:
    assert "summary" in answer(folder, question)["synthesise"]


def test_a_question_without_a_word_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(CeleriacError, match="no word"):
        answer(folder, "?!")


def test_a_copy_of_a_document_is_read_once_and_named(folder: Path) -> None:
    (folder / "copy.md").write_text(GUIDE)
    skipped = answer(folder, "What is the visibility timeout?")["locate"]["skipped"]
    assert any(reason.startswith("the same text as") for _, reason in skipped)


def test_the_report_is_written_as_three_files_and_nothing_else(folder: Path) -> None:
    out = folder.parent / "out"
    done = run_plan("documents", "What is the visibility timeout?", [str(folder)], str(out))
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.md", "report.pdf"]
    assert done["publish"]["pdf"] == str(out / "report.pdf")
    assert (out / "report.pdf").read_bytes().startswith(b"%PDF")


def test_what_a_killed_writer_left_in_the_folder_is_deleted_and_nothing_else(folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    left, fresh, foreign = (out / name for name in (".report.pdf.a_bcde12", ".report.md.fresh123", ".report.md.backup"))
    for path in (left, fresh, foreign):
        path.write_text("half a report")
    for path in (left, foreign):
        os.utime(path, (time.time() - 2 * LEFT_AFTER,) * 2)
    run_plan("documents", "What is the visibility timeout?", [str(folder)], str(out))
    assert not left.exists()
    assert fresh.exists() and foreign.exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(CeleriacError, match="cannot write"):
        run_plan("documents", "What is the visibility timeout?", [str(folder)], str(folder / "guide.md" / "out"))


def finding(value: str, path: str, confidence: float = 0.9) -> dict[str, Any]:
    evidence = [{"path": path, "line": 1, "text": value}]
    return {
        "entity": "Pool size",
        "attribute": "default",
        "value": value,
        "confidence": confidence,
        "evidence": evidence,
    }


def test_values_that_mean_the_same_agree_and_grow_surer() -> None:
    merged, conflicts = group_findings([finding("60 minutes", "a", 0.8), finding("1 hour", "b", 0.8)])
    assert conflicts == []
    assert len(merged) == 1 and merged[0]["confidence"] == 0.96


def test_one_document_with_two_values_is_a_low_conflict_and_a_less_plain_one_medium() -> None:
    assert group_findings([finding("5", "a"), finding("10", "a")])[1][0]["severity"] == "low"
    assert group_findings([finding("5", "a"), finding("10", "b", 0.5)])[1][0]["severity"] == "medium"


@pytest.mark.parametrize(
    ("one", "other"), [("True", "enabled"), ("1 hour", "3600 seconds"), ("1,000", "1000"), ("`x`", "X")]
)
def test_values_are_compared_by_what_they_mean(one: str, other: str) -> None:
    assert normal_value(one) == normal_value(other)


def test_near_duplicate_notes_are_one_with_both_places() -> None:
    note = {"text": "The worker acknowledges the message after the task has run.", "score": 1.0, "line_start": 1}
    rest = {"line_end": 1, "page": None, "title": "t", "heading": "", "covered": []}
    merged = merge_notes([{**note, **rest, "path": "a"}, {**note, **rest, "path": "b", "score": 0.9}])
    assert len(merged) == 1
    assert [place["path"] for place in merged[0]["also"]] == ["b"]


def test_terms_leave_out_what_every_question_has() -> None:
    assert question_terms("What is the default of task_acks_late in Celery?") == ["default", "task_acks_late", "Celery"]
    assert stem("policies") == stem("policy")
    assert stem("running") == stem("runs")


def test_the_index_finds_by_stem_and_counts_what_holds_a_term() -> None:
    index = PassageIndex()
    ids = index.add([("Heading", "workers are running"), ("", "nothing here"), ("", "a worker runs")])
    assert list(ids) == [0, 1, 2]
    assert {hit.id for hit in index.search(["worker", "run"], 10)} == {0, 2}
    assert index.holding("heading") == {0}
    assert index.search(['"', "*"], 10) == []
    index.close()


def test_a_documented_parameter_gives_its_default_under_its_function(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name, size in (("one", 5), ("two", 9)):
        documented = f":param pool_size={size}: the number of connections."
        text = f'def {name}(pool_size={size}):\n    """Opens.\n\n    {documented}\n    """\n'
        (docs / f"{name}.py").write_text(text)
    check = answer(docs, "What is the default pool_size?")["crosscheck"]
    assert [(f["entity"], f["value"]) for f in check["findings"]] == [("one.pool_size", "5"), ("two.pool_size", "9")]
    assert check["conflicts"] == []


def test_settings_in_source_code_are_said_with_their_name_comment_and_value(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "task.py").write_text(
        "class Task:\n    #: Hard time limit.\n    #: In seconds, for one run.\n    time_limit = None\n\n"
        "    retries = 3\n\n\nOPTIONS = Space(worker=Space(time_limit=Option(30, type='int')))\n"
    )
    report = answer(docs, "What is the default time limit?")["synthesise"]
    values = {(f["entity"], f["value"]) for f in report["findings"]}
    assert values == {("Task.time_limit", "None"), ("OPTIONS.worker.time_limit", "30")}
    assert any("Hard time limit. In seconds, for one run. Here: `None`" in text for text in report["summary"])


def test_a_row_of_a_table_is_said_with_the_heads_of_its_columns(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "settings.md").write_text(
        "# Settings\n\n| Setting | Default | Meaning |\n|---|---|---|\n"
        "| `pool_size` | 5 | connections that are kept |\n"
    )
    report = answer(docs, "What is the default pool_size?")["synthesise"]
    assert [(f["entity"], f["attribute"], f["value"]) for f in report["findings"]] == [("pool_size", "default", "5")]
    assert any("`pool_size` — Default: 5; Meaning: connections that are kept" in text for text in report["summary"])


def test_a_word_that_means_the_same_is_found(folder: Path) -> None:
    (folder / "crash.md").write_text("# Recovery\n\nAfter a crash of a worker its messages are delivered again.\n")
    report = answer(folder, "What happens when a worker is killed?")["synthesise"]
    assert "After a crash of a worker" in report["summary"][0]


def test_change_logs_are_read_only_where_nothing_else_answers(folder: Path) -> None:
    (folder / "CHANGELOG.md").write_text("# Changes\n\nThe visibility timeout of the bread was fixed in 1.2.\n")
    done = answer(folder, "What is the visibility timeout?")
    assert done["locate"]["counts"]["change logs and licences left out"] == 1
    asked = answer(folder, "Which version fixed the visibility timeout of the bread?")
    assert "CHANGELOG.md" in asked["synthesise"]["sources"][0]["path"]


def test_sentences_that_differ_in_a_number_are_not_taken_for_one() -> None:
    note = {"score": 1.0, "line_start": 1, "line_end": 1, "page": None, "title": "t", "heading": "", "covered": []}
    texts = ["The queue keeps a message for two hours.", "The queue keeps a message for three hours."]
    assert len(merge_notes([{**note, "text": text, "path": text} for text in texts])) == 2


def test_of_a_long_text_only_the_places_that_speak_to_the_question_are_read(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    filler = "Bread is baked in an oven at a high heat.\n\n" * 3000
    (docs / "long.txt").write_text(filler + "The visibility timeout is one hour for every queue.\n\n" + filler)
    done = answer(docs, "What is the visibility timeout?")
    assert done["locate"]["counts"]["passages indexed"] < 20
    assert done["synthesise"]["sources"][0]["line_start"] == 6001
