"""Keys: what is the same question has the same key, and nothing else has."""

from __future__ import annotations

import json
import math
import random
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from celeriac.errors import CacheError, NotSerializable
from celeriac.orchestration.cache import key_of

text = st.text(st.characters(codec="utf-8"), max_size=8)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))
words = st.frozensets(text, max_size=4)
scopes = st.tuples(text, text, text, words)


def key(request: Any, scope: tuple[str, str, str, Any] = ("", "a", "1", ("read",))) -> str:
    tenant, agent, version, permissions = scope
    return key_of(agent, request, version=version, permissions=permissions, tenant=tenant).hash


def shuffled(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(item, dice)) for name, item in value.items()]
        dice.shuffle(items)
        return dict(items)
    return [shuffled(item, dice) for item in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    """What tells two JSON values apart: 1 is not 1.0, and not true."""
    return json.dumps(value, sort_keys=True)


@given(values, scopes, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_of_permissions_does_not_matter(value: Any, scope: Any, dice: random.Random) -> None:
    tenant, agent, version, permissions = scope
    again = list(permissions) * 2
    dice.shuffle(again)
    assert key(shuffled(value, dice), (tenant, agent, version, again)) == key(value, scope)


@settings(max_examples=300)
@given(values, values, scopes, scopes)
def test_any_other_change_gives_another_key(a: Any, b: Any, first: Any, second: Any) -> None:
    assert (key(a) == key(b)) == (written(a) == written(b))
    assert (key(a, first) == key(a, second)) == (first == second)


@given(values, words, words)
def test_who_holds_other_permissions_has_another_key(value: Any, held: frozenset[str], other: frozenset[str]) -> None:
    same = key(value, ("", "a", "1", held)) == key(value, ("", "a", "1", other))
    assert same == (held == other)


@given(text, text, text)
def test_nothing_moves_from_one_part_to_the_next_unseen(a: str, b: str, c: str) -> None:
    keys = [key({}, (a, b, c, ())), key({}, (a + b, c, "", ())), key({}, (a, b + c, "", ())), key({}, (a, b, "", (c,)))]
    assert len(set(keys)) == len({(a, b, c, ()), (a + b, c, "", ()), (a, b + c, "", ()), (a, b, "", (c,))})


def test_numbers_texts_and_truth_are_told_apart() -> None:
    alike = [1, 1.0, True, "1", [1], {"1": 1}, None, "", 0, -0.0, 0.0, False, [], {}, "null"]
    assert len({key(one) for one in alike}) == len(alike)
    assert key({"n": 1 << 80}) != key({"n": float(1 << 80)})


def test_two_ways_to_write_a_letter_are_two() -> None:
    word = "Zoë"
    assert key(unicodedata.normalize("NFC", word)) != key(unicodedata.normalize("NFD", word))


class Place(BaseModel):
    name: str
    at: tuple[float, float] = (0.0, 0.0)


class Trip(BaseModel):
    stops: list[Place]


def test_models_count_as_their_json_at_any_depth() -> None:
    trip = Trip(stops=[Place(name="a"), Place(name="b", at=(1.0, 2.0))])
    plain = {"stops": [{"name": "a", "at": [0.0, 0.0]}, {"name": "b", "at": [1.0, 2.0]}]}
    assert key(trip) == key(plain)
    assert key({"trips": [trip, 1]}) == key({"trips": [plain, 1]})
    assert key({"trips": [trip, 1]}) != key({"trips": [plain, 1.0]})


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1, math.nan]}, {1: "a"}, b"x", {"s": {1, 2}}, "\ud800"])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(NotSerializable):
        key(value)


def test_a_part_of_a_request_that_is_not_json_is_named() -> None:
    with pytest.raises(NotSerializable, match=r"request to agent 'a'\.b\[1\]: nan is not"):
        key({"b": [1, math.nan]})


@pytest.mark.parametrize("scope", [(None, "a", "1", ()), ("", 1, "1", ()), ("", "a", "1", "r"), ("", "a", "1", (1,))])
def test_a_scope_that_is_not_text_is_refused(scope: Any) -> None:
    with pytest.raises(CacheError, match="are text"):
        key({}, scope)
