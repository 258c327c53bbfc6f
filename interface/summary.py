"""What came out of a session, in a few lines at its end."""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import StepNotFound
from .printing import clean, clean_lines, console, lasting, pairs, pretty, say

if TYPE_CHECKING:
    from ..orchestration.session import Session

#: A result of more characters than this is not printed.
MOST_CHARACTERS = 4000
#: Paragraphs of a report's summary that are printed, and characters of each.
PARAGRAPHS = 3
PARAGRAPH_CHARACTERS = 400
#: Facts of a report that are longer than this are for the report only.
FIGURE_CHARACTERS = 24


def summarise(session: Session) -> None:
    """Print how a session ended: where its report lies, key figures, conflicts, errors and its id."""
    view = session.to_dict(details=False)
    if view["status"] == "paused":
        say(f"paused; to go on:  celeriac sessions resume {session.id}")
        return
    if view["status"] == "active":  # a conversation
        say(f"all messages were answered; to go on:  celeriac chat --session {session.id}")
        return
    report, paths = report_of(session, view["result"])
    print()
    if report:
        _print_answer(report)
    rows = [("status", _status(view))]
    if view["status"] in ("failed", "cancelled"):
        rows += _failures(session, view)
    rows += [(kind if n else "report", _near(path)) for n, (kind, path) in enumerate(paths.items())]
    if report:
        rows += [("figures", _figures(report.get("facts", {})))]
    rows += _conflicts(session, report)
    rows.append(("session", session.id))
    if not report and view["status"] == "completed":
        text = pretty(view["result"], MOST_CHARACTERS)
        if text is None:
            rows.append(("result", f"large; celeriac sessions show {session.id} --json"))
        else:
            console().out(clean_lines(text), highlight=False)
    pairs([(name, value) for name, value in rows if value])


def report_of(session: Session, result: Any) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The report (as `Report.to_dict` gives it) and its files by kind, of a session that made one; else None and {}."""
    if not isinstance(result, dict) or not isinstance(result.get("markdown"), str):
        return None, {}
    paths = {kind: path for kind, path in result.items() if isinstance(path, str) and os.path.isabs(path)}
    try:
        report = session.output("synthesise")
    except StepNotFound:
        return None, paths
    return (report if isinstance(report, dict) else None), paths


def _print_answer(report: dict[str, Any]) -> None:
    from ..orchestration.reports.inline import plain

    shown = console()
    for paragraph in report.get("summary", [])[:PARAGRAPHS]:
        shown.print(clean(plain(paragraph), PARAGRAPH_CHARACTERS))
        shown.print()


def _status(view: dict[str, Any]) -> str:
    took = datetime.fromisoformat(view["completed_at"]) - datetime.fromisoformat(view["created_at"])
    return f"{view['status']} in {lasting(took.total_seconds())}"


def _failures(session: Session, view: dict[str, Any]) -> list[tuple[str, str]]:
    broken = [step for step in session.steps() if step["status"] in ("failed", "dead")]
    rows = [(step["name"], clean(step["error"] or "", 300)) for step in broken[:5]]
    if len(broken) > 5:
        rows.append(("", f"and {len(broken) - 5} more failed steps: celeriac steps list {session.id}"))
    if not broken and view["error"]:
        rows.append(("error", clean(view["error"], 300)))
    return [*rows, ("again", f"celeriac sessions retry {session.id}")]


def _conflicts(session: Session, report: dict[str, Any] | None) -> list[tuple[str, str]]:
    found = report["conflicts"] if report else session.conflicts()
    if not found:
        return []
    counts = Counter(conflict["severity"] for conflict in found)
    told = ", ".join(f"{counts[word]} {word}" for word in ("high", "medium", "low") if counts[word])
    worst = [
        clean(f"{c['entity']}: {c.get('explanation') or c['attribute']}", 100) for c in found if c["severity"] == "high"
    ]
    return [("conflicts", "\n".join([f"{len(found)} ({told})", *worst[:3]]))]


def _figures(facts: dict[str, Any]) -> str:
    return " · ".join(f"{name} {value}" for name, value in facts.items() if len(str(value)) <= FIGURE_CHARACTERS)


def _near(path: str) -> str:
    """A path as it would be typed from here."""
    near = os.path.relpath(path)
    return path if near.startswith("..") else near
