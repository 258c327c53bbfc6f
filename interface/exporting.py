"""A session as JSON lines: all that it is, all that its steps gave, all that happened to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..orchestration.session import Session


def records(session: Session) -> Iterator[dict[str, Any]]:
    """The session's records in order; each has `record`: session, step, result, finding, conflict, partial,
    entry (of its history) or event.
    """
    from ..orchestration.views import moment

    plan = session.plan
    yield {"record": "session", **session.to_dict(details=False), "plan_document": plan.to_dict() if plan else None}
    rows = session.steps()
    for row in rows:
        yield {"record": "step", **row}
    for row in rows:
        if row["status"] == "done":
            yield {"record": "result", "step": row["name"], "data": session.output(row["name"])}
    for finding in session.findings():
        yield {"record": "finding", **finding}
    for conflict in session.conflicts():
        yield {"record": "conflict", **conflict}
    for agent, values in session.partials().items():
        for value in values:
            yield {"record": "partial", "agent": agent, "data": value}
    for entry in session.history.whole():
        yield {"record": "entry", **entry}
    for event in session.stream(follow=False):
        yield {"record": "event", **event.to_dict(), "at": moment(event.at)}


def write_lines(session: Session, stream: TextIO, history: bool = False) -> dict[str, int]:
    """Write the records, or with `history` the entries alone, to a stream as JSON in ASCII; gives how many there are of
    each kind.
    """
    counts: Counter[str] = Counter()
    if history:
        counts["entry"] = session.history.export_lines(stream)
    for record in () if history else records(session):
        stream.write(json.dumps(record) + "\n")
        counts[record["record"]] += 1
    stream.flush()
    return dict(counts)


def write_file(session: Session, file: Path, history: bool = False) -> dict[str, int]:
    """Write them to a file that is whole or not there; gives how many there are of each kind. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.absolute().parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            counts = write_lines(session, stream, history)
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
    return counts
