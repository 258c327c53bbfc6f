"""Changing what describes a session: its title, tags, notes, preferences and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SessionError
from ..storage import listing, serial, sessions
from ..storage.keys.codec import MARK
from .control import TYPES
from .engine import Engine
from .guard.doors import place_of
from .sizes import check_count, check_text, document_text
from .turn import Turn

#: Columns that can be changed, and whether a value may be put there.
_COLUMNS = {
    "title": lambda v: isinstance(v, str) and len(v) <= 1000 and serial.is_storable(v) and not v.startswith(MARK),
    "type": lambda v: v in TYPES,
    "agent": lambda v: isinstance(v, str) and len(v) <= 500 and serial.is_storable(v),
    "priority": lambda v: isinstance(v, int) and 0 <= v <= 9,
    "pinned": lambda v: v in (False, True),
}


def change(
    engine: Engine,
    session_id: str,
    columns: Mapping[str, Any],
    tags: Sequence[str] | None,
    documents: Mapping[str, Any],
) -> None:
    """Write columns, tags and documents of a session; a None leaves what is there. Raises SessionError."""
    given = {name: v for name, v in documents.items() if v is not None}
    for name, value in (("notes", documents.get("notes") or ""), *(("tag", tag) for tag in tags or ())):
        check_text(name, value, 1_000_000 if name == "notes" else 200)
    place = place_of(session_id)
    columns = {name: engine.guard.apply(v, place) for name, v in columns.items()}
    tags = None if tags is None else [engine.guard.apply(tag, place) for tag in tags]
    documents = engine.guard.apply(given, place)
    texts = {name: document_text(engine.settings, name, v) for name, v in documents.items()}
    for name, value in columns.items():
        if name not in _COLUMNS:
            allowed = ", ".join((*_COLUMNS, "tags", "notes", "preferences", "metadata", "file_paths"))
            raise SessionError(f"a session's {name} cannot be changed; allowed: {allowed}")
        if not _COLUMNS[name](value):
            raise SessionError(f"a session's {name} cannot be {value!r}")
    check_count(tags or ())

    def work(turn: Turn) -> None:
        tx = turn.tx
        if turn.hot.status == "archived":
            raise SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")
        if columns:
            sessions.change(tx, session_id, {k: int(v) if isinstance(v, bool) else v for k, v in columns.items()})
        if tags is not None:
            sessions.set_tags(tx, session_id, tags)
        for name, text in texts.items():
            sessions.put_document(tx, session_id, name, text)
        if "title" in columns or "notes" in texts:
            row = sessions.get(tx, session_id) or {}
            notes = sessions.document(tx, session_id, "notes")
            said = serial.decode(notes) if notes else ""
            words = (row["query"], row["title"], said if isinstance(said, str) else "")  # sealed, it cannot be found
            listing.index(tx, session_id, "\n".join(words))
        changed = sorted([*columns, *texts, *(["tags"] if tags is not None else [])])
        turn.event("session.changed", component="sessions", data={"changed": changed})

    engine.in_turn(session_id, work)
