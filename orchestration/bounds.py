"""What a step, or an agent for its steps, may be told about when and how often it is run."""

from __future__ import annotations

from typing import Any, Final

from ..storage import serial

_YEAR: Final = 365 * 86_400
#: Name -> smallest, largest, what is added to the error. Times are seconds; whole ones may be given for them.
_BOUNDS: Final[dict[str, tuple[float, int, str]]] = {
    "retries": (0, 1_000_000, ""),
    "backoff": (0, _YEAR, " seconds"),
    "timeout": (0.001, _YEAR, " seconds"),
    "priority": (0, 9, " (9 first)"),
}
_WHOLE: Final = ("retries", "priority")


def fault_in(said: Any) -> str | None:
    """What is wrong with `retries`, `backoff`, `timeout`, `priority` or `queue` of a step or an agent, or None."""
    for name, (least, most, unit) in _BOUNDS.items():
        value = getattr(said, name)
        kinds = int if name in _WHOLE else int | float
        fits = isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most
        if value is not None and not fits:
            kind = "whole number" if name in _WHOLE else "number"
            return f"{name} must be a {kind} of {least:g} to {most}{unit}, found {value!r:.60}"
    queue = said.queue
    if queue is not None and (not isinstance(queue, str) or not queue or not serial.is_storable(queue)):
        return f"queue must be a name, found {queue!r:.60}"
    return None
