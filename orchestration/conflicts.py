"""Findings that disagree: what counts as a disagreement, how serious it is, and how it is settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..storage import findings as rows
from ..storage import serial
from .agents import Finding
from .turn import Turn

#: Settles a conflict: gets both findings (as `storage.findings` gives them), gives the one that holds, or None.
Strategy = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]


def subject(entity: str, attribute: str) -> str:
    """Entity and attribute folded, so that `Licence` of `Celery` and `licence` of `celery ` are the same subject."""
    return "\x1f".join(" ".join(text.casefold().split()) for text in (entity, attribute))


def folded(value: Any) -> str:
    """A value in the form in which two are compared: text without case and spacing, numbers by value."""
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))
    return serial.canonical(value).decode()


def severity(first: dict[str, Any], second: dict[str, Any]) -> str:
    """high: both are sure (at least 0.8); low: one is hardly sure (under 0.5); else medium."""
    least = min(first["confidence"], second["confidence"])
    return "high" if least >= 0.8 else "low" if least < 0.5 else "medium"


def _highest_confidence(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    if first["confidence"] == second["confidence"]:
        return None
    return first if first["confidence"] > second["confidence"] else second


def _newest(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    return first if first["id"] > second["id"] else second


def _most_sources(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    one, two = len(first["evidence"]), len(second["evidence"])
    return None if one == two else first if one > two else second


def _person(_first: dict[str, Any], _second: dict[str, Any]) -> dict[str, Any] | None:
    return None


#: Strategies by name. `person` leaves the conflict open until `session.resolve_conflict` is called.
STRATEGIES: dict[str, Strategy] = {
    "highest_confidence": _highest_confidence,
    "newest": _newest,
    "most_sources": _most_sources,
    "person": _person,
}


class Origin(Protocol):
    """The step and claim that findings come from."""

    @property
    def number(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def agent(self) -> str: ...

    @property
    def epoch(self) -> int: ...


def record(turn: Turn, c: Origin, found: list[Finding], strategy: str) -> None:
    """Write a step's findings and the conflicts that they raise with what is known; each conflict is an event.

    One conflict is raised for each pair of different values of a subject, not for each pair of findings.
    """
    if not found:
        return
    tx, session_id = turn.tx, turn.hot.id
    next_id = rows.last_id(tx, session_id)
    next_conflict = rows.last_conflict_id(tx, session_id)
    raised: list[dict[str, Any]] = []
    for one in found:
        next_id += 1
        about = subject(one.entity, one.attribute)
        known = rows.about(tx, session_id, about)
        rows.add(
            tx,
            [
                {
                    "session_id": session_id,
                    "id": next_id,
                    "number": c.number,
                    "epoch": c.epoch,
                    "agent": c.agent,
                    "entity": one.entity,
                    "attribute": one.attribute,
                    "subject": about,
                    "value": serial.encode(one.value, what="finding.value").decode(),
                    "confidence": one.confidence,
                    "evidence": serial.encode(one.evidence, what="finding.evidence").decode(),
                    "sole": int(one.exclusive),
                }
            ],
        )
        new = {
            "id": next_id,
            "agent": c.agent,
            "value": one.value,
            "confidence": one.confidence,
            "evidence": one.evidence,
        }
        for old in _one_for_each_other_value(known, new) if one.exclusive else ():
            next_conflict += 1
            raised.append(_conflict(turn, next_conflict, c.name, one, about, old, new, strategy))
    rows.add_conflicts(tx, raised)


def _one_for_each_other_value(known: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The first finding of each value that differs from the new one; none if the new value was already known."""
    firsts: dict[str, dict[str, Any]] = {}
    for old in known:
        firsts.setdefault(folded(old["value"]), old)
    if folded(new["value"]) in firsts:
        return []
    return list(firsts.values())


def _conflict(
    turn: Turn, id_: int, step: str, one: Finding, about: str, old: dict[str, Any], new: dict[str, Any], strategy: str
) -> dict[str, Any]:
    winner = STRATEGIES[strategy](old, new)
    how_bad = severity(old, new)
    turn.event(
        "conflict.raised",
        step=step,
        component="conflicts",
        data={
            "conflict": id_,
            "entity": one.entity,
            "attribute": one.attribute,
            "values": [old["value"], new["value"]],
            "agents": [old["agent"], new["agent"]],
            "severity": how_bad,
            "resolved": winner is not None,
        },
    )
    return {
        "session_id": turn.hot.id,
        "id": id_,
        "type": "value",
        "subject": about,
        "first": old["id"],
        "second": new["id"],
        "severity": how_bad,
        "strategy": strategy,
        "resolved": int(winner is not None),
        "resolution": None
        if winner is None
        else serial.encode({"finding": winner["id"], "value": winner["value"]}).decode(),
    }
