"""How rows are shown to users: times as ISO 8601 in UTC, steps and sessions as the JSON objects of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..storage import serial
from ..storage.archives import tables as archives
from ..storage.steps import FINAL
from .outputs import GROUPS


class Page(list[Any]):
    """A list with the `cursor` of the page after it (None at the end)."""

    def __init__(self, items: list[Any], cursor: str | None) -> None:
        super().__init__(items)
        self.cursor = cursor


def moment(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def step_views(session_id: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps as users see them. A group is shown until its members are there, or if it never had any."""
    groups = {row["member_of"] for row in rows}
    return [_step(session_id, row) for row in rows if row["kind"] not in GROUPS or row["number"] not in groups]


def _step(session_id: str, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{session_id}/{row['number']}",
        "name": row["name"],
        "agent": row["agent"],
        "status": row["status"],
        "attempts": row["attempts"],
        "progress": row["progress"],
        "task": row["task"],
        "error": row["error"],
        "started_at": moment(row["started_at"]),
        "finished_at": moment(row["finished_at"]),
        "cached": bool(row["cached"]),
        "queue": row["queue"],
        "priority": row["priority"],
    }


def progress_of(rows: list[dict[str, Any]]) -> float:
    """How much of the work is done, 0..1: ended steps count whole, running ones by their progress."""
    if not rows:
        return 0.0
    done = sum(
        1.0 if row["status"] in FINAL else row["progress"] if row["status"] == "running" else 0.0 for row in rows
    )
    return round(done / len(rows), 4)


def _phase_progress(rows: list[dict[str, Any]], phase: str) -> float:
    return progress_of([row for row in rows if row["phase"] == phase])


def session_view(
    row: dict[str, Any], rows: list[dict[str, Any]], tags: list[str], documents: dict[str, str]
) -> dict[str, Any]:
    """A session as users see it, without its result and its lists."""
    known = {name: serial.decode(text) for name, text in documents.items()}
    # The steps of an archived session are in its archive.
    is_done = row["status"] == "completed" or (row["status"], row["phase"]) == ("archived", "completed")
    progress = 1.0 if is_done else progress_of(rows)
    ended = row["completed_at"] is not None
    return {
        "id": row["id"],
        "key": row["key"],
        "query": row["query"],
        "user": row["user"],
        "status": row["status"],
        "phase": row["phase"],
        "progress": progress,
        "phase_progress": 1.0 if ended else _phase_progress(rows, row["phase"]),
        "result": None,
        "error": row["error"],
        "tags": tags,
        "title": row["title"],
        "type": row["type"],
        "agent": row["agent"],
        "priority": row["priority"],
        "pinned": bool(row["pinned"]),
        "archived": row["status"] == "archived",
        "plan": row["plan_name"],
        "fingerprint": row["fingerprint"],
        "correlation_id": row["correlation_id"],
        "preferences": known.get("preferences", {}),
        "metadata": known.get("metadata", {}),
        "permissions": known.get("permissions"),
        "notes": known.get("notes", ""),
        "file_paths": known.get("file_paths", []),
        "report": known.get("report"),
        "created_at": moment(row["created_at"]),
        "updated_at": moment(row["updated_at"]),
        "completed_at": moment(row["completed_at"]),
        "estimated_completion": None if ended else _estimate(row, progress),
    }


def _estimate(row: dict[str, Any], progress: float) -> str | None:
    """When it will be done if it goes on as it went; None while there is nothing to go by."""
    if row["status"] != "active" or progress < 0.02:
        return None
    elapsed = row["updated_at"] - row["created_at"]
    return moment(row["created_at"] + elapsed / progress)


def archive_view(row: archives.Row | None) -> dict[str, Any] | None:
    """Where the archive of a session is; None for one that is in none."""
    if row is None:
        return None
    return {
        "file": row.file,
        "bytes": row.bytes,
        "digest": row.digest,
        "sealed": row.sealed,
        "status": row.status,
        "archived_at": moment(row.archived_at),
    }


def saved_view(runs: int, seconds: float, cost: float) -> dict[str, Any]:
    """What a session was spared by the cache of results."""
    return {"runs": runs, "seconds": round(seconds, 3), "cost": round(cost, 6)}


def agent_views(rows: list[dict[str, Any]], kept: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Live state by agent, from its steps: the running one if there is one, else the last that ran."""
    views: dict[str, Any] = {}
    for row in rows:
        if not row["agent"] or row["kind"] in GROUPS:
            continue
        view = views.setdefault(
            row["agent"],
            {
                "status": "idle",
                "progress": 0.0,
                "task": None,
                "error": None,
                "updated_at": None,
                "steps": 0,
                "done": 0,
                "runs": 0,
                "failures": 0,
            },
        )
        view["steps"] += 1
        view["done"] += row["status"] == "done"
        view["runs"] += row["attempts"]
        view["failures"] += row["failures"]
        view["updated_at"] = max(
            filter(None, (view["updated_at"], moment(row["finished_at"] or row["started_at"]))), default=None
        )
        view["error"] = row["error"] or view["error"]
        if row["status"] == "running":
            view.update(status="running", task=row["task"] or row["name"])
        elif view["status"] != "running" and row["status"] in FINAL:
            view["status"] = row["status"]
    for agent, view in views.items():
        view["progress"] = progress_of([row for row in rows if row["agent"] == agent and row["kind"] not in GROUPS])
        memory = kept.get(agent, {})
        times = {name: moment(memory[name]) for name in ("created_at", "updated_at") if name in memory}
        view["memory"] = memory | times
        view["state"] = memory.get("execution", {})
    return views


def conflict_view(row: dict[str, Any], by_id: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """A conflict as users see it, with both findings."""
    first, second = by_id[row["first"]], by_id[row["second"]]
    return {
        "id": row["id"],
        "type": row["type"],
        "entity": second["entity"],
        "attribute": second["attribute"],
        "agents": [first["agent"], second["agent"]],
        "findings": [{k: f[k] for k in ("id", "value", "confidence", "evidence")} for f in (first, second)],
        "severity": row["severity"],
        "strategy": row["strategy"],
        "resolved": row["resolved"],
        "resolution": row["resolution"],
        "created_at": moment(row["created_at"]),
    }


def differences(a: Any, b: Any, path: str = "") -> list[dict[str, Any]]:
    """Where two JSON values differ: [{path, a, b}] with None for what is not there."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            d
            for key in sorted({*a, *b})
            for d in differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if a == b else [{"path": path, "a": a, "b": b}]
