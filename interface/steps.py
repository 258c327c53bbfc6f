"""`celeriac steps`: the steps of a session, and one of them with its request, output and attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import document, json_option, lasting, pairs, pretty, table, when

if TYPE_CHECKING:
    from ..orchestration.session import Session

#: A request or output of more characters than this is not printed for people.
MOST_CHARACTERS = 4000


@click.group()
def steps() -> None:
    """Look at the steps of a session."""


@steps.command("list")
@click.argument("session_id", metavar="SESSION")
@click.option("--status", "statuses", multiple=True, metavar="WORD", help="Only in this state; may be given again.")
@json_option
@pass_invocation
def list_(invocation: Invocation, session_id: str, statuses: tuple[str, ...], as_json: bool) -> None:
    """List a session's steps in the order of its plan."""
    from .research import BadInput

    known = ("blocked", "ready", "running", "waiting", "done", "failed", "dead", "skipped", "cancelled")
    unknown = [one for one in statuses if one not in known]
    if unknown:
        raise BadInput(f"{unknown[0]!r} is no state of a step; there are: {', '.join(known)}")
    with invocation.session(session_id) as (_, session):
        rows = [row for row in session.steps() if not statuses or row["status"] in statuses]
    if as_json:
        document(rows)
        return
    shown = [
        (row["name"], row["agent"], row["status"], row["attempts"] or "", _took(row), row["error"] or row["task"] or "")
        for row in rows
    ]
    table(("step", "agent", "status", "attempts", "took", "last said"), shown, right=("attempts", "took"))


def _took(row: dict[str, Any]) -> str:
    from datetime import datetime

    if not row["started_at"] or not row["finished_at"]:
        return ""
    took = datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])
    return lasting(took.total_seconds()) if took.total_seconds() >= 1 else f"{took.total_seconds() * 1000:.0f} ms"


@steps.command()
@click.argument("session_id", metavar="SESSION")
@click.argument("name", metavar="STEP")
@json_option
@pass_invocation
def show(invocation: Invocation, session_id: str, name: str, as_json: bool) -> None:
    """Show one step: its request as the plan has it, its output or error, and each of its attempts."""
    with invocation.session(session_id) as (_, session):
        view = _view(session, name)
    if as_json:
        document(view)
        return
    rows = [(key, view[key]) for key in ("name", "agent", "status", "attempts", "task", "error")]
    rows += [(key, when(view[f"{key}_at"])) for key in ("started", "finished")]
    rows += [("members", len(view.get("members", ())))]
    pairs([(key, value) for key, value in rows if value])
    told = [(key, view[key]) for key in ("request", "item", "output") if view[key] is not None]
    if told:
        print()
        pairs([(key, pretty(value, MOST_CHARACTERS) or "large (--json shows it)") for key, value in told])
    if view["history"]:
        print()
        history = [(when(one["at"]), one["type"], one["told"]) for one in view["history"]]
        table(("at", "what happened", ""), history, fold=("",))


def _view(session: Session, name: str) -> dict[str, Any]:
    """A step as one JSON-able object; for a fan-out or sub-plan the list of its members too. Raises StepNotFound."""
    rows = session.steps()
    found = next((row for row in rows if row["name"] == name), None)
    if found is None:
        members = [row for row in rows if row["name"].startswith(f"{name}/") or _member_of(row["name"], name)]
        if not members:
            session.output(name)  # raises StepNotFound with the names that there are
        done = bool(members) and all(row["status"] in ("done", "skipped") for row in members)
        found = {
            **dict.fromkeys(rows[0]),
            "id": f"{session.id}/{name}",
            "name": name,
            "status": "done" if done else "waiting",
        }
        found["members"] = [row["name"] for row in members]
    output = session.output(name) if found["status"] == "done" else None
    return {**found, **session.asked(name), "output": output, "history": _history(session, name)}


def _member_of(name: str, group: str) -> bool:
    head, dash, tail = name.partition("/")[0].rpartition("-")
    return bool(dash) and head == group and tail.isdecimal()


def _history(session: Session, name: str) -> list[dict[str, Any]]:
    from ..orchestration.views import moment

    told = []
    for event in session.stream(follow=False):
        if event.step == name and event.type not in ("step.progress", "step.partial"):
            data = event.data if isinstance(event.data, dict) else {}
            words = ", ".join(f"{key}: {value}" for key, value in data.items() if value is not None)
            told.append({"at": moment(event.at), "type": event.type.removeprefix("step."), "told": words, "data": data})
    return told
