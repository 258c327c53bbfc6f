"""Forks, trees and templates from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from celeriac import Celeriac
from interface.conftest import FAN_OUT, Cli


def told(cli: Cli, *words: str, code: int = 0) -> Any:
    result = cli(*words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def session(cli: Cli, folder: Path) -> str:
    """A session on a plan that has run to its end."""
    (folder / "plan.yaml").write_text(yaml.safe_dump(FAN_OUT))
    return str(told(cli, "run", "plan.yaml", "--query", "parts")["id"])


def test_a_fork_runs_what_was_changed(cli: Cli, session: str) -> None:
    same = told(cli, "sessions", "fork", session)
    assert same["status"] == "completed" and all(one["cached"] for one in same["steps"])
    first = same["steps"][0]["name"]
    anew = told(cli, "sessions", "fork", session, "--from-step", first)
    assert anew["status"] == "completed" and not any(one["cached"] for one in anew["steps"])
    for words, says in (
        (("--set", "nonsense"), "is not STEP.KEY=JSON"),
        (("--set", f"{first}.k=nonsense"), "is not JSON"),
        (("--from-step", "nowhere"), "no step 'nowhere' in the plan"),
        (("--checkpoint", "999"), "has no checkpoint 999"),
    ):
        result = cli("sessions", "fork", session, *words)
        assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.output


def test_a_tree_is_made_drawn_merged_and_compared(cli: Cli, folder: Path, session: str) -> None:
    made = told(
        cli, "sessions", "branch", session, "try it", "--description", "another way", "--creator", "lea", "--switch"
    )
    c = Celeriac(embed=False)
    try:
        c.sessions.get(made["id"]).history.add("user", "new")
        for one, value in ((session, 1), (made["id"], 2)):
            c.state.set(f"session:{one}", "k", value)
    finally:
        c.close()
    found = told(cli, "sessions", "tree", session)
    assert [one["name"] for one in found["children"]] == ["try it"] and found["children"][0]["current"]
    assert found["children"][0]["creator"] == "lea"
    drawn = cli("sessions", "tree", made["id"]).stdout
    assert "└── " in drawn and "try it" in drawn and "* current" in drawn and "another way" in drawn
    assert told(cli, "sessions", "compare", session, made["id"])["state"] == [{"key": "k", "a": 1, "b": 2}]
    shown = cli("sessions", "compare", session, made["id"]).stdout
    assert "only in B" in shown and "user: new" in shown
    merged = told(cli, "sessions", "merge", session, made["id"], code=1)
    assert merged == {"branch": made["id"], "entries": 1, "keys": [], "conflicts": [1]}
    assert "celeriac sessions resolve" in cli("sessions", "conflicts", session).stdout
    assert told(cli, "sessions", "resolve", session, "1", '"both"', "--by", "lea") == {"conflict": 1, "value": "both"}
    assert told(cli, "sessions", "conflicts", session) == []
    assert "value, by lea" in cli("sessions", "conflicts", session, "--all").stdout
    assert "sessions resolve" not in cli("sessions", "conflicts", session, "--all").stdout
    assert "has no entry -1" in cli("sessions", "branch", session, "x", "--at", "-1").stderr
    assert "neither ours" in cli("sessions", "resolve", session, "1", "nonsense").stderr
    assert told(cli, "sessions", "switch", made["id"], session)["current"] == session
    refused = cli("sessions", "delete", session, "--yes")
    assert refused.exit_code == 2 and "has a branch" in refused.stderr and "--recursive" in refused.stderr
    assert told(cli, "sessions", "delete", session, "--yes", "--recursive")["deleted"] == [session]
    assert told(cli, "sessions", "list") == []


def test_a_session_is_run_from_a_template(cli: Cli, folder: Path) -> None:
    (folder / "plan.yaml").write_text(yaml.safe_dump(FAN_OUT))
    words = ("--plan", "plan.yaml", "--preferences", '{"a": 1}', "--state", '{"k": 1}', "--tag", "x")
    assert told(cli, "templates", "save", "weekly", *words, "--description", "each week")["tags"] == ["x"]
    assert "weekly" in cli("templates", "list").stdout and "each week" in cli("templates", "show", "weekly").stdout
    run = told(cli, "run", "--template", "weekly", "--query", "parts")
    assert (run["status"], run["tags"], run["preferences"]) == ("completed", ["x"], {"a": 1})
    assert told(cli, "state", "get", f"session:{run['id']}", "k")["value"] == 1
    queued = told(cli, "enqueue", "--template", "weekly", "--query", "parts")
    assert told(cli, "sessions", "resume", queued["id"])["tags"] == ["x"]
    (folder / "kept.yaml").write_text(cli("templates", "show", "weekly", "--yaml").stdout)
    copied = told(cli, "templates", "save", "copy", "--from", "kept.yaml", "--tag", "y")
    assert (copied["name"], copied["tags"], copied["state"]) == ("copy", ["y"], {"k": 1})
    assert copied["plan"]["name"] == run["plan"]
    assert cli("templates", "save", "--from", "kept.yaml").stdout == "weekly  saved\n"
    assert told(cli, "templates", "delete", "copy") == {"deleted": "copy"}
    assert told(cli, "templates", "delete", "weekly") == {"deleted": "weekly"} and told(cli, "templates", "list") == []
    for given, says in (
        (("templates", "show", "weekly"), "no template 'weekly'; there are: none"),
        (("templates", "save", "x", "--state", "[1]"), "is no JSON object"),
        (("templates", "save"), "name the template, or its file"),
        (("templates", "save", "--from", "nowhere.yaml"), "cannot be read"),
        (("enqueue", "--template", "x", "--licences"), "belong to a plan"),
        (("run",), "name a plan file, or a template"),
        (("run", "--template", "x"), "no template 'x'"),
    ):
        result = cli(*given)
        assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.output


def test_sessions_are_attached_listed_and_detached(cli: Cli, session: str) -> None:
    other = told(cli, "sessions", "fork", session)["id"]
    assert told(cli, "sessions", "attached", session) == []
    assert cli("sessions", "attached", session).stdout == "no session is attached\n"
    assert told(cli, "sessions", "attach", session, other) == {"id": session, "attached": [other]}
    assert cli("sessions", "attach", session, other).stdout == f"{other}  as before\n"
    assert [one["id"] for one in told(cli, "sessions", "attached", session)] == [other]
    assert "parts" in cli("sessions", "attached", session).stdout
    itself = cli("sessions", "attach", session, session)
    assert itself.exit_code == 2 and "cannot be attached to itself" in itself.stderr
    assert told(cli, "sessions", "detach", session, other) == {"id": session, "detached": [other]}
    assert told(cli, "sessions", "attached", session) == []
