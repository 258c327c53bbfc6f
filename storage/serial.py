"""The one JSON module: strict encoding, decoding, and the canonical form and digest that keys and hashes rest on.

What is stored must read back equal, so only JSON's own types pass: None, bool, int (of any size up to Python's
own limit of digits), finite float, str, list, tuple (reads back as a list) and dict with text keys.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from ..errors import NotSerializable, StorageError, TooLarge

#: Containers inside containers; far below the depth at which a reader could run out of stack.
MAX_DEPTH: Final = 200
_PATH_SHOWN: Final = 160
_LEAVES: Final = frozenset((str, int, float, bool, type(None)))

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode

_ADVICE: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    ((date, time), "convert it to text (isoformat())"),
    (timedelta, "convert it to seconds (total_seconds())"),
    ((UUID, PurePath, BaseException), "convert it to text (str())"),
    (Decimal, "convert it to text (str()) or to a float (float())"),
    ((bytes, bytearray, memoryview), "decode it to text, or store it as a blob"),
    ((set, frozenset), "convert it to a list (sorted())"),
    (Enum, "use its value (.value)"),
    (msgspec.Struct, "convert it with msgspec.to_builtins()"),
    (str, "convert it to plain text (str())"),
    (int, "convert it to a plain int (int())"),
    (float, "convert it to a plain float (float())"),
    (Iterator, "collect it into a list (list())"),
)


def encode(value: object, what: str = "value", limit: int | None = None) -> bytes:
    """The value as compact JSON in UTF-8.

    `what` is the value's name in messages; `limit` is the largest size allowed, in bytes of JSON.
    Raises NotSerializable, naming the path to the first thing that is not JSON, and TooLarge.
    """
    return _checked(_encode, value, what, limit)


def ready(value: object, limit: int) -> bytes | None:
    """As `encode` with that limit, for what is written most often; None where `encode` has to look closer."""
    try:
        data = _encode(value)
        size = len(data)
        if size <= limit and _decode(data) == value and (size <= 2 * MAX_DEPTH or not _too_deep(data, value)):
            return data
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        pass
    return None


def canonical(value: object, what: str = "value") -> bytes:
    """As `encode`, with the keys of every object sorted: equal values of equal types give equal bytes."""
    return _checked(_encode_sorted, value, what, None)


def loose(value: object) -> str:
    """The value as JSON text, unchecked: to look for something in it, not to store it. Raises what msgspec raises."""
    return _encode(value).decode()


def decode(data: bytes | str | memoryview) -> Any:
    """The value that JSON text stands for. Raises StorageError when the text is not JSON."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, BufferError) as error:
        raise StorageError(f"stored JSON ({len(data):,} long) cannot be read: {error}") from error


def storable(text: str) -> str:
    """The text as any database takes it: half a surrogate pair becomes `?`, NUL becomes U+FFFD."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def is_storable(text: str) -> bool:
    """Whether every database takes the text as it is."""
    return "\0" not in text and _text_fault(text) is None


def digest(data: bytes) -> str:
    """SHA-256 of the bytes, as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _checked(encoder: Callable[[object], bytes], value: object, what: str, limit: int | None) -> bytes:
    try:
        data = encoder(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise NotSerializable(_first_fault(value, what) or f"{what}: {error}") from error
    if limit is not None and len(data) > limit:
        raise TooLarge(f"{what} is {len(data):,} bytes of JSON; the limit is {limit:,} bytes")
    # msgspec writes NaN as null and also writes bytes, sets, dates and number keys. Reading back and comparing
    # finds every one of them in C, several times faster than a walk in Python.
    if not _reads_back(data, value) and (fault := _first_fault(value, what)):
        raise NotSerializable(fault)
    if _too_deep(data, value):
        raise NotSerializable(_first_fault(value, what) or f"{what}: nested deeper than {MAX_DEPTH}")
    return data


def _reads_back(data: bytes, value: object) -> bool:
    try:
        return bool(_decode(data) == value)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return False


def _too_deep(data: bytes, value: object) -> bool:
    if len(data) <= 2 * MAX_DEPTH:  # each level takes two brackets
        return False
    # No more brackets than levels allowed, in text or not, is no depth to look for; splitting stops counting early.
    brackets = len(data.split(b"[", MAX_DEPTH + 1)) + len(data.split(b"{", MAX_DEPTH + 1)) - 2
    if brackets <= MAX_DEPTH or type(value) in _LEAVES:
        return False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for inside in level
            for item in (inside.values() if isinstance(inside, dict) else inside)
            if type(item) not in _LEAVES and isinstance(item, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def _first_fault(value: object, what: str) -> str | None:
    """Where the first thing that is not JSON is, what it is and what to do: or None."""
    path: list[object] = []
    try:
        fault = _fault(value, path, [])
    except RecursionError:
        fault = "nested too deep for the stack that is left"
    return f"{_shown(what, path)}: {fault}" if fault else None


def _fault(value: object, path: list[object], parents: list[int]) -> str | None:
    """What is wrong with the value or with something in it; `path` is left pointing at it."""
    if isinstance(value, dict):
        return _key_fault(value) or _inner_fault(value, list(value.items()), path, parents)
    if isinstance(value, list) or type(value) is tuple:
        return _inner_fault(value, list(enumerate(value)), path, parents)
    return _leaf_fault(value)


def _inner_fault(value: object, items: list[tuple[Any, Any]], path: list[object], parents: list[int]) -> str | None:
    if id(value) in parents:
        return f"this {type(value).__name__} contains itself"
    if len(parents) >= MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    parents.append(id(value))
    for key, item in items:
        path.append(key)
        if fault := _fault(item, path, parents):
            return fault
        path.pop()
    parents.pop()
    return None


def _key_fault(value: dict[Any, Any]) -> str | None:
    for key in value:
        if not isinstance(key, str):
            return f"key {ascii(key)[:40]} is {type(key).__name__}; JSON keys are text"
        if fault := _text_fault(key):
            return f"key {ascii(key)[:40]}: {fault}"
    return None


def _text_fault(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start} is not text; clean it (errors='replace')"
    return None


def _leaf_fault(value: object) -> str | None:
    if value is None or type(value) is bool:
        return None
    if type(value) is str:
        return _text_fault(value)
    if type(value) is float:
        return None if math.isfinite(value) else f"{value} is not a JSON number; use None or text"
    if type(value) is int:
        try:
            str(value)
        except ValueError:
            return f"an integer of {value.bit_length():,} bits is too long; convert it to text (hex())"
        return None
    if isinstance(value, Enum) and isinstance(value, (str, int, float)):
        return _leaf_fault(value.value)
    return f"{type(value).__name__} is not JSON; {_advice(value)}"


def _advice(value: object) -> str:
    if hasattr(value, "model_dump"):
        return "convert it with model_dump(mode='json')"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "convert it with dataclasses.asdict()"
    if hasattr(value, "_asdict"):
        return "convert it with _asdict()"
    if hasattr(value, "tolist"):
        return "convert it with tolist()"
    if inspect.isawaitable(value):
        return "it was not awaited"
    for kind, advice in _ADVICE:
        if isinstance(value, kind):
            return advice
    return "convert it to None, bool, int, float, str, list or dict"


def _shown(what: str, path: list[object]) -> str:
    parts = [what]
    for key in path:
        if isinstance(key, str) and key.isidentifier():
            parts.append(f".{key}")
        else:
            parts.append(f"[{ascii(key)}]")
    text = "".join(parts)
    return text if len(text) <= _PATH_SHOWN else f"{text[: _PATH_SHOWN // 2]} ... {text[-_PATH_SHOWN // 2 :]}"
