"""What the live view knows of a session: a snapshot of it, then its events, one after the other."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .printing import clean

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..storage.events import Event

ENDED = ("completed", "failed", "cancelled", "archived")
STEP_ENDED = ("done", "failed", "dead", "skipped", "cancelled")
#: Events of a step, and the state that each leaves it in.
_LEADS_TO = {
    "step.started": "running",
    "step.done": "done",
    "step.failed": "failed",
    "step.dead": "dead",
    "step.skipped": "skipped",
    "step.cancelled": "cancelled",
    "step.retry": "ready",
    "step.returned": "ready",
    "step.paused": "ready",
    "step.waiting": "ready",
    "step.limited": "ready",
    "step.unserved": "ready",
    "step.reopened": "blocked",
}
#: Partial results that are kept to be shown.
PARTIALS_KEPT = 8


@dataclass
class Line:
    """One step of the plan as it is shown: itself, or all that a fan-out or a sub-plan became."""

    name: str
    many: bool = False
    #: State of each step that belongs to it, by name.
    states: dict[str, str] = field(default_factory=dict)
    #: How many members each group within it has, by the group's name.
    groups: dict[str, int] = field(default_factory=dict)
    #: How many of the steps that do the work (groups do none) are in each state.
    counts: Counter[str] = field(default_factory=Counter)
    error: str = ""

    def put(self, name: str, state: str) -> None:
        """Note the state of one of its steps."""
        former = self.states.get(name)
        self.states[name] = state
        if self._works(name):
            self.counts[state] += 1
            if former is not None:
                self.counts[former] -= 1

    def _works(self, name: str) -> bool:
        return name not in self.groups and not (self.many and name == self.name)

    def open(self, group: str, members: int) -> None:
        """Note that one of its steps, or it itself, has become so many steps."""
        if group in self.states and self._works(group):
            self.counts[self.states[group]] -= 1
        self.many = True
        self.groups[group] = members
        self.states.setdefault(group, "waiting")

    @property
    def total(self) -> int:
        """How many steps it has, as far as is known."""
        inner = sum(self.groups.values()) - sum(1 for name in self.groups if name != self.name)
        return max(self.counts.total(), inner)

    def count(self, *states: str) -> int:
        """How many of its steps are in one of these states."""
        return sum(self.counts[state] for state in states)

    @property
    def opened(self) -> bool:
        """Whether it is known how many steps it has."""
        return not self.many or bool(self.groups) or len(self.states) > 1 or self.name not in self.states

    @property
    def state(self) -> str:
        """The state of the whole: what most needs to be seen."""
        own = self.states.get(self.name)
        if not self.many:
            return own or "blocked"
        if own in ("skipped", "cancelled") or (own == "done" and self.name in self.groups):
            return own
        if self.count("failed", "dead"):
            return "failed"
        ended = self.count(*STEP_ENDED)
        if self.opened and self.total and ended >= self.total:
            return "done"
        return "running" if ended or self.count("running", "ready") else own or "blocked"


class Board:
    """A session as it is now. `apply` brings it one event further; events may come again, that changes nothing."""

    def __init__(self, session: Session) -> None:
        from datetime import datetime

        view = session.to_dict(details=False)
        self.id: str = view["id"]
        self.query: str = view["query"]
        self.plan: str = view["plan"]
        self.status: str = view["status"]
        self.error: str = view["error"] or ""
        self.created = datetime.fromisoformat(view["created_at"]).timestamp()
        self.ended_at = datetime.fromisoformat(view["completed_at"]).timestamp() if view["completed_at"] else None
        self.lines: dict[str, Line] = {}
        self.running: dict[str, tuple[float, str]] = {}
        self.partials: deque[str] = deque(maxlen=PARTIALS_KEPT)
        self.partial_count = 0
        self.conflicts: dict[Any, str] = {}
        self.notice = ""
        self.seen_from = time.time()
        self._done_at_first = 0.0
        plan = session.plan
        for one in plan.steps if plan else ():
            self.lines[one.name] = Line(one.name, many=bool(one.each or one.plan))
        for row in session.steps():
            self._set(row["name"], row["status"])
            if row["status"] == "running":
                self.running[row["name"]] = (row["progress"], row["task"] or "")
            if row["error"] and row["status"] in ("failed", "dead"):
                self.line_of(row["name"]).error = row["error"]
        self._done_at_first = self.progress
        for found in session.conflicts():
            self.conflicts[found["id"]] = found["severity"]

    # -- following ---------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one event in."""
        data = event.data if isinstance(event.data, dict) else {}
        if event.type.startswith("step.") and event.step:
            self._apply_step(event, data)
        elif event.type == "message.sent" and event.step:
            self._set(event.step, "ready", only_if_new=True)
        elif event.type == "conflict.raised":
            self.conflicts[data.get("conflict")] = str(data.get("severity"))
        elif event.type == "plan.extended":
            for name in data.get("steps", ()):
                self._set(name, "blocked", only_if_new=True)
        elif event.type.startswith("session."):
            self._apply_session(event, data)

    def _apply_session(self, event: Event, data: dict[str, Any]) -> None:
        status = event.type.removeprefix("session.")
        if status not in ("active", "paused", *ENDED):
            return
        self.status = status
        self.ended_at = event.at if status in ENDED else None
        self.error = data.get("error") or (self.error if status == "failed" else "")
        if status in ("cancelled", "completed", "failed"):
            self.running.clear()

    def _apply_step(self, event: Event, data: dict[str, Any]) -> None:
        name = event.step or ""
        if event.type == "step.expanded":
            self.line_of(name).open(name, int(data.get("steps", 0)))
        elif event.type == "step.progress" and name in self.running:
            self.running[name] = (float(data.get("progress") or 0.0), str(data.get("task") or ""))
        elif event.type == "step.partial":
            self.partials.append(told(event.data))
            self.partial_count += 1
        elif event.type in _LEADS_TO and not (event.type == "step.done" and self._is_old_group(name)):
            self._set(name, _LEADS_TO[event.type])
            if event.type == "step.started":
                self.running[name] = (0.0, "")
            else:
                self.running.pop(name, None)
            line = self.line_of(name)
            if not line.many or event.type in ("step.failed", "step.dead"):
                line.error = str(data.get("error") or "")

    def _is_old_group(self, name: str) -> bool:
        """Whether it is a group in a fan-out that opened before the snapshot, which shows only such groups' members."""
        line = self.line_of(name)
        return line.many and name != line.name and name not in line.states and line.name not in line.groups

    def _set(self, name: str, state: str, only_if_new: bool = False) -> None:
        line = self.line_of(name)
        if not (only_if_new and name in line.states):
            line.put(name, state)

    def line_of(self, name: str) -> Line:
        """The line that a step belongs to: its own, or that of the fan-out or sub-plan which it came from."""
        top = name.partition("/")[0]
        head, dash, tail = top.rpartition("-")
        if top in self.lines and (top == name or self.lines[top].many):
            return self.lines[top]
        if dash and tail.isdecimal() and head in self.lines and self.lines[head].many:
            return self.lines[head]
        return self.lines.setdefault(top, Line(top, many=top != name))

    # -- what is told ------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED

    @property
    def resting(self) -> bool:
        """Whether it is paused, or a conversation whose messages were all answered, and no step runs."""
        return not self.running and (self.status == "paused" or self.is_answered)

    @property
    def is_answered(self) -> bool:
        """Whether it is a conversation that waits for the next message."""
        is_open = self.status == "active" and not self.plan and bool(self.lines)
        return is_open and all(line.state in STEP_ENDED for line in self.lines.values())

    @property
    def progress(self) -> float:
        """How much of the work is done, 0..1: each line counts by its steps, a fan-out not yet opened as one."""
        if self.status == "completed":
            return 1.0
        total = sum(max(line.total, 1) for line in self.lines.values())
        done = sum(line.count(*STEP_ENDED) or (line.state in STEP_ENDED) for line in self.lines.values())
        partly = sum(part for part, _ in self.running.values())
        return min((done + partly) / total, 1.0) if total else 0.0

    def elapsed(self, now: float) -> float:
        """Seconds since it was started, until its end."""
        return max((self.ended_at or now) - self.created, 0.0)

    def left(self, now: float) -> float | None:
        """Seconds that it still takes if it goes on as it went since it is watched; None while that cannot be told."""
        if self.status != "active" or not all(line.opened for line in self.lines.values()):
            return None
        gained, watched = self.progress - self._done_at_first, now - self.seen_from
        if watched < 2.0 or gained < 0.05:
            return None
        return watched * (1.0 - self.progress) / gained


def told(value: Any) -> str:
    """A partial result in one line: what it says, and where it was found."""
    if not isinstance(value, dict):
        return clean(value, 200)
    if isinstance(value.get("text"), str):
        where = ":".join(str(value[key]) for key in ("path", "line") if value.get(key) not in (None, ""))
        return clean(f"{value['text']} ({_short_path(where)})" if where else value["text"], 300)
    return clean(" · ".join(_scalars(value.values())), 200)


def _scalars(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            yield "; ".join(value)
        elif isinstance(value, (str, int, float)) and value != "" and not isinstance(value, bool):
            yield str(value)


def _short_path(path: str) -> str:
    parts = path.split("/")
    return path if len(parts) <= 3 else "…/" + "/".join(parts[-2:])
