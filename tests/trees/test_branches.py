"""Branches share history and state with what they were made from, and nothing that is done in one shows in another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer
from sqlalchemy import text

from celeriac import step
from celeriac.errors import CheckpointNotFound, SessionError, SessionNotFound, StorageError
from celeriac.storage.histories.protocol import HistoryError
from trees.ledger import Ledger


def talk(session: Any, *words: str) -> None:
    """Say some words in a session."""
    session.history.extend({"role": "user", "content": word} for word in words)


def said(session: Any) -> list[str]:
    """All that was said in a session."""
    return [entry["content"] for entry in session.history()]


def state_of(ledger: Ledger, session: Any) -> dict[str, Any]:
    """The keyed state of a session."""
    state, scope = ledger.engine.state, f"session:{session.id}"
    return state.get_many(scope, state.list_keys(scope))


@pytest.fixture
def root(ledger: Ledger) -> Any:
    """A session in which something was said and kept."""
    session = ledger.sessions.create("q", user="ana", tags=["x"], preferences={"p": 1})
    talk(session, "one", "two", "three")
    ledger.engine.state.set_many(f"session:{session.id}", {"a": 1, "b": {"deep": [1]}})
    return session


def test_a_branch_begins_with_what_its_parent_has_and_goes_its_own_way(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try", "another way", "ana")
    assert said(branch) == ["one", "two", "three"] and state_of(ledger, branch) == {"a": 1, "b": {"deep": [1]}}
    talk(branch, "mine")
    talk(root, "yours")
    state = ledger.engine.state
    state.set(f"session:{branch.id}", "a", 2)
    state.delete(f"session:{branch.id}", "b")
    state.set(f"session:{root.id}", "c", 3)
    assert said(root) == ["one", "two", "three", "yours"] and said(branch) == ["one", "two", "three", "mine"]
    assert state_of(ledger, root) == {"a": 1, "b": {"deep": [1]}, "c": 3} and state_of(ledger, branch) == {"a": 2}
    assert [entry["number"] for entry in branch.history(last=2)] == [3, 4] and branch.history.count() == 4
    assert branch.history.add("user", "next") == 5
    shown = branch.to_dict()
    assert (shown["query"], shown["user"], shown["tags"], shown["preferences"]) == ("q", "ana", ["x"], {"p": 1})


def test_what_the_parent_does_after_the_branch_is_not_seen_though_the_branch_was_not_used(
    ledger: Ledger, root: Any
) -> None:
    branch = root.branch("try")
    state = ledger.engine.state
    state.set(f"session:{root.id}", "a", "later")
    state.delete(f"session:{root.id}", "b")
    assert state_of(ledger, branch) == {"a": 1, "b": {"deep": [1]}}
    below = ledger.sessions.create().branch("of nothing")
    assert said(below) == [] and state_of(ledger, below) == {}


@pytest.mark.parametrize(
    "used",
    [
        lambda state, scope: state.get(scope, "a") == 1,
        lambda state, scope: state.get_versioned(scope, "a")[0] == 1,
        lambda state, scope: state.exists(scope, "b"),
        lambda state, scope: state.update(scope, "a", lambda n: n + 1) == 2,
        lambda state, scope: state.set(scope, "a", 9) and state.list_keys(scope) == ["a", "b"],
        lambda state, scope: state.delete(scope, "a") and state.list_keys(scope) == ["b"],
        lambda state, scope: state.clear_scope(scope) == 2 and state.list_keys(scope) == [],
        lambda state, scope: state.compare_and_set(scope, "a", state.get_versioned(scope, "a")[1], 5) > 0,
    ],
)
def test_any_first_use_of_a_branch_s_state_finds_it(ledger: Ledger, root: Any, used: Any) -> None:
    branch = root.branch("try")
    assert used(ledger.engine.state, f"session:{branch.id}")
    assert state_of(ledger, root) == {"a": 1, "b": {"deep": [1]}}


def test_branches_of_branches_share_what_those_above_them_share(ledger: Ledger, root: Any) -> None:
    first = root.branch("first")
    talk(first, "f1", "f2")
    second = first.branch("second")
    talk(second, "s1")
    early = second.branch("early", at=2)
    between = second.branch("between", at=4)
    talk(root, "later"), talk(first, "f3"), talk(early, "e1")
    assert said(second) == ["one", "two", "three", "f1", "f2", "s1"]
    assert said(early) == ["one", "two", "e1"] and said(between) == ["one", "two", "three", "f1"]
    assert [one["content"] for one in second.history.range(3, 5)] == ["three", "f1", "f2"]
    assert [one["content"] for one in second.history(last=4)] == ["three", "f1", "f2", "s1"]
    assert [one["content"] for one in second.history.window(max_entries=3)] == ["f1", "f2", "s1"]
    assert state_of(ledger, between) == {"a": 1, "b": {"deep": [1]}}
    assert [one.id for one in between.path()] == [root.id, first.id, second.id, between.id]
    assert [one.id for one in second.children()] == [early.id, between.id] and first.parent.id == root.id
    assert root.parent is None


def test_a_branch_at_a_checkpoint_is_as_of_then(ledger: Ledger, root: Any) -> None:
    then = root.checkpoint("then")
    time.sleep(0.01)
    talk(root, "later")
    ledger.engine.state.set(f"session:{root.id}", "a", 99)
    branch = root.branch("back", at=then)
    assert said(branch) == ["one", "two", "three"] and state_of(ledger, branch)["a"] == 1
    with pytest.raises(CheckpointNotFound):
        root.branch("x", at="99")


def test_a_branch_put_back_to_its_beginning_has_the_state_that_it_began_with(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    start = branch.checkpoint("start")
    ledger.engine.state.set(f"session:{branch.id}", "new", 1)
    undo = branch.restore(start)
    assert state_of(ledger, branch) == {"a": 1, "b": {"deep": [1]}}
    branch.restore(undo)
    assert state_of(ledger, branch) == {"a": 1, "b": {"deep": [1]}, "new": 1}


def test_a_branch_can_run_a_plan_of_its_own(ledger: Ledger, root: Any) -> None:
    from celeriac import Plan

    @ledger.agent("keep")
    def keep(request: Any, ctx: Any) -> Any:
        mine = ctx.state.of(f"session:{ctx.session.id}")
        mine.set("a", mine.get("a") + 1)
        return mine.get("a")

    branch = root.branch("try")
    branch.run(Plan("p", [step("k", "keep")]))
    assert ledger.run_to_end(branch) == "completed" and branch.result == 2
    assert state_of(ledger, root)["a"] == 1


def rows_and_bytes(ledger: Ledger) -> int:
    """Bytes of all rows of all tables, as text."""
    with ledger.engine.database.engine.connect() as connection:
        tables = "sessions session_documents history conversations checkpoints events branches state_values".split()
        rows = [row for name in tables for row in connection.execute(text(f"SELECT * FROM {name}"))]
    return sum(len(repr(tuple(row))) for row in rows)


def test_a_branch_of_ten_thousand_entries_costs_little(ledger: Ledger, root: Any) -> None:
    root.history.extend({"role": "user", "content": "x" * 500} for _ in range(10_000))
    ledger.engine.state.set_many(f"session:{root.id}", {f"k{n}": "x" * 100 for n in range(500)})
    root.branch("first")  # its checkpoint has the state, once for all branches
    before, took = rows_and_bytes(ledger), []
    for number in range(5):
        began = time.perf_counter()
        branch = root.branch(f"n{number}")
        took.append(time.perf_counter() - began)
    assert (rows_and_bytes(ledger) - before) / 5 < 10_000
    assert min(took) < 0.05  # 5 ms, where nobody else uses the machine: see bench/trees.py
    assert branch.history.count() == 10_003 and len(branch.history(last=50)) == 50
    assert ledger.engine.state.get(f"session:{branch.id}", "k499") == "x" * 100


def test_the_tree_shows_its_branches_and_which_one_is_current(ledger: Ledger, root: Any) -> None:
    first, second = root.branch("first", "a way", "ana"), root.branch("second")
    third = first.branch("third")
    talk(third, "x")
    found = ledger.sessions.tree(third.id)
    assert (
        found["id"] == root.id
        and found["current"]
        and [one["id"] for one in found["children"]]
        == [
            first.id,
            second.id,
        ]
    )
    child = found["children"][0]
    assert (child["name"], child["description"], child["creator"], child["at"]) == ("first", "a way", "ana", 3)
    assert child["children"][0]["entries"] == 4 and child["parent"] == root.id
    assert ledger.sessions.current(second.id).id == root.id
    assert ledger.sessions.switch(root.id, third.id).id == third.id
    assert ledger.sessions.current(root.id).id == third.id
    assert [one.data for one in root.stream(follow=False) if one.type == "session.switched"] == [
        {"from": root.id, "to": third.id}
    ]
    with pytest.raises(SessionError, match="is not in the tree of"):
        ledger.sessions.switch(root.id, ledger.sessions.create().id)
    third.cancel()
    ledger.sessions.delete(third.id)
    assert ledger.sessions.current(root.id).id == root.id


def test_a_tree_has_a_greatest_depth(make_driver: Callable[..., Any]) -> None:
    driver = make_driver(Ledger, tree_depth=2)
    second = driver.sessions.create().branch("1").branch("2")
    with pytest.raises(SessionError, match="is 2 branches below the root of its tree; the setting tree_depth allows 2"):
        second.branch("3")


def test_a_session_with_branches_goes_only_with_them(ledger: Ledger, root: Any) -> None:
    first = root.branch("first")
    second = first.branch("second")
    other = root.branch("other")
    root.cancel()
    with pytest.raises(SessionError, match=f"session {root.id} has 2 branches, the first {first.id}"):
        ledger.sessions.delete(root.id)
    assert said(second) == ["one", "two", "three"]
    ledger.sessions.delete(root.id, recursive=True)
    for one in (root, first, second, other):
        with pytest.raises(SessionNotFound):
            assert ledger.sessions.get(one.id).status


def test_nothing_of_a_tree_goes_while_something_runs_in_it(ledger: Ledger, root: Any) -> None:
    from celeriac import Plan

    branch = root.branch("first")
    branch.run(Plan("p", [step("a", "work", 1)]))
    root.cancel()
    with pytest.raises(SessionError, match=f"session {branch.id} is active"):
        ledger.sessions.delete(root.id, recursive=True)
    assert branch.status == "active" and root.children()[0].id == branch.id


def test_a_tree_that_is_its_own_ancestor_is_told_and_not_walked_for_ever(ledger: Ledger, root: Any) -> None:
    first = root.branch("first")
    second = first.branch("second")
    with ledger.engine.database.engine.begin() as connection:
        connection.execute(
            text("UPDATE branches SET parent = :low WHERE session_id = :up"), {"low": second.id, "up": first.id}
        )
    ledger.engine.trees._lines.clear()
    with pytest.raises(
        StorageError, match=f"the tree of session {second.id} is damaged: {second.id} is its own ancestor"
    ):
        second.path()
    for use in (second.history.count, lambda: ledger.sessions.tree(root.id), second.children):
        with contextlib.suppress(StorageError):
            use()
    with ledger.engine.database.engine.begin() as connection:
        connection.execute(text("UPDATE branches SET parent = root WHERE session_id = :up"), {"up": first.id})


def test_shared_entries_that_are_gone_are_told_of(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    talk(branch, "mine")
    with ledger.engine.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM history WHERE session_id = :one AND number = 2"), {"one": root.id})
    with pytest.raises(HistoryError, match=f"shares entries of {root.id}, of which some are gone"):
        branch.history()
    with ledger.engine.database.engine.begin() as connection:  # as if it had been taken out on purpose
        connection.execute(text("INSERT INTO history_gaps (session_id, gone) VALUES (:one, 1)"), {"one": root.id})
        left = "(SELECT sum(size) FROM history WHERE session_id = :one)"
        connection.execute(text(f"UPDATE conversations SET bytes = {left} WHERE session_id = :one"), {"one": root.id})
    assert said(branch) == ["one", "three", "mine"]


def test_entries_that_branches_share_are_neither_summed_up_nor_pruned(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    talk(branch, "mine")
    for one in (root, branch):
        with pytest.raises(HistoryError, match="is not summed up: it shares entries with branches"):
            one.history.compact(keep_last=0)
    root.prune("lru", keep=0)
    assert said(branch) == ["one", "two", "three", "mine"] and said(root) == ["one", "two", "three"]


def test_shared_entries_cannot_be_cleared(ledger: Ledger, root: Any) -> None:
    branch = root.branch("try")
    talk(branch, "mine")
    with pytest.raises(HistoryError, match="are shared by branches"):
        root.history.clear()
    assert branch.history.clear() == 1 and said(branch) == ["one", "two", "three"] == said(root)


@pytest.mark.parametrize("where", ["memory:", "file", "redis"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_histories_elsewhere_are_shared_too(
    make_driver: Callable[..., Any], where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = {"file": f"file://{tmp_path}/talks"}.get(where, where)
    if where == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url
    driver = make_driver(Ledger, history_url=url)
    root = driver.sessions.create()
    talk(root, "one", "two", "three")
    first = root.branch("first", at=2)
    first.history.add("system", "prompt")
    talk(first, "f1")
    second = first.branch("second")
    talk(root, "four"), talk(second, "s1")
    assert said(first) == ["one", "two", "prompt", "f1"] and said(second) == ["one", "two", "prompt", "f1", "s1"]
    assert [one["content"] for one in second.history.window(max_entries=2)] == ["prompt", "s1"]
    assert first.merge(second).entries == 1 and first.merge(second).entries == 0
    assert said(first) == ["one", "two", "prompt", "f1", "s1"]
    assert root.merge(first).entries == 3 and said(root) == ["one", "two", "three", "four", "prompt", "f1", "s1"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": " "}, "name of a branch is empty"),
        ({"name": "x" * 201}, "name of a branch has 201 characters"),
        ({"name": "x", "at": 9}, "has no entry 9 to branch at; it has 3"),
        ({"name": "x", "at": -1}, "has no entry -1"),
    ],
)
def test_what_is_no_branch_is_refused(ledger: Ledger, root: Any, given: Any, says: str) -> None:
    with pytest.raises(SessionError, match=says):
        root.branch(**given)
    assert root.children() == []


def test_what_is_no_session_is_one_clear_error(ledger: Ledger, root: Any) -> None:
    sessions = ledger.sessions
    odds: list[Any] = [None, "", "x", "\ud800", 0, 10**30, 1.5, True, b"x", [], {}, object()]
    for odd in odds:
        for ask in (
            lambda odd: root.merge(odd),
            lambda odd: root.attach(odd),
            lambda odd: sessions.tree(odd),
            lambda odd: sessions.current(odd),
            lambda odd: sessions.switch(root.id, odd),
            lambda odd: sessions.compare(odd, root.id),
            lambda odd: sessions.delete(odd),
            lambda odd: sessions.get(odd),
        ):
            with pytest.raises((SessionError, SessionNotFound), match="no branch|no session|no id|not in the tree"):
                ask(odd)
        if not isinstance(odd, str):
            with pytest.raises(SessionNotFound):
                root.detach(odd)


def test_what_is_no_point_to_branch_at_is_one_clear_error(ledger: Ledger, root: Any) -> None:
    for odd in (1.5, True, b"x", [], {}, object()):
        with pytest.raises(SessionError, match="allowed: the number of an entry, or the id of a checkpoint"):
            root.branch("x", at=odd)
        with pytest.raises(CheckpointNotFound, match="has no checkpoint"):
            root.restore(odd)
    assert root.children() == []
