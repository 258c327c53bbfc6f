"""What schemas allow, what they refuse, and which versions may follow which."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.errors import SchemaError
from celeriac.orchestration.schemas import (
    Boolean,
    Field,
    List,
    Number,
    Object,
    Schema,
    Schemas,
    String,
    Timestamp,
    Version,
)
from celeriac.orchestration.schemas.compatibility import breaks
from celeriac.orchestration.schemas.fields import field_of

from .made import FIELDS, JSON, values_of

PERSON = Schema(
    "person",
    "1.0.0",
    {
        "name": String(min=1, max=20),
        "code": String(pattern="[A-Z]{2}[0-9]+", required=False),
        "age": Number(min=0, max=150, integer=True, required=False, nullable=True),
        "active": Boolean(required=False),
        "born": Timestamp(required=False),
        "tags": List(items=String(max=5), max=2, required=False),
        "home": Object(fields={"city": String(), "zip": String(required=False)}, required=False),
    },
)


@pytest.mark.parametrize(
    "value",
    [
        {"name": "Ana"},
        {"name": "Ana", "age": None, "code": "AB12", "active": True, "tags": [], "home": {"city": "X"}},
        {"name": "Ana", "age": 40.0, "born": "2026-01-31T12:00:00Z"},
        {"name": "Ana", "born": 1.5e9},
    ],
)
def test_what_fits_passes_both_levels(value: Any) -> None:
    PERSON.check(value, "strict")
    PERSON.check(value, "basic")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "the value must be an object, found a list of 0 items"),
        ({}, "name is missing"),
        ({"name": None}, "name must be a string, found null"),
        ({"name": "Ana", "age": True}, "age must be a whole number, found a boolean"),
        ({"name": "Ana", "age": 1.5}, "age must be a whole number, found a number"),
        ({"name": "Ana", "home": {}}, "home.city is missing"),
        ({"name": "Ana", "tags": ["a", 2]}, r"tags\[1\] must be a string"),
        ({"name": "Ana", "active": 1}, "active must be a boolean"),
    ],
)
def test_a_wrong_type_is_refused_at_both_levels_by_its_path(value: Any, told: str) -> None:
    for level in ("basic", "strict"):
        with pytest.raises(SchemaError, match=told):
            PERSON.check(value, level)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"name": ""}, "name must have 1 to 20 characters, found 0"),
        ({"name": "Ana", "code": "xAB1"}, "code must match the pattern"),
        ({"name": "Ana", "code": "AB1\n"}, "code must match the pattern"),
        ({"name": "Ana", "age": 151}, "age must be 0 to 150"),
        ({"name": "Ana", "born": "2026-01-31T12:00:00"}, "born must be a moment in ISO 8601 with its offset"),
        ({"name": "Ana", "born": 1e20}, "born must be seconds since 1970"),
        ({"name": "Ana", "tags": ["a", "b", "c"]}, "tags must have 0 to 2 items, found 3"),
        ({"name": "Ana", "home": {"city": "X", "lane": 1}}, "home.lane is not known; known: city, zip"),
    ],
)
def test_bounds_and_unknown_fields_are_refused_by_the_strict_level_only(value: Any, told: str) -> None:
    PERSON.check(value, "basic")
    with pytest.raises(SchemaError, match=told):
        PERSON.check(value, "strict")


def test_no_message_holds_a_value() -> None:
    with pytest.raises(SchemaError) as caught:
        PERSON.check({"name": "s3cret" * 10, "code": "s3cret", "age": "s3cret", "born": "s3cret", "tags": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_an_evil_pattern_on_an_evil_text_takes_no_time() -> None:
    schema = Schema("evil", "1.0.0", value=String(pattern="(a+)+b|(a|aa)+c|.*.*.*.*d"))
    began = time.monotonic()
    with pytest.raises(SchemaError, match="must match the pattern"):
        schema.check("a" * 50_000)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"type": "text"}, "type 'text' is not allowed; allowed: string, number"),
        ({"type": "string", "length": 3}, "a string has no option 'length'; allowed: required"),
        ({"type": "string", "max": -1}, "max of a string must be a whole number of at least 0"),
        ({"type": "number", "min": 3, "max": 2}, "allows nothing"),
        ({"type": "string", "pattern": "(?=x)"}, "look-around"),
        ({"type": "string", "pattern": "((a{1000}){1000}){1000}"}, "cannot be used"),
        ({"type": "string", "required": "yes"}, "required must be true or false"),
        ({"type": "timestamp", "form": "unix"}, "form 'unix' of a timestamp"),
        ({"type": "object", "fields": {"": "string"}}, "name must be text"),
        ({"type": "list", "items": "words"}, "type 'words'"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(declared: Any, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        Schema("one", "1.0.0", {"it": declared})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_field_reads_back_from_what_it_says(data: st.DataObject) -> None:
    field: Field = data.draw(FIELDS)
    assert field_of(field.to_dict(), "it") == field


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_where_nothing_breaks_every_value_of_the_old_version_fits_the_new(data: st.DataObject) -> None:
    old: Field = data.draw(FIELDS)
    new: Field = data.draw(st.just(old) | FIELDS)
    value = data.draw(values_of(old))
    assert not list(old.faults(value, True)), "the test makes values that fit"
    if not list(breaks(old, new)):
        assert not list(new.faults(value, True))


@settings(max_examples=100, deadline=None)
@given(FIELDS, JSON)
def test_what_passes_strictly_passes_basically(field: Field, value: Any) -> None:
    if not list(field.faults(value, True)):
        assert not list(field.faults(value, False))


# -- versions ----------------------------------------------------------------------------------------------------------


def test_versions_are_ordered_as_semver_says() -> None:
    ordered = (
        "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.2.0 1.10.0 2.0.0"
    )
    assert sorted(map(Version.parse, reversed(ordered.split()))) == [Version.parse(v) for v in ordered.split()]


@pytest.mark.parametrize(
    "text", ["1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0+b", "1.0.0-", "", None, 1.0, "١.0.0"]
)
def test_what_is_no_version_is_refused(text: Any) -> None:
    with pytest.raises(SchemaError, match="is no version; allowed: MAJOR.MINOR.PATCH"):
        Version.parse(text)


def registry(*versions: Schema) -> Schemas:
    made = Schemas()
    for one in versions:
        made.add(one)
    return made


ONE = Schema("p", "1.0.0", {"name": String(max=10), "age": Number()})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": String(max=10), "age": Number(), "mail": String()}, "mail is required, and was not"),
        ({"name": String(max=10)}, "age is no longer known"),
        ({"name": String(max=9), "age": Number()}, "name allows at most 9 characters"),
        ({"name": String(max=10), "age": String()}, "age is a string, was a number"),
        ({"name": String(max=10), "age": Number(integer=True)}, "age must be a whole number"),
        ({"name": String(max=10, pattern="a*"), "age": Number()}, "name has another pattern"),
    ],
)
def test_a_change_that_breaks_old_values_is_refused_where_backward_is_declared(fields: Any, told: str) -> None:
    for version in ("1.1.0", "2.0.0"):
        for compatibility in ("backward", "full"):
            with pytest.raises(SchemaError, match=f"declared {compatibility} compatible with 1.0.0, but .*: {told}"):
                registry(ONE, Schema("p", version, fields, compatibility=compatibility))  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match=rf"breaks 1.0.0 \({told}.*demands a new major version: 2.0.0"):
        registry(ONE, Schema("p", "1.1.0", fields, compatibility="none"))
    registry(ONE, Schema("p", "2.0.0", fields, compatibility="none"))


def test_a_new_optional_field_is_backward_but_not_forward_compatible() -> None:
    fields = {"name": String(max=10), "age": Number(), "mail": String(required=False)}
    registry(ONE, Schema("p", "1.1.0", fields))
    for compatibility in ("forward", "full"):
        with pytest.raises(SchemaError, match=r"its values may not fit 1.0.0: mail is no longer known"):
            registry(ONE, Schema("p", "1.1.0", fields, compatibility=compatibility))  # type: ignore[arg-type]


def test_versions_are_checked_in_whatever_order_they_come() -> None:
    late = Schema("p", "1.2.0", {"name": String(max=10), "age": Number(), "mail": String(required=False)})
    with pytest.raises(SchemaError, match="1.2.0 is declared backward compatible with 1.1.0"):
        registry(late, Schema("p", "1.1.0", {"name": String(max=10), "age": Number(), "nick": String(required=False)}))


def test_before_the_first_major_version_a_minor_one_may_break() -> None:
    first = Schema("p", "0.1.0", {"name": String()})
    registry(first, Schema("p", "0.2.0", {"title": String()}, compatibility="none"))
    with pytest.raises(SchemaError, match="demands a new major version"):
        registry(first, Schema("p", "0.1.1", {"title": String()}, compatibility="none"))


def test_a_version_is_registered_once_and_says_one_thing() -> None:
    made = registry(ONE, Schema("p", "1.0.0", {"name": String(max=10), "age": Number()}))
    assert [str(v) for v in made.versions("p")] == ["1.0.0"]
    with pytest.raises(SchemaError, match="p@1.0.0 is registered already, and says something else"):
        made.add(Schema("p", "1.0.0", {"name": String(max=11), "age": Number()}))
