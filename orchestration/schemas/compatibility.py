"""Whether values that fit one version of a schema fit another one as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .fields import Anything, Fault, Field, List, Number, Object, String, Timestamp, below


def breaks(old: Field, new: Field, path: str = "") -> Iterator[Fault]:
    """Where a value that strictly fits `old` might not strictly fit `new`, and why. Nothing: every value fits."""
    if isinstance(new, Anything):
        return
    if old.type != new.type:
        yield path, f"is a {new.type}, was a {old.type}"
        return
    if old.nullable and not new.nullable:
        yield path, "may no longer be null"
    if isinstance(old, Object) and isinstance(new, Object):
        yield from _object_breaks(old, new, path)
    elif isinstance(old, List) and isinstance(new, List):
        yield from _narrower(old, new, path, "items")
        yield from breaks(old.items, new.items, f"{path}[]")
    elif isinstance(old, String) and isinstance(new, String):
        yield from _narrower(old, new, path, "characters")
        if new.pattern is not None and new.pattern != old.pattern:
            yield path, "has another pattern"
    elif isinstance(old, Number) and isinstance(new, Number):
        yield from _narrower(old, new, path, "")
        if new.integer and not old.integer:
            yield path, "must be a whole number"
    elif isinstance(old, Timestamp) and isinstance(new, Timestamp) and new.form not in ("any", old.form):
        yield path, f"is written as {new.form}, was {old.form}"


def _object_breaks(old: Object, new: Object, path: str) -> Iterator[Fault]:
    for name, field in new.fields.items():
        known = old.fields.get(name)
        where = below(path, name)
        if field.required and (known is None or not known.required):
            yield where, "is required, and was not"
        if known is not None:
            yield from breaks(known, field, where)
        elif old.extra and not field.required and not isinstance(field, Anything):
            yield where, f"is a {field.type}, and could be anything before (extra)"
    if not new.extra:
        for name in old.fields.keys() - new.fields.keys():
            yield below(path, name), "is no longer known"
        if old.extra:
            yield path, "takes no extra fields any more"


def _narrower(old: Any, new: Any, path: str, unit: str) -> Iterator[Fault]:
    """Bounds of `new` that cut off what `old` allows."""
    if new.min is not None and (old.min is None or new.min > old.min):
        yield path, f"needs at least {new.min} {unit}".rstrip()
    if new.max is not None and (old.max is None or new.max < old.max):
        yield path, f"allows at most {new.max} {unit}".rstrip()
