"""Rows of findings and of the conflicts between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import and_, bindparam, func, insert, select, update

from . import serial
from .database import Query, Transaction, now
from .keys.codec import MARK, Codec
from .tables import conflicts, findings, steps

#: What a sealed finding has in its `value`, in order.
_SAID: Final = ("entity", "attribute", "value", "evidence")
_VALUE: Final = "findings.value"
_RESOLUTION: Final = "conflicts.resolution"

_f = findings.c
_c = conflicts.c
_NEXT = {
    t: Query(select(func.coalesce(func.max(t.c.id), 0)).where(t.c.session_id == bindparam("session")))
    for t in (findings, conflicts)
}
_ADD = Query(
    insert(findings).values(
        {
            c: bindparam(c)
            for c in (
                "session_id",
                "id",
                "number",
                "epoch",
                "agent",
                "entity",
                "attribute",
                "subject",
                "value",
                "confidence",
                "evidence",
                "sole",
            )
        }
        | {"created_at": now()}
    )
)
_FIELDS = (_f.id, _f.number, _f.agent, _f.entity, _f.attribute, _f.value, _f.confidence, _f.evidence, _f.created_at)
# Only what a step said in the run that counts: a restored or retried step's old findings stay in the table, unseen.
_COUNTS = and_(steps.c.session_id == _f.session_id, steps.c.number == _f.number, steps.c.result_epoch == _f.epoch)
_ABOUT = Query(
    select(*_FIELDS)
    .select_from(findings.join(steps, _COUNTS))
    .where(_f.session_id == bindparam("session"), _f.subject.in_([bindparam("about"), bindparam("hashed")]))
)
_ALL = Query(
    select(*_FIELDS)
    .select_from(findings.join(steps, _COUNTS))
    .where(_f.session_id == bindparam("session"))
    .order_by(_f.id)
)
_OF_RESULT = Query(
    select(*_FIELDS, _f.sole)
    .where(_f.session_id == bindparam("session"), _f.number == bindparam("step"), _f.epoch == bindparam("at"))
    .order_by(_f.id)
)
_ADD_CONFLICT = Query(
    insert(conflicts).values(
        {
            c: bindparam(c)
            for c in (
                "session_id",
                "id",
                "type",
                "subject",
                "first",
                "second",
                "severity",
                "strategy",
                "resolved",
                "resolution",
            )
        }
        | {"created_at": now()}
    )
)
_CONFLICTS = Query(
    select(_c.id, _c.type, _c.first, _c.second, _c.severity, _c.strategy, _c.resolved, _c.resolution, _c.created_at)
    .where(_c.session_id == bindparam("session"))
    .order_by(_c.id)
)
_RESOLVE = Query(
    update(conflicts)
    .where(_c.session_id == bindparam("session"), _c.id == bindparam("wanted"))
    .values(resolved=1, strategy=bindparam("by"), resolution=bindparam("text"))
)


def _finding(tx: Transaction, session_id: str, row: Any) -> dict[str, Any]:
    id_, number, agent, entity, attribute, value, confidence, evidence, at = row
    if value.startswith(MARK):
        entity, attribute, value, evidence = serial.decode(tx.open(value, _VALUE, session_id, id_))
    return {
        "id": id_,
        "step": number,
        "agent": agent,
        "entity": entity,
        "attribute": attribute,
        "value": serial.decode(value),
        "confidence": confidence,
        "evidence": serial.decode(evidence),
        "created_at": at,
    }


def last_id(tx: Transaction, session_id: str) -> int:
    """The highest id of a session's findings, 0 if there are none."""
    return int(tx.value(_NEXT[findings], session=session_id))


def last_conflict_id(tx: Transaction, session_id: str) -> int:
    """The highest id of a session's conflicts, 0 if there are none."""
    return int(tx.value(_NEXT[conflicts], session=session_id))


def add(tx: Transaction, rows: list[dict[str, Any]]) -> None:
    """Insert findings; `value` and `evidence` are JSON text."""
    tx.many(_ADD, [sealed(tx.codec, row) for row in rows] if tx.seals and tx.codec is not None else rows)


def sealed(codec: Codec, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a finding as it is sealed: all that it says in one text, its subject as a keyed hash."""
    said = serial.encode([row[name] for name in _SAID]).decode()
    value = codec.seal(said, _VALUE, row["session_id"], row["id"])
    return {**row, **dict.fromkeys(_SAID, ""), "value": value, "subject": codec.digest(row["subject"])}


def about(tx: Transaction, session_id: str, subject: str) -> list[dict[str, Any]]:
    """Findings on one subject (entity and attribute, folded)."""
    hashed = subject if tx.codec is None or not tx.codec.hashes else tx.codec.digest(subject)
    found = tx.rows(_ABOUT, session=session_id, about=subject, hashed=hashed)  # some may be sealed, some from before
    return [_finding(tx, session_id, row) for row in found]


def all_of(tx: Transaction, session_id: str) -> list[dict[str, Any]]:
    """All findings of a session in the order in which they came."""
    return [_finding(tx, session_id, row) for row in tx.rows(_ALL, session=session_id)]


def of_result(tx: Transaction, session_id: str, number: int, epoch: int) -> list[dict[str, Any]]:
    """The findings that came with one result, in order; also whether they are `exclusive`."""
    rows = tx.rows(_OF_RESULT, session=session_id, step=number, at=epoch)
    return [{**_finding(tx, session_id, row[:-1]), "exclusive": bool(row[-1])} for row in rows]


def add_conflicts(tx: Transaction, rows: list[dict[str, Any]]) -> None:
    """Insert conflicts between findings."""
    if tx.seals and tx.codec is not None:
        rows = [
            {
                **row,
                "subject": tx.codec.digest(row["subject"]),
                "resolution": tx.seal(row["resolution"], _RESOLUTION, row["session_id"], row["id"]),
            }
            for row in rows
        ]
    tx.many(_ADD_CONFLICT, rows)


def conflicts_of(tx: Transaction, session_id: str) -> list[dict[str, Any]]:
    """All conflicts of a session, with the ids of the two findings."""
    keys = ("id", "type", "first", "second", "severity", "strategy", "resolved", "resolution", "created_at")
    found = [dict(zip(keys, row, strict=True)) for row in tx.rows(_CONFLICTS, session=session_id)]
    for conflict in found:
        conflict["resolved"] = bool(conflict["resolved"])
        text = tx.open(conflict["resolution"], _RESOLUTION, session_id, conflict["id"])
        conflict["resolution"] = serial.decode(text) if text else None
    return found


def resolve(tx: Transaction, session_id: str, conflict: int, strategy: str, resolution: str) -> bool:
    """Mark a conflict as resolved with a resolution (JSON text); False if there is none with that id."""
    text = tx.seal(resolution, _RESOLUTION, session_id, conflict)
    return tx.run(_RESOLVE, session=session_id, wanted=conflict, by=strategy, text=text) == 1
