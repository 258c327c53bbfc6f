"""What must hold in every database at rest, whatever was done to it. Run after every test of the engine."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy import text

from celeriac.orchestration.engine import Engine
from celeriac.storage import bulk, checkpoints, sessions, steps
from celeriac.storage.cache.tables import BLOB_TAG

TABLES = (
    "sessions", "steps", "edges", "results", "events", "blobs", "checkpoints", "partial_results", "outbox",
    "state_values", "state_changes", "checkpoint_blobs", "cached_tags", "history", "cold_history", "conversations",
    "history_gaps", "removals",
)  # fmt: skip
#: What names blobs.
NAMING = ("results", "state_values", "checkpoint_blobs", "history", "cold_history")
STATES = {"blocked", "ready", "running", "waiting", *steps.FINAL}


def check(engine: Engine, damaged: bool = False) -> None:
    """Raise AssertionError for the first invariant that does not hold. `damaged`: checkpoints were damaged on
    purpose.
    """
    with engine.database.engine.connect() as connection:
        tables = {
            name: [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))] for name in TABLES
        }
        if engine.database.is_sqlite:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    by_session: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in tables["steps"]:
        by_session[row["session_id"]].append(row)
    for session in tables["sessions"]:
        _check_session(session, by_session[session["id"]])
        _check_graph(session, by_session[session["id"]], tables["edges"])
        _check_events(session, [e for e in tables["events"] if e["session_id"] == session["id"]])
    _check_orphans(tables)
    _check_histories(tables)
    _check_results(engine, tables)
    if not damaged:
        _check_checkpoints(engine, tables)


def _check_session(session: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every step in one legal state, counters right, and the session ended if and only if all its steps have."""
    what = f"session {session['id']} ({session['status']})"
    assert [r["number"] for r in sorted(rows, key=lambda r: r["number"])] == list(range(1, len(rows) + 1)), what
    assert session["total_steps"] == len(rows), what
    open_steps = [r["name"] for r in rows if r["status"] not in steps.FINAL]
    assert session["open_steps"] == len(open_steps), (what, session["open_steps"], open_steps)
    failed = [r["name"] for r in rows if r["status"] in ("failed", "dead") and r["kind"] not in ("call", "message")]
    assert session["failed_steps"] == len(failed), (what, session["failed_steps"], failed)
    if session["status"] in ("completed", "failed", "cancelled", "archived"):
        assert not open_steps, (what, open_steps)
        assert session["completed_at"] is not None or session["status"] == "archived", what
    elif rows:
        is_conversation = any(r["kind"] == "message" for r in rows) and not session["plan_name"]
        assert open_steps or is_conversation, what
        assert session["completed_at"] is None, what
    for row in rows:
        name = f"{what}, step {row['name']}"
        assert row["status"] in STATES, name
        assert (row["status"] == "running") == (row["lease_until"] is not None), name
        assert row["attempts"] <= row["epoch"] + 1, name
        if row["status"] == "done" and row["kind"] not in ("each", "plan"):
            assert row["result_epoch"] is not None, name
        if row["status"] in ("ready", "blocked") and session["status"] == "paused":
            assert row["held"], name
        if row["status"] in ("ready", "running") and session["status"] == "active":
            assert not row["held"], name


def _check_graph(session: dict[str, Any], rows: list[dict[str, Any]], edges: list[dict[str, Any]]) -> None:
    """Waits are counted right, no step began before all that it waits for had ended, and nothing waits for nothing."""
    by_number = {r["number"]: r for r in rows}
    sources: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for edge in edges:
        if edge["session_id"] == session["id"]:
            sources[edge["target"]].append(by_number[edge["source"]])
    for row in rows:
        name = f"session {session['id']} ({session['status']}), step {row['name']} ({row['status']})"
        waits = [s["name"] for s in sources[row["number"]] if s["status"] not in steps.FINAL]
        if row["status"] in ("blocked", "waiting"):
            assert row["pending"] == len(waits), (name, row["pending"], waits)
            assert waits or session["status"] != "active", f"{name} waits for nothing"
        elif row["status"] in ("ready", "running", "done") and session["status"] != "cancelled":
            assert not waits, (name, waits)
        if row["status"] in ("ready", "running", "done"):
            bad = [s["name"] for s in sources[row["number"]] if s["status"] in ("failed", "dead")]
            assert not bad, (name, bad)
        if row["kind"] == "agent" and row["started_at"] and row["status"] == "done":
            for source in sources[row["number"]]:
                if source["finished_at"] is not None and source["status"] == "done":
                    assert source["finished_at"] <= row["started_at"] + 0.002, (name, source["name"])


def _check_events(session: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Numbered without a gap; the oldest may have been deleted by retention."""
    found, last = sorted(e["seq"] for e in rows), session["event_seq"]
    assert found and found == list(range(last - len(found) + 1, last + 1)), f"events of {session['id']}"


def _check_histories(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Numbers go up to how many there were, and all that are missing are accounted for."""
    gone = {row["session_id"]: row["gone"] for row in tables["history_gaps"]}
    numbers: dict[str, list[int]] = defaultdict(list)
    for row in tables["history"]:
        numbers[row["session_id"]].append(row["number"])
    for row in tables["conversations"]:
        session_id = row["session_id"]
        found = numbers.pop(session_id, [])
        said = sum(one["size"] for one in tables["history"] if one["session_id"] == session_id)
        assert row["bytes"] == said, f"bytes of the history of {session_id}"
        assert max(found, default=0) <= row["entries"], f"history of {session_id}"
        assert len(found) == row["entries"] - gone.pop(session_id, 0), f"history of {session_id}"
    assert not numbers and not gone
    assert not tables["removals"], "sessions that are not wholly deleted"


def _check_orphans(tables: dict[str, list[dict[str, Any]]]) -> None:
    known = {s["id"] for s in tables["sessions"]}
    for name, rows in tables.items():
        if name not in ("sessions", "blobs", "state_values", "cached_tags", "removals"):
            assert {r["session_id"] for r in rows} <= known, f"{name} of deleted sessions"


def _check_results(engine: Engine, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Every result that counts is there; every blob that is named is there and sound; no half-written file is left."""
    recorded = {(r["session_id"], r["number"], r["epoch"]) for r in tables["results"]}
    for row in tables["steps"]:
        if row["result_epoch"] is not None:
            assert (row["session_id"], row["number"], row["result_epoch"]) in recorded, row["name"]
            assert row["result_epoch"] <= row["epoch"], row["name"]
    named = {r["blob"] for name in NAMING for r in tables[name] if r["blob"]}
    named |= {r["tag"].removeprefix(BLOB_TAG) for r in tables["cached_tags"] if r["tag"].startswith(BLOB_TAG)}
    assert named == {b["hash"] for b in tables["blobs"]}
    codec = engine.database.codec
    for one in named:
        data = engine.blobs.get(one)
        assert one == hashlib.sha256(data).hexdigest() or (codec is not None and one == codec.blob_name(data))
    assert not list(Path(engine.settings.data_dir, "blobs").rglob(".tmp-*"))


def _check_checkpoints(engine: Engine, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Every checkpoint can be read, and the newest says what the tables say."""
    newest: dict[str, int] = {}
    for row in tables["checkpoints"]:
        engine.database.read(lambda tx, r=row: checkpoints.state_at(tx, r["session_id"], r["number"]))
        newest[row["session_id"]] = max(newest.get(row["session_id"], 0), row["number"])
    for session_id, number in newest.items():
        kept, now = engine.database.read(
            lambda tx, s=session_id, n=number: (checkpoints.state_at(tx, s, n), _now(tx, s))
        )
        assert settled(kept) == settled(now), f"the newest checkpoint of {session_id} differs from its tables"
        _check_values(tables, session_id, kept, now)


def _check_values(
    tables: dict[str, list[dict[str, Any]]], session_id: str, kept: checkpoints.State, now: checkpoints.State
) -> None:
    """The newest checkpoint has the session's own keyed state, but for what is noted as changed since."""
    changed = {row["key"] for row in tables["state_changes"] if row["session_id"] == session_id}
    lasting = [
        {k: v for k, v in (state.values or {}).items() if k not in changed and v.expires_at is None}
        for state in (kept, now)
    ]
    assert lasting[0] == lasting[1], f"keyed state of {session_id} differs from its newest checkpoint"


def _now(tx: Any, session_id: str) -> checkpoints.State:
    hot = sessions.lock(tx, session_id) if tx.dialect_name == "sqlite" else None
    if hot is None:
        row = sessions.get(tx, session_id) or {}
        hot = sessions.Hot(**{name: row[name] for name in sessions.HOT})
    return checkpoints.read_state(tx, hot)


def settled(state: checkpoints.State) -> dict[str, Any]:
    """What a restored session shows of a state: steps that had not ended are all the same."""
    columns = {name: bulk.KEPT.index(name) for name in ("name", "status", "result_epoch", "member_of", "kind")}
    rows = {}
    for number, row in state.steps.items():
        shown = {name: row[place] for name, place in columns.items()}
        if shown["status"] in ("ready", "running", "blocked"):
            shown["status"] = "blocked"
        rows[number] = shown
    return {"steps": rows, "inputs": state.inputs, "edges": sorted(map(tuple, state.edges)), "agents": state.agents}
