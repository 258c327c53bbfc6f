"""Runs a research plan in this process, through JSON as the engine would, with a stand-in for the context."""

from __future__ import annotations

import json
import logging
import re
import sys
from types import SimpleNamespace
from typing import Any

from celeriac.orchestration.research import plan_for

_REFERENCE = re.compile(r"^\$\{([\w.]+)\}$")


class Context:
    """What an agent sees of its session; keeps what was reported."""

    def __init__(self, query: str) -> None:
        self.session = SimpleNamespace(id="session-1", query=query)
        self.logger = logging.getLogger("run_plan")
        self.reported: list[str] = []
        self.partials: list[Any] = []

    def progress(self, fraction: float, text: str = "") -> None:
        assert 0.0 <= fraction <= 1.0
        self.reported.append(text)

    def partial(self, value: Any) -> None:
        self.partials.append(json.loads(json.dumps(value)))

    def check(self) -> None:
        return None


def agents() -> dict[str, Any]:
    from celeriac.orchestration.research import documents, publishing
    from celeriac.orchestration.research.licences import agents as licences
    from celeriac.orchestration.research.licences import report

    return {
        "licences.locate": licences.locate,
        "licences.analyze": licences.analyze,
        "licences.crosscheck": licences.crosscheck,
        "licences.synthesise": report.synthesise,
        "research.locate": documents.locate,
        "research.analyze": documents.analyze,
        "research.crosscheck": documents.crosscheck,
        "research.synthesise": documents.synthesise,
        "research.publish": publishing.publish,
    }


def run_plan(
    kind: Any, query: str, folders: list[str], out: str, model: str = "", publish: bool = True
) -> dict[str, Any]:
    """All steps' data by name; a fan-out step's data is the list of its items' data."""
    known = agents()
    context = Context(query)
    results: dict[str, Any] = {"query": query}
    for step in plan_for(kind, folders, out, model):
        if step["name"] == "publish" and not publish:
            continue
        agent = known[step["agent"]]
        if "each" in step:
            items = fill(step["each"], results)
            results[step["name"]] = [
                run(agent, fill(step["request"], {**results, "item": item}), context) for item in items
            ]
        else:
            results[step["name"]] = run(agent, fill(step["request"], results), context)
    return results


def run(agent: Any, request: Any, context: Context) -> Any:
    output = agent(json.loads(json.dumps(request)), context)
    for finding in output.findings:
        json.dumps(finding.value), json.dumps(finding.evidence)
    return json.loads(json.dumps(output.data))


def fill(template: Any, results: dict[str, Any]) -> Any:
    if isinstance(template, dict):
        return {key: fill(value, results) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, results) for value in template]
    if isinstance(template, str) and (match := _REFERENCE.match(template)):
        value: Any = results
        for part in match[1].split("."):
            value = value[part]
        return value
    return template


if __name__ == "__main__":
    done = run_plan(sys.argv[1], sys.argv[2], sys.argv[4:], sys.argv[3])
    print(json.dumps(done["publish"], indent=1))
