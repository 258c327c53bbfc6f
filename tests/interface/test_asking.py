"""`sessions`, `steps`, `checkpoints` and `db`: what they show, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import FAILING, FAN_OUT, Cli, plan

SHOWN = """id query user status phase progress result error tags created_at updated_at completed_at steps conflicts
checkpoints""".split()
STEP = "id name agent status attempts progress error started_at finished_at cached".split()


@pytest.fixture
def session(cli: Cli, folder: Path) -> str:
    """The id of a completed session of the plan `demo`."""
    done = cli("run", plan(folder, FAN_OUT), "--query", "who supplies turnips", "--user", "ana", "--tag", "x", "--json")
    assert done.exit_code == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


def read(cli: Cli, *words: str) -> Any:
    done = cli(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_show_gives_the_promised_object(cli: Cli, session: str) -> None:
    view = read(cli, "sessions", "show", session)
    assert set(SHOWN) <= view.keys()
    assert all(set(STEP) <= step.keys() for step in view["steps"])
    assert view["conflicts"][0]["entity"] == "thing" and view["checkpoints"]


def test_show_is_readable_without_json(cli: Cli, session: str) -> None:
    told = cli("sessions", "show", session[:13]).stdout
    for word in (session, "completed", "who supplies turnips", "work", "6/6", "colour", '"count": 6'):
        assert word in told
    assert "\x1b" not in told and max(map(len, told.splitlines())) <= 100


def test_list_filters_and_pages(cli: Cli, session: str, folder: Path) -> None:
    cli("run", plan(folder, FAILING), "--user", "lea")
    assert [one["user"] for one in read(cli, "sessions", "list")] == ["lea", "ana"]
    assert [one["user"] for one in read(cli, "sessions", "list", "--ascending")] == ["ana", "lea"]
    assert [one["id"] for one in read(cli, "sessions", "list", "--user", "ana", "--status", "completed")] == [session]
    assert read(cli, "sessions", "list", "--tag", "nothing") == []
    first = cli("sessions", "list", "--limit", "1", "--json")
    cursor = first.stderr.split("--cursor ")[1].strip()
    assert [one["id"] for one in read(cli, "sessions", "list", "--limit", "1", "--cursor", cursor)] == [session]
    assert not set(SHOWN[-3:]) & json.loads(first.stdout)[0].keys()


def test_search_finds_words_of_the_query(cli: Cli, session: str) -> None:
    assert [one["id"] for one in read(cli, "sessions", "search", "turnips", "supp")] == [session]
    assert cli("sessions", "search", "beetroot").stderr == "no session\n"


def test_watch_json_gives_events_without_a_gap_from_an_offset(cli: Cli, session: str) -> None:
    events = [json.loads(text) for text in cli("sessions", "watch", session, "--json").stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert (events[0]["type"], events[-1]["type"]) == ("session.created", "session.completed")
    later = cli("sessions", "watch", session, "--json", "--from", str(len(events) - 2)).stdout.splitlines()
    assert len(later) == 2


def test_export_holds_every_record(cli: Cli, session: str, folder: Path) -> None:
    records = [json.loads(text) for text in cli("sessions", "export", session).stdout.splitlines()]
    assert [json.loads(text) for text in cli("sessions", "export", session, "-").stdout.splitlines()] == records
    kinds = [record["record"] for record in records]
    assert (kinds.count("session"), kinds.count("step"), kinds.count("result")) == (1, 8, 8)
    assert kinds.count("finding") == 6 and "conflict" in kinds and "partial" in kinds and "event" in kinds
    written = read(cli, "sessions", "export", session, str(folder / "out.jsonl"))
    assert written["records"]["event"] == kinds.count("event")
    assert len((folder / "out.jsonl").read_text().splitlines()) == len(records)
    assert not list(folder.glob(".out*"))


def test_delete_asks_and_is_refused_without_a_terminal(cli: Cli, session: str) -> None:
    assert cli("sessions", "delete", session).exit_code == 2
    assert cli("sessions", "show", session).exit_code == 0
    assert read(cli, "sessions", "delete", session, "--yes") == {"deleted": [session]}
    gone = cli("sessions", "show", session)
    assert gone.exit_code == 2 and session in gone.stderr and len(gone.stderr.splitlines()) == 1


def test_cancel_stops_a_session_that_waits(cli: Cli, folder: Path) -> None:
    waiting = cli("enqueue", plan(folder, FAN_OUT)).stdout.strip()
    assert cli("sessions", "delete", waiting, "--yes").exit_code == 2
    assert read(cli, "sessions", "cancel", waiting)["status"] == "cancelled"
    assert cli("sessions", "cancel", waiting).stdout.startswith(waiting)


def test_steps_are_listed_and_one_is_shown_with_what_it_was_asked_and_gave(cli: Cli, session: str) -> None:
    assert len(read(cli, "steps", "list", session)) == 8
    assert read(cli, "steps", "list", session, "--status", "failed") == []
    one = read(cli, "steps", "show", session, "work-2")
    assert (one["output"], one["item"]) == ({"item": 2}, 2)
    told = [event["type"] for event in one["history"] if event["type"] != "conflict.raised"]  # whose finding is second
    assert told == ["started", "done"]
    assert read(cli, "steps", "show", session, "work")["output"] == [{"item": n} for n in range(6)]
    assert "agent: cli.work, attempt: 1" in cli("steps", "show", session, "work-2").stdout
    missing = cli("steps", "show", session, "wrok")
    assert missing.exit_code == 2 and "wrok" in missing.stderr and "work" in missing.stderr


def test_checkpoints_are_listed_shown_compared_made_and_restored(cli: Cli, session: str) -> None:
    known = read(cli, "checkpoints", "list", session)
    last = known[-1]["id"]
    assert known[-1]["kind"] == "final"
    assert read(cli, "checkpoints", "show", last)["steps"]["join"]["status"] == "done"
    middle = next(c for c in known if read(cli, "checkpoints", "show", c["id"])["steps"]["join"]["status"] == "blocked")
    changed = read(cli, "checkpoints", "diff", middle["id"], str(known[-1]["number"]))
    assert "steps.join.status" in [one["path"] for one in changed]
    assert read(cli, "checkpoints", "create", session, "--label", "mine")["id"].startswith(session)
    assert "mine" in cli("checkpoints", "list", session[:13]).stdout
    back = read(cli, "checkpoints", "restore", f"{session[:13]}:{middle['number']}")
    assert back["status"] == "paused"
    assert read(cli, "sessions", "resume", session)["status"] == "completed"
    assert cli("checkpoints", "show", session).exit_code == 2
    assert cli("checkpoints", "show", f"{session}:999").exit_code == 2


def test_checkpoints_show_the_state_of_their_session(cli: Cli, session: str) -> None:
    cli("state", "set", f"session:{session}", "cursor", '{"page": 7}')
    made = read(cli, "checkpoints", "create", session)["id"]
    assert read(cli, "checkpoints", "show", made)["state"] == {"cursor": {"page": 7}}
    shown = cli("checkpoints", "show", made).stdout
    assert "cursor" in shown and '{"page": 7}' in shown


def test_db_says_what_the_schema_is(cli: Cli, folder: Path) -> None:
    assert read(cli, "db", "status")["state"] == "empty"
    assert read(cli, "db", "upgrade")["before"] is None
    assert read(cli, "db", "status")["state"] == "current"
    assert "nothing to do" in cli("db", "upgrade").stdout


def test_a_database_of_a_newer_release_is_refused_in_one_line(cli: Cli, session: str, folder: Path) -> None:
    from celeriac.storage.sqlite import library

    connection = library().connect(folder / ".celeriac" / "celeriac.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    refused = cli("sessions", "list")
    assert refused.exit_code == 2 and "9999" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert cli("db", "status").exit_code == 1
    assert cli("doctor").exit_code == 1


def test_it_is_the_same_on_each_database(
    cli: Cli, folder: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_DATABASE_URL", database_url)
    done = cli("run", plan(folder, FAN_OUT), "--query", "who supplies turnips", "--json")
    assert done.exit_code == 0, done.stderr
    session = json.loads(done.stdout)["id"]
    assert [one["id"] for one in read(cli, "sessions", "list", "--status", "completed")] == [session]
    assert [one["id"] for one in read(cli, "sessions", "search", "turn")] == [session]
    assert read(cli, "db", "status")["state"] == "current"
    assert cli("sessions", "export", session).exit_code == 0
    assert {"ok"} == {
        one["status"] for one in read(cli, "doctor")["checks"] if one["check"] in ("database", "postgresql")
    }
