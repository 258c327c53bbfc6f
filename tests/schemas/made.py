"""Schemas, and values that fit them, as hypothesis makes them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from celeriac.orchestration.schemas import Anything, Boolean, Field, List, Number, Object, String, Timestamp

NAMES = st.sampled_from(["a", "b", "c", "d e", "x.y", "é"])
SCALARS = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def _strings(flags: Any) -> st.SearchStrategy[Field]:
    return st.tuples(st.integers(0, 2), st.none() | st.integers(2, 4), flags, flags).map(
        lambda t: String(min=t[0], max=t[1], required=t[2], nullable=t[3])
    )


def _numbers(flags: Any) -> st.SearchStrategy[Field]:
    bounds = st.none() | st.integers(-5, 0)
    return st.tuples(bounds, st.none() | st.integers(0, 5), flags, flags, flags).map(
        lambda t: Number(min=t[0], max=t[1], integer=t[2], required=t[3], nullable=t[4])
    )


_flags = st.booleans()
LEAVES = (
    _strings(_flags)
    | _numbers(_flags)
    | st.builds(Boolean, required=_flags, nullable=_flags)
    | st.builds(Timestamp, form=st.sampled_from(["any", "iso", "epoch"]), required=_flags)
    | st.builds(Anything, required=_flags)
)
FIELDS: st.SearchStrategy[Field] = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(
            Object, fields=st.dictionaries(NAMES, inner, max_size=3), extra=_flags, required=_flags, nullable=_flags
        )
        | st.builds(List, items=inner, max=st.none() | st.integers(1, 3), required=_flags, nullable=_flags)
    ),
    max_leaves=5,
)


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """Values that strictly fit a field."""
    made = _values_of(field)
    return st.none() | made if field.nullable else made


def _values_of(field: Field) -> st.SearchStrategy[Any]:
    match field:
        case String():
            return st.text(min_size=field.min, max_size=field.max if field.max is not None else field.min + 3)
        case Number():
            low, high = field.min if field.min is not None else -50, field.max if field.max is not None else 50
            whole = st.integers(int(low), int(high))
            return whole if field.integer else whole | st.floats(low, high)
        case Boolean():
            return st.booleans()
        case Timestamp():
            iso, epoch = st.sampled_from(["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"]), st.integers(0, 10**9)
            return {"any": iso | epoch, "iso": iso, "epoch": epoch}[field.form]
        case List():
            return st.lists(values_of(field.items), max_size=3 if field.max is None else field.max)
        case Object():
            return _objects_of(field)
    return JSON


def _objects_of(field: Object) -> st.SearchStrategy[Any]:
    needed = {name: values_of(one) for name, one in field.fields.items() if one.required}
    free = {name: values_of(one) for name, one in field.fields.items() if not one.required}
    known = st.fixed_dictionaries(needed, optional=free)
    if not field.extra:
        return known
    others = st.dictionaries(NAMES.filter(lambda name: name not in field.fields), JSON, max_size=2)
    return st.tuples(known, others).map(lambda pair: {**pair[1], **pair[0]})
