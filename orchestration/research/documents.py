"""The agents of the document plan: locate, analyze, crosscheck, synthesise."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

from ..agents import AgentOutput
from .analysing import notes_of
from .answering import build_report
from .crosschecking import compared, group_findings, merge_notes, settled
from .locating import locate_documents
from .model import Spent, analyse_with_model
from .scoring import Scorer
from .statements import findings_of

#: How many merged notes go on to the report.
_NOTES = 80


def locate(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Choose the documents that speak to a question.

    Request: `question`, `folders`, `limit`. Data: `{"documents": [{path, title, score, passages}], "skipped":
    [[path, reason]], "counts", "weights": {term: weight}}`. Raises CeleriacError where a folder is missing, nothing
    is in it, or the question holds no word.
    """
    located = locate_documents(request["question"], request["folders"], request.get("limit", 12), ctx)
    ctx.progress(1.0, f"{len(located.documents)} of {located.counts['files']} files chosen")
    return AgentOutput(
        data={
            "documents": located.documents,
            "skipped": [list(pair) for pair in located.skipped],
            "counts": located.counts,
            "weights": located.weights,
        }
    )


def analyze(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Read one document for the question.

    Request: `question`, `document` (one of `locate`'s), `weights`, `model` ("" extracts). Data: `{path, title, score,
    notes, findings, dropped_quotes, spent}`; notes and findings carry their lines. With a model, a quote that
    the document does not hold is dropped.
    """
    document, question, model = request["document"], request["question"], request.get("model") or ""
    dropped, spent = 0, Spent()
    scorer = Scorer(question, request["weights"])
    if model:
        notes, findings, dropped, spent = analyse_with_model(model, question, document)
        for note in notes:
            note["covered"] = sorted(scorer.covered(f"{note['statement']} {note['text']} {document['title']}"))
    else:
        notes = notes_of(document, scorer)
        findings = findings_of(document, scorer, PurePath(document["path"]).suffix.lower())
    if notes:
        best = notes[0]
        ctx.partial(
            {"path": document["path"], "line": best["line_start"], "text": best.get("statement") or best["text"]}
        )
    ctx.progress(1.0, f"{document['title']}: {len(notes)} notes, {len(findings)} findings")
    data = {
        "path": document["path"],
        "title": document["title"],
        "score": document["score"],
        "notes": notes,
        "findings": [asdict(finding) for finding in findings],
        "dropped_quotes": dropped,
        "spent": spent.to_dict(),
    }
    # What documents can disagree on is recorded when all have been read (see `crosscheck`): only then are values that
    # mean the same known as one.
    own = [replace(finding, exclusive=False) for finding in findings if not compared(asdict(finding))]
    confidence = min(1.0, notes[0]["score"]) if notes else 0.0
    return AgentOutput(data=data, findings=own, confidence=confidence, cost=spent.cost)


def crosscheck(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Put all documents' notes and findings side by side.

    Request: `analyses`, the data of every `analyze`. Data: `{"notes", "findings", "conflicts", "documents",
    "dropped_quotes", "spent"}`: near-duplicate notes are one, findings that agree are one, those that
    disagree are conflicts (see `crosschecking` for the rules). A document's rank lifts its notes by up to a fifth.
    """
    analyses = request["analyses"]
    best = max((analysis["score"] for analysis in analyses), default=0.0) or 1.0
    notes = []
    for analysis in analyses:
        lift = 1.0 + 0.2 * analysis["score"] / best
        notes += [{**note, "score": round(note["score"] * lift, 4)} for note in analysis["notes"]]
    findings, conflicts = group_findings([finding for analysis in analyses for finding in analysis["findings"]])
    ctx.progress(1.0, f"{len(findings)} findings, {len(conflicts)} conflicts")
    return AgentOutput(
        data={
            "notes": merge_notes(notes)[:_NOTES],
            "findings": findings,
            "conflicts": conflicts,
            "documents": len(analyses),
            "dropped_quotes": sum(analysis["dropped_quotes"] for analysis in analyses),
            "spent": sum((Spent(**analysis["spent"]) for analysis in analyses), Spent()).to_dict(),
        },
        findings=settled(findings),
    )


def synthesise(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Write the report.

    Request: `question`, `located` (skipped, counts and weights of `locate`), `check` (the data of `crosscheck`),
    `model`. Data: the report as `Report.to_dict()` gives it.
    """
    report, spent = build_report(request)
    ctx.progress(1.0, f"report with {len(report.sources)} sources")
    return AgentOutput(data=report.to_dict(), cost=spent.cost)
