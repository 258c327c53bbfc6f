"""What an entry of a history is: a JSON object, checked when it is written.

Fields that mean something, all optional but for one of `role`, `user_request` and `response`:

role          who speaks: system, user, assistant, tool, or a name of one's own
content       what is said: text, or any JSON
tool_calls    what the speaker wants called: a list of objects
tool_call_id  for a role `tool`: which of those calls this is the result of
user_request, agent, response, escalations (a list), duration (seconds): a whole exchange in one entry
timestamp     ISO 8601, or seconds since 1970; without a time zone it is UTC; none: now, by the place's clock
metadata      an object; in it `ttl` (seconds), `important` (true or false) and `category` (text)

Other fields are kept as they are. `number` is given by the place, and always a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from ...storage import serial
from ...storage.histories.protocol import HistoryError, Item, Kept

#: Marks of entries.
IMPORTANT: Final = 1
PROMPT: Final = 2
#: The largest number of an entry.
_MOST: Final = 2**62
#: At least one of these makes an object an entry.
_ONE_OF: Final = ("role", "user_request", "response")
#: Times outside of these would not come back to the microsecond.
_EPOCH: Final = datetime(1970, 1, 1)
_EARLIEST, _LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


#: Field -> what is allowed, and whether a value is. None is allowed everywhere.
_FIELDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "role": ("text of 1 to 200 characters", _is_short_text),
    "tool_calls": ("a list of objects", lambda v: isinstance(v, list | tuple) and all(isinstance(c, dict) for c in v)),
    "tool_call_id": ("text of 1 to 200 characters", _is_short_text),
    "agent": ("text of 1 to 200 characters", _is_short_text),
    "escalations": ("a list", lambda v: isinstance(v, list | tuple)),
    "duration": ("seconds, at least 0", lambda v: _is_number(v) and v >= 0),
    "metadata": ("an object", lambda v: isinstance(v, dict)),
}
_OF_METADATA: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "ttl": ("seconds, over 0", lambda v: _is_number(v) and v > 0),
    "important": ("true or false", lambda v: isinstance(v, bool)),
    "category": ("text", lambda v: isinstance(v, str)),
}


def whole(what: str, value: Any, least: int = 0) -> int:
    """A count or number of entries, up to the largest that there can be. Raises HistoryError for what is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise HistoryError(f"{what} is {value!r:.100}; allowed: a whole number, at least {least}")
    return min(value, _MOST)


def body_of(entry: Mapping[str, Any]) -> tuple[dict[str, Any], float | None]:
    """An entry without its number and its time, and that time (seconds since 1970, None where it has none).

    Raises HistoryError naming the field that is not allowed.
    """
    if not isinstance(entry, Mapping):
        raise HistoryError(f"an entry is a JSON object; found {type(entry).__name__}")
    body = dict(entry)
    body.pop("number", None)
    at = body.pop("timestamp", None)
    if all(body.get(name) is None for name in _ONE_OF):
        raise HistoryError(f"an entry needs one of {', '.join(_ONE_OF)}; it has: {', '.join(map(str, body)) or 'none'}")
    _check(body, _FIELDS, "")
    if metadata := body.get("metadata"):
        _check(metadata, _OF_METADATA, "metadata.")
    return body, _seconds(at)


def _check(given: Mapping[str, Any], fields: Mapping[str, tuple[str, Callable[[Any], bool]]], within: str) -> None:
    for name, value in given.items():
        if value is None or name not in fields:
            continue
        allowed, passes = fields[name]
        if not passes(value):
            raise HistoryError(f"{within}{name} of an entry is {value!r:.100}; allowed: {allowed}")


def _seconds(given: Any) -> float | None:
    if given is None:
        return None
    try:
        moment = datetime.fromtimestamp(given, UTC) if _is_number(given) else datetime.fromisoformat(given)
    except (TypeError, ValueError, OverflowError, OSError):
        moment = None
    if moment is not None:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        if _EARLIEST <= moment < _LATEST:
            return moment.timestamp()
    raise HistoryError(
        f"timestamp of an entry is {given!r:.100}; allowed: ISO 8601 or seconds since 1970, in the years 1900 to 2199"
    )


def item_of(body: Mapping[str, Any], at: float | None, limit: int) -> Item:
    """An entry as a place takes it. Raises NotSerializable and TooLarge."""
    return Item(serial.encode(body, what="entry", limit=limit), mark_of(body), at)


def mark_of(body: Mapping[str, Any]) -> int:
    """By what windows find an entry: as a system prompt, as important, or not at all (0)."""
    if body.get("role") == "system":
        return PROMPT
    return IMPORTANT if (body.get("metadata") or {}).get("important") else 0


def shown(kept: Kept) -> dict[str, Any]:
    """A kept entry as users see it: number and timestamp (ISO 8601, UTC) before its other fields."""
    return {"number": kept.number, "timestamp": _iso(kept.at), **serial.decode(kept.body)}


def all_shown(kept: Sequence[tuple[int, float, Any]]) -> list[dict[str, Any]]:
    """Kept entries as users see them; all of their bodies are bytes, or all of them text. To decode them together takes
    two thirds of the time.
    """
    if not kept:
        return []
    bodies = [body for _, _, body in kept]
    together = f"[{','.join(bodies)}]" if isinstance(bodies[0], str) else b"[" + b",".join(bodies) + b"]"
    return [
        {"number": number, "timestamp": _iso(at), **body}
        for (number, at, _), body in zip(kept, serial.decode(together), strict=True)
    ]


@lru_cache(maxsize=20_000)
def _iso(at: float) -> str:
    """Windows read the same entries again and again, and half of what one costs is its time as text."""
    return (_EPOCH + timedelta(microseconds=round(at * 1e6))).isoformat(timespec="microseconds") + "+00:00"


def has_passed(entry: Mapping[str, Any], moment: datetime) -> bool:
    """Whether the time to live of an entry is over."""
    ttl = (entry.get("metadata") or {}).get("ttl")
    if ttl is None:
        return False
    return (moment - datetime.fromisoformat(entry["timestamp"])).total_seconds() > float(ttl)


def text_of(entry: Mapping[str, Any]) -> str:
    """What a model is shown of an entry: its words, and as JSON what is none."""
    parts = [entry.get(name) for name in ("content", "tool_calls", "user_request", "response")]
    return "\n".join(one if isinstance(one, str) else serial.loose(one) for one in parts if one not in (None, [], ()))
