"""Merging what two have changed: nothing that either did is lost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.orchestration.memory.memory import PersistentAgentState
from celeriac.orchestration.memory.merging import MISSING, merged, same
from celeriac.storage.agent_parts import Kept, part_of, place_of

from .made import JSON

WORDS = st.lists(st.text(alphabet="ab", max_size=2), max_size=5)


@settings(max_examples=100, deadline=None)
@given(JSON, JSON)
def test_where_only_one_changed_something_that_is_what_counts(before: Any, after: Any) -> None:
    assert same(merged(before, before, after), after)
    assert same(merged(before, after, before), after)


@settings(max_examples=100, deadline=None)
@given(WORDS, WORDS, WORDS)
def test_what_both_appended_is_there_once_each_in_order(before: list[str], theirs: list[str], mine: list[str]) -> None:
    assert merged(before, before + theirs, before + mine) == before + theirs + mine


@settings(max_examples=100, deadline=None)
@given(st.integers(), st.integers(), st.integers())
def test_counters_are_added_up(before: int, theirs: int, mine: int) -> None:
    assert merged({"n": before}, {"n": before + theirs}, {"n": before + mine}, sums=True) == {
        "n": before + theirs + mine
    }


@settings(max_examples=100, deadline=None)
@given(*[st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)) for _ in range(3)])
def test_keys_that_only_one_changed_are_as_that_one_left_them(before: Any, theirs: Any, mine: Any) -> None:
    found = merged(before, theirs, mine)
    for key in "abcd":
        old, other, own = (one.get(key, MISSING) for one in (before, theirs, mine))
        if same(old, other):
            assert same(found.get(key, MISSING), own)
        elif same(old, own):
            assert same(found.get(key, MISSING), other)
        else:
            assert found.get(key, MISSING) in (other, own)


def test_a_change_wins_over_a_removal() -> None:
    assert merged({"a": 1}, {}, {"a": 2}) == {"a": 2}
    assert merged({"a": 1}, {"a": 2}, {}) == {"a": 2}


def test_one_and_true_are_two_values() -> None:
    assert merged({"a": 1}, {"a": 1}, {"a": True})["a"] is True


@settings(max_examples=100, deadline=None)
@given(st.text(), st.sampled_from(["config", "execution"]))
def test_names_of_parts_read_back(key: str, where: str) -> None:
    assert place_of(part_of(where, key)) == (where, key)
    assert "\0" not in part_of(where, key)


@settings(max_examples=150, deadline=None)
@given(WORDS, st.integers(0, 5), st.integers(0, 5), WORDS, st.booleans())
def test_what_is_written_of_a_history_gives_that_history(
    before: list[str], cut: int, keep: int, new: list[str], edited: bool
) -> None:
    kept = {number: json.dumps(word) for number, word in enumerate(before, 10)}
    memory = PersistentAgentState(Kept(), load_history=lambda: dict(kept))
    memory.history = memory.history[cut:][:keep] + new
    if edited and memory.history:
        memory.history[0] = "edited"
    changes = memory.changes()
    for number, text in changes.items.items():
        if text is None:
            del kept[number]
        else:
            kept[number] = text
    kept |= dict(enumerate(changes.appended, 100))
    assert [json.loads(text) for text in kept.values()] == memory.history


def test_a_history_that_slides_on_writes_only_what_went_and_what_came() -> None:
    kept = {number: json.dumps(f"item {number}") for number in range(100)}
    memory = PersistentAgentState(Kept(), load_history=lambda: dict(kept))
    memory.history.append("new")
    del memory.history[:3]
    changes = memory.changes()
    assert changes.items == dict.fromkeys(range(3)) and changes.appended == ['"new"']


def test_a_history_that_was_not_asked_for_is_not_read() -> None:
    memory = PersistentAgentState(Kept({"execution/a": "1"}), load_history=lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    memory["b"] = 2
    assert memory.changes().parts == {"execution/b": (None, "2")}
    assert dict(memory) == {"a": 1, "b": 2} and len(memory) == 2 and "a" in memory
