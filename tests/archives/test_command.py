"""`celeriac archive` and `celeriac erase`, as a person or a program uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interface.conftest import FAN_OUT, cli, folder, plan

__all__ = ["cli", "folder"]
Cli = Callable[..., Any]


def told(result: Any, code: int = 0) -> Any:
    """The JSON that a command printed."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def started(cli: Cli, folder: Path, *more: str) -> str:
    """Run a session; gives its id."""
    return str(told(cli("run", plan(folder, FAN_OUT), "--query", "parts", *more, "--json"))["id"])


def test_a_session_is_archived_listed_shown_checked_and_restored(cli: Cli, folder: Path) -> None:
    session = started(cli, folder, "--user", "ana")
    before = told(cli("sessions", "show", session, "--json"))
    made = told(cli("archive", "create", session[:20], "--json"))
    assert (made["id"], made["status"]) == (session, "completed")
    shown = told(cli("sessions", "show", session, "--json"))
    assert (shown["progress"], shown["phase"]) == (1.0, "completed")
    assert shown["status"] == "archived" and shown["archive"]["file"] == made["file"] and before["archive"] is None
    assert "celeriac archive show or restore" in cli("sessions", "show", session).stdout
    for command in ("show", "count", "summarize"):
        assert f"it is archived; celeriac archive show {session}" in cli("history", command, session).stderr
    for group in ("history", "sessions"):
        assert f"celeriac archive show {session}" in cli(group, "export", session).stderr
    assert told(cli("archive", "list", "--json")) == [made]
    assert session[:13] in cli("archive", "list", "--search", "parts").stdout
    assert told(cli("archive", "list", "--user", "lea", "--json")) == []
    found = told(cli("archive", "show", session, "--json"))
    assert found["session"] == before and found["results"]["join"] == before["result"]
    assert "join" in cli("archive", "show", session).stdout
    assert told(cli("archive", "verify", session, "--json"))["ok"] is True
    assert "whole" in cli("archive", "verify", session).stdout
    assert told(cli("archive", "restore", session, "--json")) == before
    result = cli("archive", "restore", session)
    assert result.exit_code == 2 and "in no archive: it is completed" in result.stderr
    assert cli("archive", "create", session).stdout.startswith(f"{session}  archived")
    (file,) = (folder / ".celeriac" / "archives").rglob("*.archive")
    sound = file.read_bytes()
    file.write_bytes(sound[:-1])
    result = cli("archive", "verify", session)
    assert result.exit_code == 1 and "damaged" in result.stderr
    assert told(cli("archive", "verify", session, "--json"), 1)["ok"] is False
    assert cli("archive", "restore", session).exit_code == 2
    assert "pass --yes" in cli("archive", "delete", session).stderr
    assert told(cli("archive", "delete", session, "--yes", "--json")) == {"deleted": [session]}
    assert told(cli("archive", "list", "--json")) == [] and not file.exists()
    assert told(cli("archive", "tidy", "--json")) == {"settled": 0, "files": 0}


def test_a_tree_is_archived_drawn_restored_and_deleted(cli: Cli, folder: Path) -> None:
    session = started(cli, folder)
    branch = told(cli("sessions", "branch", session, "try", "--json"))["id"]
    refused = cli("archive", "create", session)
    assert refused.exit_code == 2 and f"has branches that are not: {branch}" in refused.stderr
    refused = cli("archive", "create", session, "--recursive")
    assert refused.exit_code == 2 and branch in refused.stderr and "active" in refused.stderr
    assert cli("sessions", "cancel", branch).exit_code == 0
    assert cli("archive", "create", session, "--recursive").stdout.strip().endswith(", and 1 below it")
    found = told(cli("sessions", "tree", branch, "--json"))
    assert (found["status"], found["entries"], found["children"][0]["status"]) == ("archived", None, "archived")
    drawn = cli("sessions", "tree", session).stdout
    assert drawn.count("archived") == 2 and "entries" not in drawn
    refused = cli("archive", "restore", branch)
    assert refused.exit_code == 2 and f"restore {session} first" in refused.stderr
    assert told(cli("archive", "restore", session, "--recursive", "--json"))["status"] == "completed"
    assert told(cli("sessions", "show", branch, "--json"))["status"] == "cancelled"
    assert told(cli("archive", "create", session, "--recursive", "--json"))["id"] == session
    refused = cli("archive", "delete", session, "--yes")
    assert refused.exit_code == 2 and "has a branch" in refused.stderr
    assert told(cli("archive", "delete", session, "--yes", "--recursive", "--json")) == {"deleted": [session]}
    assert told(cli("archive", "list", "--json")) == []


def test_a_user_is_erased_after_a_look_and_a_yes(cli: Cli, folder: Path) -> None:
    session = started(cli, folder, "--user", "ana")
    assert cli("backup", "create").exit_code == 0
    dry = told(cli("erase", "--user", "ana", "--dry-run", "--json"))
    assert dry["removed"]["sessions"] == 1 and dry["stays"][0]["place"] == "backup"
    refused = cli("erase", "--user", "ana")
    assert refused.exit_code == 2 and "pass --yes" in refused.stderr
    receipt = told(cli("erase", "--user", "ana", "--yes", "--json"))
    assert receipt["status"] == "done" and receipt["removed"]["sessions"] == 1
    assert cli("sessions", "show", session).exit_code == 2
    assert told(cli("erase", "receipts", "--json")) == [receipt]
    assert receipt["id"] in cli("erase", "receipts").stdout
    said = cli("erase", "--user", "ana", "--yes", "--rewrite-backups")
    assert "backups made anew" in said.stdout and said.exit_code == 0
    assert told(cli("erase", "--user", "ana", "--dry-run", "--json"))["stays"] == []
    unknown = cli("erase", "--session", session, "--yes")
    assert unknown.exit_code == 2 and unknown.stderr == f"celeriac: no session {session!r}\n"
    assert "exactly one" in cli("erase", "--yes").stderr
    assert "exactly one" in cli("erase", "--user", "ana", "--session", session).stderr
    assert cli("erase", "--user", "nobody", "--dry-run").stdout == "nothing is there of it\n"
    assert told(cli("erase", "--user", "ana", "--tenant", "acme", "--yes", "--json"))["tenant"] == "acme"
