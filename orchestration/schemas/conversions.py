"""The table of conversions: from a kind of JSON value to another, each bounded."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ...storage import serial
from .fields import EARLIEST, LATEST, moment_of

#: Text that is read as a number may have so many characters.
_LONGEST_NUMBER = 400
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _number(text: str) -> int | float:
    if len(text) > _LONGEST_NUMBER or "_" in text:
        raise ValueError("is no number")
    try:
        return int(text)
    except ValueError:
        found = float(text)
    if not math.isfinite(found):
        raise ValueError("is no finite number")
    return found


def _integer(number: float) -> int:
    if number != int(number):
        raise ValueError("is no whole number")
    return int(number)


def _boolean(text: str) -> bool:
    word = text.strip().lower() if len(text) < 20 else ""
    if word not in _WORDS:
        raise ValueError(f"is none of {', '.join(_WORDS)}")
    return _WORDS[word]


def _flag(number: float) -> bool:
    if number not in (0, 1):
        raise ValueError("is neither 0 nor 1")
    return bool(number)


def _moment(text: str) -> datetime:
    moment = moment_of(text)
    if moment is None:
        raise ValueError("is no moment in ISO 8601 with its offset from UTC")
    return moment


def _epoch(text: str) -> float:
    return _moment(text).timestamp()


def _iso(text: str) -> str:
    return _moment(text).astimezone(UTC).isoformat()


def _iso_of_epoch(number: float) -> str:
    if not EARLIEST <= number <= LATEST:
        raise ValueError("is no moment in the years 1 to 9999")
    return datetime.fromtimestamp(number, UTC).isoformat()


def _json(value: Any) -> str:
    return serial.encode(value).decode()


def _same(value: Any) -> Any:
    return value


def _listed(value: Any) -> list[Any]:
    return [value]


#: (kind of the value, what it becomes) -> function that raises ValueError where it cannot be.
CONVERSIONS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("number", "string"): str,
    ("boolean", "string"): lambda value: "true" if value else "false",
    ("object", "string"): _json,
    ("list", "string"): _json,
    ("string", "string"): _same,
    ("string", "number"): _number,
    ("boolean", "number"): int,
    ("number", "number"): _same,
    ("string", "integer"): lambda text: _integer(_number(text)),
    ("number", "integer"): _integer,
    ("boolean", "integer"): int,
    ("string", "boolean"): _boolean,
    ("number", "boolean"): _flag,
    ("boolean", "boolean"): _same,
    ("string", "timestamp"): _iso,
    ("number", "timestamp"): _iso_of_epoch,
    ("string", "epoch"): _epoch,
    ("number", "epoch"): _same,
    ("string", "json"): serial.decode,
    ("string", "list"): _listed,
    ("number", "list"): _listed,
    ("boolean", "list"): _listed,
    ("object", "list"): _listed,
    ("list", "list"): _same,
}
TARGETS = tuple(dict.fromkeys(target for _, target in CONVERSIONS))


def kind(value: Any) -> str:
    """The kind of a value in the table."""
    for type_, name in ((bool, "boolean"), (int | float, "number"), (str, "string"), (dict, "object"), (list, "list")):
        if isinstance(value, type_):
            return name
    return "null"
