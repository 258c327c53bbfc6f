"""What is too large, and what is no text: said before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..config import Settings
from ..errors import PlanError, SessionError, SessionNotFound, TooLarge
from ..storage import serial
from ..storage.keys.codec import MARK
from .plans import Plan, Step

MOST_TAGS = 100


def check_text(name: str, value: Any, most: int) -> None:
    """Raise SessionError unless `value` is text that any database takes, of at most that many characters."""
    if not isinstance(value, str):
        raise SessionError(f"{name} must be text, found {type(value).__name__}")
    if len(value) > most:
        raise SessionError(f"{name} has {len(value)} characters; at most {most} are allowed")
    if not serial.is_storable(value):
        raise SessionError(f"{name} holds a NUL character or half a surrogate pair, which is not text")
    if value.startswith(MARK):
        raise SessionError(f"{name} begins with {MARK}, as only what is sealed does")


def check_id(session_id: Any) -> None:
    """Raise SessionNotFound for what no session can be called."""
    if not isinstance(session_id, str) or not serial.is_storable(session_id):
        raise SessionNotFound(f"no session {session_id!r:.100}; an id is text")


def words(name: str, value: Any, kinds: tuple[type, ...] = (str,)) -> list[str]:
    """A list of texts. Raises SessionError for what is none; a single text is no list of its letters."""
    found = None if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) else list(value)
    if found is None or not all(isinstance(one, kinds) for one in found):
        raise SessionError(f"{name} must be a list of texts, found {value!r:.200}")
    return [str(one) for one in found]


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """An object; an empty one for None. Raises SessionError for what is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SessionError(f"{name} must be an object, found {value!r:.200}")
    return value


def check_plan(plan: Any) -> None:
    """Raise PlanError for what is no plan."""
    if not isinstance(plan, Plan):
        raise PlanError(f"a plan must be a Plan, found {type(plan).__name__}; Plan.from_file and from_dict make one")


def check_count(tags: Sequence[str]) -> None:
    """Raise SessionError for more tags than a session may have."""
    if len(tags) > MOST_TAGS:
        raise SessionError(f"{len(tags)} tags are too many; at most {MOST_TAGS} are allowed")


def check_requests(steps: Iterable[Step], limit: int) -> None:
    """Raise PlanError naming a step, also of a sub-plan, whose request is too large."""
    front = list(steps)
    while front:
        one = front.pop()
        front += one.plan
        try:
            serial.encode(one.request, what=f"request of step {one.name!r}", limit=limit)
        except TooLarge as fault:
            raise PlanError(str(fault)) from None


def document_text(settings: Settings, what: str, value: Any) -> str:
    """A document of a session as JSON text. Raises NotSerializable and TooLarge."""
    return serial.encode(value, what=what, limit=settings.max_document_bytes).decode()
