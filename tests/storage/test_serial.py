"""What encodes reads back equal; what would not is refused by its path."""

from __future__ import annotations

import asyncio
import dataclasses
import decimal
import enum
import hashlib
import pathlib
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import NotSerializable, StorageError, TooLarge
from celeriac.storage import serial

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


class Model(pydantic.BaseModel):
    name: str = "x"


@dataclasses.dataclass
class Record:
    name: str = "x"


class Row(msgspec.Struct):
    name: str = "x"


class Colour(enum.Enum):
    RED = "red"


class Level(enum.StrEnum):
    HIGH = "high"


class Text(str):
    pass


Point = namedtuple("Point", "x y")


async def forgotten() -> int:
    return 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@given(json_values)
def test_what_encodes_reads_back_equal_and_of_the_same_types(value: object) -> None:
    again = serial.decode(serial.encode(value))
    assert again == value
    assert repr(again) == repr(value)


@given(st.dictionaries(st.text(), json_values))
def test_the_canonical_form_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert serial.canonical(value) == serial.canonical(backwards)
    assert serial.decode(serial.canonical(value)) == value


def test_json_is_compact_and_in_utf8() -> None:
    assert serial.encode({"b": [1, 2.5, None, True], "a": "ü"}) == '{"b":[1,2.5,null,true],"a":"ü"}'.encode()
    assert serial.canonical({"b": {"d": 1, "c": 2}, "a": 0}) == b'{"a":0,"b":{"c":2,"d":1}}'


def test_a_tuple_reads_back_as_a_list() -> None:
    assert serial.decode(serial.encode({"pair": (1, (2, None))})) == {"pair": [1, [2, None]]}


def test_dicts_of_a_special_kind_and_enums_that_are_text_are_what_they_look_like() -> None:
    value = {"a": defaultdict(int, x=1), "b": OrderedDict(y=2), "c": Level.HIGH, "d": (1,)}
    assert serial.decode(serial.encode(value)) == {"a": {"x": 1}, "b": {"y": 2}, "c": "high", "d": [1]}


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**4000])
def test_integers_beyond_64_bits_keep_every_digit(number: int) -> None:
    assert serial.decode(serial.encode([number])) == [number]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (float("nan"), "nan is not a JSON number"),
        (float("inf"), "inf is not a JSON number"),
        (b"x", "bytes is not JSON; decode it to text, or store it as a blob"),
        ({1, 2}, "set is not JSON; convert it to a list"),
        ({1: 2}, "key 1 is int; JSON keys are text"),
        ({None: 2}, "key None is NoneType; JSON keys are text"),
        ({"\ud800": 2}, r"key '\ud800': half of a surrogate pair"),
        ("ab\udc80", "half of a surrogate pair at character 2"),
        (datetime(2026, 1, 1, tzinfo=UTC), "datetime is not JSON; convert it to text (isoformat())"),
        (date(2026, 1, 1), "date is not JSON; convert it to text (isoformat())"),
        (timedelta(1), "timedelta is not JSON; convert it to seconds"),
        (uuid.UUID(int=1), "UUID is not JSON; convert it to text (str())"),
        (decimal.Decimal(1), "Decimal is not JSON"),
        (pathlib.PurePosixPath("a"), "PurePosixPath is not JSON; convert it to text (str())"),
        (ValueError("x"), "ValueError is not JSON; convert it to text (str())"),
        (Colour.RED, "Colour is not JSON; use its value (.value)"),
        (Model(), "Model is not JSON; convert it with model_dump(mode='json')"),
        (Record(), "Record is not JSON; convert it with dataclasses.asdict()"),
        (Row(), "Row is not JSON; convert it with msgspec.to_builtins()"),
        (Point(1, 2), "Point is not JSON; convert it with _asdict()"),
        (Text("x"), "Text is not JSON; convert it to plain text"),
        (iter([1]), "list_iterator is not JSON; collect it into a list"),
        (msgspec.Raw(b"no json"), "Raw is not JSON"),
        (object(), "object is not JSON; convert it to None, bool, int"),
        (10**5000, "an integer of 16,610 bits is too long"),
    ],
    ids=lambda item: item if isinstance(item, str) else type(item).__name__,
)
def test_what_is_not_json_is_refused_by_its_path(wrong: object, said: str) -> None:
    with pytest.raises(NotSerializable) as caught:
        serial.encode({"items": [1, 2, 3, {"when": wrong}]}, "result")
    assert str(caught.value).startswith("result.items[3].when: ")
    assert said in str(caught.value)
    with pytest.raises(NotSerializable, match="^value: "):
        serial.canonical(wrong)


def test_a_call_that_was_not_awaited_is_named_as_such() -> None:
    answer = forgotten()
    with pytest.raises(NotSerializable, match="result: coroutine is not JSON; it was not awaited"):
        serial.encode(answer, "result")
    assert asyncio.run(answer) == 1


def test_a_key_that_is_no_word_is_shown_in_quotes() -> None:
    with pytest.raises(NotSerializable, match=r"result\['two words'\]\[0\]: bytes"):
        serial.encode({"two words": [b""]}, "result")


def test_two_hundred_levels_pass_and_one_more_is_refused() -> None:
    assert serial.decode(serial.encode(nested(200))) == nested(200)
    for depth in (201, 900, 50_000):
        with pytest.raises(NotSerializable, match="nested (deeper than 200|too deep)"):
            serial.encode(nested(depth))


def test_many_containers_side_by_side_are_not_deep() -> None:
    values: list[object] = [
        [{}] * 1000,
        [[{"a": [1, "]["]}]] * 1000,
        ["[" * 1000],
        [[]] * 300,
        "[" * 300,
        {"a": "{" * 300},
    ]
    for value in values:
        assert serial.decode(serial.encode(value)) == value


@pytest.mark.parametrize(("first", "last"), [("", ""), ("]", "["), ("[" * 300, "]" * 300), ("}", "{")])
def test_brackets_in_text_neither_hide_depth_nor_make_it(first: str, last: str) -> None:
    value: Any = []
    for level in range(199):
        value = [first, value, last] if level % 2 else {first: value, "z": last}
    assert serial.encode(value)
    with pytest.raises(NotSerializable, match="nested deeper than 200"):
        serial.encode([value])


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"a": []}
    loop["a"].append(loop)
    with pytest.raises(NotSerializable, match=r"result\.a\[0\]: this dict contains itself"):
        serial.encode(loop, "result")


def test_a_value_that_is_used_twice_is_no_cycle() -> None:
    shared = [1]
    assert serial.encode([shared, shared, (shared,)]) == b"[[1],[1],[[1]]]"


def test_a_value_over_its_limit_is_refused_with_both_sizes() -> None:
    assert serial.encode("x" * 98, limit=100)
    with pytest.raises(TooLarge, match="result is 2,002 bytes of JSON; the limit is 100 bytes"):
        serial.encode("x" * 2000, "result", limit=100)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"NaN", b"1e999", b"[1,]", b"1 2", b"\xff", b'"\xed\xa0\x80"', '"\ud800"', b"[" * 100_000]
)
def test_text_that_is_not_json_is_a_storage_error(text: bytes | str) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        serial.decode(text)


def test_json_is_read_from_text_bytes_and_views() -> None:
    assert serial.decode('{"a":1}') == serial.decode(b'{"a":1}') == serial.decode(memoryview(b'{"a":1}')) == {"a": 1}


def test_the_digest_is_sha256_in_hexadecimal() -> None:
    assert serial.digest(b"abc") == hashlib.sha256(b"abc").hexdigest()
