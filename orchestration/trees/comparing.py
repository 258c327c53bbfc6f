"""What two sessions differ in: history, keyed state, results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import SessionError
from ...storage import trees as rows
from ..engine import Engine
from ..state.scopes import Scope
from ..state.state import State
from .branching import path
from .three_way import ABSENT, same

if TYPE_CHECKING:
    from ..session import Session


def compare(engine: Engine, state: State, a: Session, b: Session) -> dict[str, Any]:
    """See `Sessions.compare`."""
    for one in (a, b):
        if one.status == "archived":
            raise SessionError(f"session {one.id} is archived; restore it before it is compared")
    common, shared = _common(engine, a.id, b.id)
    return {
        "a": a.id,
        "b": b.id,
        "common": common,
        "history": {"shared": shared, "a": list(a.history.all(shared)), "b": list(b.history.all(shared))},
        "state": _differences(_values(state, a.id), _values(state, b.id), "key"),
        "results": _differences(_outputs(a), _outputs(b), "step"),
    }


def _common(engine: Engine, a: str, b: str) -> tuple[str | None, int]:
    """The nearest session that both are below (or are), and how many entries both share."""
    ways = path(engine, a), path(engine, b)
    both = [one for one, other in zip(*ways, strict=False) if one == other]
    if not both:
        return None, 0
    cuts = []
    for way in ways:
        below = way[len(both) :]
        found = engine.database.read(lambda tx, ids=below: [rows.get(tx, one) for one in ids])  # type: ignore[misc]
        cuts += [branch.entries for branch in found if branch is not None]
    whole = engine.trees.place(both[-1]).count(both[-1])
    return both[-1], min([whole, *cuts])


def _values(state: State, session_id: str) -> dict[str, Any]:
    scope = Scope.session(session_id)
    return state.get_many(scope, state.list_keys(scope))


def _outputs(session: Session) -> dict[str, Any]:
    return {one["name"]: session.output(one["name"]) for one in session.steps() if one["status"] == "done"}


def _differences(a: dict[str, Any], b: dict[str, Any], what: str) -> list[dict[str, Any]]:
    return [
        {what: key, "a": a.get(key), "b": b.get(key)}
        for key in sorted({*a, *b})
        if not same(a.get(key, ABSENT), b.get(key, ABSENT))
    ]
