"""Transforms, and the ways over several versions that they make up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.errors import SchemaError
from celeriac.orchestration.schemas import (
    MigrationFailed,
    Number,
    Schema,
    Schemas,
    String,
    Transform,
    convert,
    copy,
    default,
    merge,
    move,
    own,
    remove,
    rename,
    split,
)
from celeriac.orchestration.schemas.declared import transform_of
from celeriac.orchestration.schemas.paths import Misfit
from celeriac.orchestration.state.scopes import Scope

from .made import JSON, NAMES


def done(value: Any, *transforms: Transform) -> Any:
    value = json.loads(json.dumps(value))
    for one in transforms:
        value = one.apply(value)
    return value


CASES = [
    ({"a": 1}, move("a", "b"), {"b": 1}),
    ({"a": {"x": 1}}, move("a.x", "b.c.d"), {"a": {}, "b": {"c": {"d": 1}}}),
    ({"a": {"x": 1}}, move("a", "a.inner"), {"a": {"inner": {"x": 1}}}),
    ({"a": 1}, move("gone", "b"), {"a": 1}),
    ({"a": None}, move("a.x", "b"), {"a": None}),
    ({"a": 1, "b": 2}, move("a", "b", replace=True), {"b": 1}),
    ({"l": [{"x": 1}, {"x": 2}, {}]}, rename("l[].x", "l[].y"), {"l": [{"y": 1}, {"y": 2}, {}]}),
    ({"l": [[{"x": 1}]]}, rename("l[][].x", "l[][].y.z"), {"l": [[{"y": {"z": 1}}]]}),
    ({"a.b": 1, 'q"': 2}, move('"a.b"', r'"q\""', replace=True), {'q"': 1}),
    ({"a": [1]}, copy("a", "b"), {"a": [1], "b": [1]}),
    ({"l": [{}, {"x": 0}]}, default("l[].x", []), {"l": [{"x": []}, {"x": 0}]}),
    ({"a": None}, default("a", 1), {"a": None}),
    ({}, default("a.b", {"c": 1}), {"a": {"b": {"c": 1}}}),
    ({"a": {"b": 1, "c": 2}}, remove("a.b"), {"a": {"c": 2}}),
    ({"l": ["1", "2.5"]}, convert("l[]", "number"), {"l": [1, 2.5]}),
    ({"a": "yes", "b": 0}, convert("a", "boolean"), {"a": True, "b": 0}),
    ({"a": 0}, convert("a", "timestamp"), {"a": "1970-01-01T00:00:00+00:00"}),
    ({"a": "1970-01-01T01:00:00+01:00"}, convert("a", "epoch"), {"a": 0.0}),
    ({"a": {"x": [1]}}, convert("a", "string"), {"a": '{"x":[1]}'}),
    ({"a": '{"x":[1]}'}, convert("a", "json"), {"a": {"x": [1]}}),
    ({"a": "x"}, convert("a", "list"), {"a": ["x"]}),
    ({"a": None}, convert("a", "number"), {"a": None}),
    ({"n": "Ada King Lovelace"}, split("n", ["first", "last"]), {"first": "Ada", "last": "King Lovelace"}),
    ({"n": "Ada"}, split("n", ["first", "last"]), {"first": "Ada"}),
    ({"p": [1, 2]}, split("p", ["at.x", "at.y"]), {"at": {"x": 1, "y": 2}}),
    ({"f": "Ada", "l": "King"}, merge(["f", "l"], "n", separator=" "), {"n": "Ada King"}),
    ({"x": 1, "y": 2}, merge(["x", "y"], "p"), {"p": [1, 2]}),
    ({"f": "Ada"}, merge(["f", "l"], "f", separator=" "), {"f": "Ada"}),
    ({"n": 3}, own(lambda v: {"n": v["n"] + 1}), {"n": 4}),
    ({"l": [1, 2]}, own(lambda v: v * 2, "l[]"), {"l": [2, 4]}),
]


@pytest.mark.parametrize(("before", "transform", "after"), CASES, ids=[str(case[1]) for case in CASES])
def test_a_transform_does_what_it_says(before: Any, transform: Transform, after: Any) -> None:
    assert done(before, transform) == after


@pytest.mark.parametrize(
    ("before", "transform", "path", "why"),
    [
        ({"a": 1, "b": 2}, move("a", "b"), "b", "is there already"),
        ({"a": "text"}, move("a.x", "b"), "a", "must be an object, found text of 4 characters"),
        ({"l": {}}, remove("l[].x"), "l", "must be a list, found an object"),
        ({"l": ["1", "one"]}, convert("l[]", "number"), "l[1]", "cannot be converted to number: cannot be read as one"),
        ({"a": "nan"}, convert("a", "number"), "a", "is no finite number"),
        ({"a": "1" * 5000}, convert("a", "number"), "a", "is no number"),
        ({"a": 1.5}, convert("a", "integer"), "a", "is no whole number"),
        ({"a": 2}, convert("a", "boolean"), "a", "is neither 0 nor 1"),
        ({"a": 1e300}, convert("a", "timestamp"), "a", "is no moment in the years 1 to 9999"),
        ({"a": []}, convert("a", "number"), "a", "is a list of 0 items, which cannot be converted to number"),
        ({"a": "{"}, convert("a", "json"), "a", "is not valid"),
        ({"n": 5}, split("n", ["a", "b"]), "n", "must be text, or a list of at most 2"),
        ({"a": 1, "b": "x"}, merge(["a", "b"], "c", separator=","), "a", "must be text, found a number"),
        ({"a": {"b": 1}}, own(lambda v: v["gone"], "a"), "a", "raise KeyError"),
    ],
)
def test_a_transform_that_cannot_be_done_names_the_field(
    before: Any, transform: Transform, path: str, why: str
) -> None:
    with pytest.raises(Misfit) as caught:
        done(before, transform)
    assert caught.value.path == path and why in caught.value.why


@pytest.mark.parametrize("path", ["", ".a", "a.", "a..b", "[]", "[].a", "a[", "a[0]", '"a', 'a"b"', "a" * 1001, None])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(SchemaError, match=r"is no path; allowed: names joined as a\.b\[\]\.c"):
        remove(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda: move("a[].x", "b[].x"),
        lambda: move("a[].x", "x"),
        lambda: move("a", "a"),
        lambda: move("a[]", "a[].b"),
        lambda: convert("a", "colour"),
        lambda: split("a", ["b"]),
        lambda: split("a", ["b", "c"], separator=""),
        lambda: merge("ab", "c"),
        lambda: own("text"),  # type: ignore[arg-type]
    ],
)
def test_a_transform_that_means_nothing_is_refused(make: Any) -> None:
    with pytest.raises(SchemaError):
        make()


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=5), NAMES)
def test_renaming_there_and_back_changes_nothing(value: dict[str, Any], name: str) -> None:
    there, back = rename(json.dumps(name), "free"), rename("free", json.dumps(name))
    assert done(value, there, back) == value


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=4), NAMES)
def test_renaming_in_every_item_there_and_back_changes_nothing(items: list[Any], name: str) -> None:
    there, back = rename(f"l[].{json.dumps(name)}", "l[].free"), rename("l[].free", f"l[].{json.dumps(name)}")
    assert done({"l": items}, there, back) == {"l": items}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=5), NAMES)
def test_what_was_copied_and_removed_is_as_it_was(value: dict[str, Any], name: str) -> None:
    assert done(value, copy(json.dumps(name), "free"), remove("free")) == value


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="abc", min_size=1), min_size=2, max_size=2))
def test_what_was_merged_is_split_again(words: list[str]) -> None:
    value = {"first": words[0], "last": words[1]}
    assert done(value, merge(["first", "last"], "name", separator=" "), split("name", ["first", "last"])) == value


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4 * 10**9))
def test_a_moment_converted_there_and_back_is_the_same(moment: int) -> None:
    assert done({"at": moment}, convert("at", "timestamp"), convert("at", "epoch")) == {"at": moment}


# -- over several versions ---------------------------------------------------------------------------------------------

FIRST = Schema("person", "1.0.0", {"name": String(), "age": String()})
SECOND = Schema(
    "person",
    "2.0.0",
    {"first": String(), "last": String(required=False), "age": Number()},
    compatibility="none",
    migrate=[split("name", ["first", "last"]), convert("age", "number")],
)
ADDED = Schema(
    "person",
    "2.1.0",
    {**SECOND.root.fields, "mail": String(required=False)},  # type: ignore[attr-defined]
)
THIRD = Schema(
    "person",
    "3.0.0",
    {"names": {"type": "object", "fields": {"first": "string", "last": "string"}}, "age": "number", "mail": "string"},
    compatibility="none",
    migrate=[
        default("last", ""),
        {"move": {"from": "first", "to": "names.first"}},
        {"move": {"from": "last", "to": "names.last"}},
        {"default": {"path": "mail", "value": "none"}},
    ],
)


@pytest.fixture
def people() -> Schemas:
    made = Schemas()
    for one in (FIRST, SECOND, ADDED, THIRD):
        made.add(one)
    return made


def test_a_way_over_several_versions_is_found_and_shown(people: Schemas) -> None:
    way = people.plan("person", "1.0.0", "3.0.0")
    assert str(way).splitlines() == [
        "person 1.0.0 -> 3.0.0",
        "  1.0.0 -> 2.0.0: split name into first, last; convert age to number",
        "  2.0.0 -> 2.1.0: values stay as they are",
        "  2.1.0 -> 3.0.0: default of last; move first to names.first; move last to names.last; default of mail",
    ]
    old = {"name": "Ada King", "age": "36"}
    assert way.apply(old, "strict") == {"names": {"first": "Ada", "last": "King"}, "age": 36, "mail": "none"}
    assert old == {"name": "Ada King", "age": "36"}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.integers(0, 200))
def test_two_steps_lead_where_one_way_leads(name: str, age: int) -> None:
    people = Schemas()
    for one in (FIRST, SECOND, ADDED, THIRD):
        people.add(one)
    value = {"name": name, "age": str(age)}
    whole = people.plan("person", "1.0.0", "3.0.0").apply(value)
    for stop in ("2.0.0", "2.1.0"):
        half = people.plan("person", "1.0.0", stop).apply(value)
        assert people.plan("person", stop, "3.0.0").apply(half) == whole


def test_a_way_that_is_missing_says_where_it_goes_on(people: Schemas) -> None:
    with pytest.raises(SchemaError, match="no migration leads from 3.0.0 to 1.0.0; from 3.0.0 it goes to: none"):
        people.plan("person", "3.0.0", "1.0.0")
    with pytest.raises(SchemaError, match="has no version 9.0.0; it has: 1.0.0, 2.0.0, 2.1.0, 3.0.0"):
        people.plan("person", "1.0.0", "9.0.0")


def test_the_shortest_way_is_taken_and_of_two_one_must_be_named() -> None:
    made = Schemas()
    made.add(Schema("p", "1.0.0", value="string"))
    made.add(Schema("p", "2.0.0", value="string", migrate={"1.0.0": [own(lambda v: v + "a")]}))
    made.add(Schema("p", "3.0.0", value="string", migrate={"1.0.0": [own(lambda v: v + "b")]}))
    made.add(Schema("p", "4.0.0", value="string", migrate={"2.0.0": [], "3.0.0": []}))
    with pytest.raises(SchemaError, match="2 ways are equally short: 1.0.0 -> 2.0.0 -> 4.0.0 or 1.0.0 -> 3.0.0 -> 4"):
        made.plan("p", "1.0.0", "4.0.0")
    assert made.plan("p", "1.0.0", "4.0.0", through=["3.0.0"]).apply("x") == "xb"
    made.add(Schema("p", "5.0.0", value="string", migrate={"4.0.0": [], "1.0.0": [own(str.upper)]}))
    assert made.plan("p", "1.0.0", "5.0.0").apply("x") == "X"


def test_values_are_checked_before_and_after_at_the_level_asked_for(people: Schemas) -> None:
    way = people.plan("person", "1.0.0", "2.0.0")
    with pytest.raises(SchemaError, match="x does not fit schema person@1.0.0: name is missing"):
        way.apply({"age": "3"}, "basic", "x")
    assert way.apply({"name": "Ada", "age": "3", "more": 1}, "basic") == {"first": "Ada", "age": 3, "more": 1}
    with pytest.raises(SchemaError, match="more is not known"):
        way.apply({"name": "Ada", "age": "3", "more": 1}, "strict")


def test_a_failed_transform_names_the_key_and_the_field_but_not_the_value(people: Schemas) -> None:
    with pytest.raises(MigrationFailed) as caught:
        people.plan("person", "1.0.0", "3.0.0").apply({"name": "Ada", "age": "s3cret"}, what="agent:x 'ada'")
    told = str(caught.value)
    assert told.startswith("agent:x 'ada': 1.0.0 -> 2.0.0, convert age to number: age cannot be converted to number")
    assert "s3cret" not in told


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_bound_to_the_closest_binding(people: Schemas) -> None:
    people.add(Schema("other", "1.0.0", value="number"))
    people.bind("agent:*", "*", "other")
    people.bind("agent:analyzer", "profile*", "person", "2.0.0")
    people.bind(Scope.agent("a*"), "profile", "person")
    assert people.bound("agent:analyzer", "profile/ana").text == "person@2.0.0"  # type: ignore[union-attr]
    assert people.bound(Scope.agent("analyzer"), "else").text == "other@1.0.0"  # type: ignore[union-attr]
    assert people.bound("agent:a*", "profile").text == "person@3.0.0"  # type: ignore[union-attr]
    assert people.bound("global", "profile") is None
    with pytest.raises(SchemaError, match=r"agent:\* \* is bound to schema 'other' already"):
        people.bind("agent:*", "*", "person")
    with pytest.raises(SchemaError, match="no schema 'gone'; there are: other, person"):
        people.bind("global", "x", "gone")


def test_a_value_is_checked_and_marked_when_it_is_written(people: Schemas) -> None:
    people.bind("agent:analyzer", "profile*", "person", "2.0.0")
    assert people.check("agent:analyzer", "profile", {"first": "Ada", "age": 3}) == "person@2.0.0"
    with pytest.raises(
        SchemaError, match="agent:analyzer 'profile' does not fit schema person@2.0.0: first is missing"
    ):
        people.check("agent:analyzer", "profile", {"age": 3})
    assert people.check("global", "free", object(), "basic") == ""
    with pytest.raises(SchemaError, match="global 'free' is bound to no schema"):
        people.check("global", "free", 1, "strict")


def test_an_old_value_is_migrated_when_it_is_read(people: Schemas) -> None:
    people.bind("global", "p", "person", "2.1.0")
    old = {"name": "Ada King", "age": "36"}
    new = {"first": "Ada", "last": "King", "age": 36}
    assert people.current("global", "p", old, "person@1.0.0") == (new, "person@2.1.0", True)
    assert people.current("global", "p", new, "person@2.1.0") == (new, "person@2.1.0", False)
    assert people.current("global", "free", old, "") == (old, "", False)


def test_a_value_without_a_version_is_taken_for_the_newest_that_it_fits(people: Schemas) -> None:
    people.bind("global", "p", "person", "2.1.0")
    old = {"name": "Ada King", "age": "36"}
    assert people.current("global", "p", old) == ({"first": "Ada", "last": "King", "age": 36}, "person@2.1.0", True)
    assert people.current("global", "p", {"first": "A", "age": 1})[1:] == ("person@2.1.0", False)
    with pytest.raises(
        SchemaError, match="'p' was written without a schema, and fits no version of 'person': 2.1.0, 2"
    ):
        people.current("global", "p", 5)
    with pytest.raises(SchemaError, match="was written with schema other@1.0.0, and is bound to 'person'"):
        people.current("global", "p", 5, "other@1.0.0")


# -- files -------------------------------------------------------------------------------------------------------------

FILE = """
schemas:
  - name: order
    version: 2.0.0
    compatibility: none
    fields:
      total: number
      lines: {type: list, items: {type: object, fields: {price: number, note: {type: string, required: false}}}}
    migrate:
      - convert: {path: "lines[].price", to: number}
      - rename: {from: sum, to: total}
      - own: "json:loads"
  - name: order
    version: 1.0.0
    fields: {sum: number, lines: {type: list, items: {type: object, fields: {price: string}}}}
bindings:
  - {scope: "workflow:*", key: "order*", schema: order}
"""


def test_schemas_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text(FILE.replace('      - own: "json:loads"\n', ""))
    (tmp_path / "one.json").write_text(json.dumps({"name": "one", "version": "1.0.0", "value": "number"}))
    made = Schemas()
    made.load([str(tmp_path / "orders.yaml"), str(tmp_path / "one.json")])
    assert made.names() == ["one", "order"]
    old = {"sum": 3, "lines": [{"price": "1.5"}]}
    assert made.current("workflow:w", "order/7", old, "order@1.0.0") == (
        {"total": 3, "lines": [{"price": 1.5}]},
        "order@2.0.0",
        True,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schemas: [", "is not YAML"),
        ("[]", "must have `schemas` and `bindings`"),
        ("schemas: {}", "schemas must be a list"),
        ("schemas: [{name: a}]", "a schema is an object with a name, a version"),
        ("{name: a, version: 1.0.0, value: number, colour: red}", "'colour' is not known; allowed: name"),
        ("{name: a, version: 1.0, value: number}", "1.0 is no version"),
        (
            "{name: a, version: 1.0.0, value: number, migrate: [{turn: x}]}",
            "transform 1: a transform is an object with",
        ),
        ("{name: a, version: 1.0.0, value: number, migrate: [{move: {from: x}}]}", "transform move: target is missing"),
        ("{name: a, version: 1.0.0, value: number, migrate: [{own: 'os:gone'}]}", "os:gone cannot be imported"),
        ("{schemas: [], bindings: [{scope: global}]}", "a binding is an object with scope, key and schema"),
        ("{schemas: [], bindings: [{scope: global, key: a, schema: b}]}", "no schema 'b'; there are: none"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SchemaError, match=told) as caught:
        Schemas().load([str(file)])
    assert str(file) in str(caught.value)


def test_every_transform_can_be_declared() -> None:
    declared: list[Any] = [
        {"copy": {"from": "a", "to": "b"}},
        {"move": {"from": "a", "to": "b", "replace": True}},
        {"rename": {"source": "a", "target": "b"}},
        {"default": {"path": "a", "value": None}},
        {"remove": "a"},
        {"convert": {"path": "a", "to": "epoch"}},
        {"split": {"from": "a", "into": ["b", "c"], "separator": ","}},
        {"merge": {"from": ["a", "b"], "into": "c", "separator": ","}},
        {"own": {"function": "json:loads", "path": "a"}},
    ]
    assert [str(transform_of(one)).split()[0] for one in declared] == [
        "copy", "move", "move", "default", "remove", "convert", "split", "merge", "call",
    ]  # fmt: skip
