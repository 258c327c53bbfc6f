"""Merging brings in what is new, once; what both sides have changed is kept as a conflict until it is resolved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import SessionError
from celeriac.orchestration.trees.three_way import merge, merged, same
from trees.ledger import Ledger
from trees.test_branches import said, state_of, talk

# -- laws --------------------------------------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from([1.0, "a", "b", [], [1], {"x": 1}]))
SIDES = st.dictionaries(st.sampled_from("abcde"), VALUES, max_size=5)


def both(base: Any, ours: Any, theirs: Any) -> tuple[dict[str, Any], list[str]]:
    found = merge(base, ours, theirs)
    return merged(ours, found), found.conflicts


@given(SIDES, SIDES)
def test_what_only_one_side_has_changed_is_as_that_side_has_it(base: Any, x: Any) -> None:
    for ours, theirs in ((x, base), (base, x), (x, x)):
        result, conflicts = both(base, ours, theirs)
        assert same(result, x) and conflicts == []


@given(SIDES, SIDES, SIDES)
def test_both_ways_give_the_same_conflicts_and_agree_on_all_else(base: Any, ours: Any, theirs: Any) -> None:
    one, conflicts = both(base, ours, theirs)
    other, same_conflicts = both(base, theirs, ours)
    assert conflicts == same_conflicts
    for key in {*one, *other} - set(conflicts):
        assert key in one and key in other and same(one[key], other[key])
    assert all(same(one.get(key), ours.get(key)) for key in conflicts)


@given(SIDES, SIDES, SIDES)
def test_nothing_is_lost_in_silence(base: Any, ours: Any, theirs: Any) -> None:
    result, conflicts = both(base, ours, theirs)
    for key in {*base, *ours, *theirs} - set(conflicts):
        for side, other in ((ours, theirs), (theirs, ours)):
            mine = (key in side, side.get(key))
            if not same(list(mine), [key in base, base.get(key)]):
                assert same([key in result, result.get(key)], list(mine)), (key, other)


@given(SIDES, SIDES, SIDES)
def test_changes_of_other_keys_can_be_merged_in_any_order(base: Any, x: Any, y: Any) -> None:
    mine = {**base, **{key: x[key] for key in x if key in "abc"}}
    yours = {**base, **{key: y[key] for key in y if key in "de"}}
    first, none = both(base, merged(base, merge(base, base, mine)), yours)
    second, also_none = both(base, merged(base, merge(base, base, yours)), mine)
    assert none == also_none == [] and same(first, second)


@given(SIDES, SIDES, SIDES)
def test_merging_again_from_what_was_merged_brings_nothing(base: Any, ours: Any, theirs: Any) -> None:
    result, _ = both(base, ours, theirs)
    again = merge(theirs, result, theirs)
    assert again.taken == {} and again.conflicts == []


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(ledger: Ledger) -> Any:
    session = ledger.sessions.create("q")
    talk(session, "one", "two")
    ledger.engine.state.set_many(f"session:{session.id}", {"a": 1, "b": 1, "c": 1, "d": 1})
    return session


def change(ledger: Ledger, session: Any, **values: Any) -> None:
    """Set keys of a session; None deletes one."""
    for key, value in values.items():
        if value is None:
            ledger.engine.state.delete(f"session:{session.id}", key)
        else:
            ledger.engine.state.set(f"session:{session.id}", key, value)


def test_a_merge_brings_entries_in_order_and_what_has_changed(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    talk(branch, "b1", "b2")
    talk(root, "r1")
    change(ledger, branch, a=2, b=None, new={"x": 1})
    change(ledger, root, c=3)
    found = root.merge(branch)
    assert (found.entries, found.keys, found.conflicts) == (2, ["a", "b", "new"], [])
    assert said(root) == ["one", "two", "r1", "b1", "b2"] and said(branch) == ["one", "two", "b1", "b2"]
    assert state_of(ledger, root) == {"a": 2, "c": 3, "d": 1, "new": {"x": 1}}
    (told,) = [one.data for one in root.stream(follow=False) if one.type == "session.merged"]
    assert told == {"branch": branch.id, "name": "try", "entries": 2, "keys": ["a", "b", "new"], "conflicts": []}
    times = {entry["content"]: entry["timestamp"] for entry in branch.history()}
    assert {entry["content"]: entry["timestamp"] for entry in root.history()}["b1"] == times["b1"]


def test_a_second_merge_brings_only_what_is_new(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    talk(branch, "b1")
    change(ledger, branch, a=2)
    root.merge(branch)
    events = root.last_event()
    nothing = root.merge(branch.id)
    assert (nothing.entries, nothing.keys, nothing.conflicts) == (0, [], []) and root.last_event() == events
    change(ledger, root, a=5)  # after it was merged
    talk(branch, "b2")
    change(ledger, branch, d=4)
    again = root.merge(branch)
    assert (again.entries, again.keys, again.conflicts) == (1, ["d"], [])
    assert said(root) == ["one", "two", "b1", "b2"] and state_of(ledger, root)["a"] == 5


def test_conflicts_are_kept_until_they_are_resolved_each_in_its_way(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    change(ledger, branch, a=10, b=10, c=10, d=None)
    change(ledger, root, a=20, b=20, c=20, d=20)
    found = root.merge(branch)
    assert found.keys == [] and len(found.conflicts) == 4
    assert state_of(ledger, root) == {"a": 20, "b": 20, "c": 20, "d": 20}
    open_ = {one["key"]: one for one in root.merge_conflicts()}
    assert [open_["a"][side] for side in ("base", "ours", "theirs")] == [1, 20, 10] and open_["d"]["theirs"] is None
    assert root.resolve(open_["a"]["id"], "ours", by="lea") == 20
    assert root.resolve(open_["b"]["id"], "theirs") == 10
    assert root.resolve(open_["c"]["id"], lambda base, ours, theirs: [base, ours, theirs]) == [1, 20, 10]
    assert root.merge_conflicts()[0]["key"] == "d"
    assert root.resolve(open_["d"]["id"], "theirs") is None
    assert state_of(ledger, root) == {"a": 20, "b": 10, "c": [1, 20, 10]} and root.merge_conflicts() == []
    done = root.merge_conflicts(unresolved=False)
    assert done[0]["resolution"] == {"choice": "ours", "by": "lea"} and all(one["resolved"] for one in done)
    with pytest.raises(SessionError, match="has resolved merge conflict 1 already"):
        root.resolve(1, "theirs")
    with pytest.raises(SessionError, match="has no merge conflict 9"):
        root.resolve(9, "theirs")
    assert root.merge(branch).conflicts == []  # resolved for good, until the branch changes these keys again
    change(ledger, branch, a=11)
    assert len(root.merge(branch).conflicts) == 1


def test_a_conflict_that_is_open_takes_on_what_is_theirs_now(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    change(ledger, branch, a=10)
    change(ledger, root, a=20)
    first = root.merge(branch).conflicts
    change(ledger, branch, a=11)
    assert root.merge(branch).conflicts == first
    (one,) = root.merge_conflicts()
    assert (one["base"], one["theirs"]) == (1, 11)
    assert root.resolve(first[0], {"a": "value"}) == {"a": "value"} and state_of(ledger, root)["a"] == {"a": "value"}


def test_only_a_branch_of_a_session_is_merged_into_it(ledger: Ledger, root: Any) -> None:
    second = root.branch("first").branch("second")
    with pytest.raises(SessionError, match="is a branch of"):
        root.merge(second)
    with pytest.raises(SessionError, match="is no branch"):
        root.merge(ledger.sessions.create())


def test_a_branch_is_merged_up_through_those_above_it(ledger: Ledger, root: Any) -> None:
    first = root.branch("first")
    second = first.branch("second")
    talk(second, "s1")
    change(ledger, second, a=7)
    assert first.merge(second).keys == ["a"] and root.merge(first).keys == ["a"]
    assert said(root) == ["one", "two", "s1"] and state_of(ledger, root)["a"] == 7


def test_two_sessions_are_compared(ledger: Ledger, root: Any) -> None:
    first, second = root.branch("first", at=1), root.branch("second")
    talk(first, "f"), talk(second, "s")
    change(ledger, first, a=2)
    change(ledger, second, b=None)
    found = ledger.sessions.compare(first.id, second.id)
    assert found["common"] == root.id and found["history"]["shared"] == 1
    assert [entry["content"] for entry in found["history"]["a"]] == ["f"]
    assert [entry["content"] for entry in found["history"]["b"]] == ["two", "s"]
    assert found["state"] == [{"key": "a", "a": 2, "b": 1}, {"key": "b", "a": 1, "b": None}]
    down = ledger.sessions.compare(root.id, second.id)
    assert down["common"] == root.id and down["history"] == {"shared": 2, "a": [], "b": found["history"]["b"][1:]}
    from celeriac import step

    one, other = ledger.ended(step("x", "work", 1)), ledger.ended(step("x", "work", 2))
    results = ledger.sessions.compare(one.id, other.id)
    assert results["common"] is None
    assert results["results"] == [{"step": "x", "a": one.output("x"), "b": other.output("x")}]
