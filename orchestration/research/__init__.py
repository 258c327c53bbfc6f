"""The research job: a question and folders in, a cited report out.

Two kinds of job share one shape: locate, analyze each, crosscheck, synthesise, publish. `documents` answers a question
from documents (agents in `documents`), `licences` says which licence each installed package carries (agents in
`licences`). Every agent takes a JSON request and a context and gives an `AgentOutput` whose data is JSON.
"""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["documents", "licences"]

#: How many documents are analysed for a question.
DOCUMENT_LIMIT = 20


def plan_for(kind: Kind, folders: list[str], out: str, model: str = "") -> list[dict[str, Any]]:
    """The steps of a research job as dicts `{name, agent, request, each?, after}`, in an order in which they can run.

    `folders` are what to read (empty for `licences`: the running interpreter's packages), `out` is the folder for the
    report's files, `model` a model's name for pydantic-ai ("" works without one; licences never need one).
    `${query}` stands for the session's question.
    """
    if kind == "licences":
        return _licence_steps(folders, out)
    return _document_steps(folders, out, model)


def _licence_steps(folders: list[str], out: str) -> list[dict[str, Any]]:
    return [
        {"name": "locate", "agent": "licences.locate", "request": {"folders": folders}, "after": []},
        {
            "name": "analyze",
            "agent": "licences.analyze",
            "request": {"package": "${item}"},
            "each": "${locate.packages}",
            "after": ["locate"],
        },
        {
            "name": "crosscheck",
            "agent": "licences.crosscheck",
            "request": {"packages": "${analyze}"},
            "after": ["analyze"],
        },
        {
            "name": "synthesise",
            "agent": "licences.synthesise",
            "request": {
                "question": "${query}",
                "located": {
                    "skipped": "${locate.skipped}",
                    "folders": "${locate.folders}",
                    "counts": "${locate.counts}",
                },
                "packages": "${analyze}",
                "check": "${crosscheck}",
            },
            "after": ["locate", "analyze", "crosscheck"],
        },
        _publish_step(out),
    ]


def _document_steps(folders: list[str], out: str, model: str) -> list[dict[str, Any]]:
    return [
        {
            "name": "locate",
            "agent": "research.locate",
            "request": {"question": "${query}", "folders": folders, "limit": DOCUMENT_LIMIT},
            "after": [],
        },
        {
            "name": "analyze",
            "agent": "research.analyze",
            "request": {"question": "${query}", "document": "${item}", "weights": "${locate.weights}", "model": model},
            "each": "${locate.documents}",
            "after": ["locate"],
        },
        {
            "name": "crosscheck",
            "agent": "research.crosscheck",
            "request": {"question": "${query}", "analyses": "${analyze}"},
            "after": ["analyze"],
        },
        {
            "name": "synthesise",
            "agent": "research.synthesise",
            "request": {
                "question": "${query}",
                "located": {
                    "skipped": "${locate.skipped}",
                    "counts": "${locate.counts}",
                    "weights": "${locate.weights}",
                },
                "check": "${crosscheck}",
                "model": model,
            },
            "after": ["locate", "crosscheck"],
        },
        _publish_step(out),
    ]


def _publish_step(out: str) -> dict[str, Any]:
    return {
        "name": "publish",
        "agent": "research.publish",
        "request": {"report": "${synthesise}", "out": out},
        "after": ["synthesise"],
    }
