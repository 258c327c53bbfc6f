"""Trees whose histories or keyed state live outside of the database: as in it, and whole whoever is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac.errors import SessionError
from celeriac.orchestration import rotating
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.sessions import Sessions
from celeriac.orchestration.trees import carrying, merging, parts, taking
from celeriac.storage.histories.memory import MemoryPlace
from celeriac.storage.histories.protocol import HistoryConflict, Item
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing
from celeriac.storage.states.memory import MemoryBackend
from trees.killing import every_death
from trees.ledger import Ledger
from trees.test_branches import said, state_of, talk

Make = Callable[..., Ledger]


def url_of(where: str, folder: Path, request: Any) -> str:
    """The URL of a place of that kind, empty."""
    if where == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.client().flushall()
        return server.url
    if where == "rocksdb":
        pytest.importorskip("rocksdict")
    forms = {"file": f"file://{folder}/own", "rocksdb": f"rocksdb://{folder}/own", "sqlite": f"sqlite:///{folder}/s.db"}
    return forms.get(where, where)


@pytest.fixture
def make(make_driver: Callable[..., Any]) -> Iterator[Make]:
    """Makes ledgers; their state is closed after the test."""
    made: list[Ledger] = []

    def new(**settings: Any) -> Ledger:
        made.append(make_driver(Ledger, **settings))
        return made[-1]

    yield new
    for one in made:
        one.engine.state.close()


@pytest.fixture(params=["memory:", "file", "redis", "rocksdb", "sqlite"])
def away(request: pytest.FixtureRequest, make: Make, tmp_path: Path) -> Ledger:
    """A ledger whose keyed state lives elsewhere."""
    return make(state_url=url_of(request.param, tmp_path, request))


def fill(ledger: Ledger, **values: Any) -> Any:
    """A session in which something was said, with these values."""
    session = ledger.sessions.create("q")
    talk(session, "one", "two")
    change(ledger, session, **values)
    return session


def change(ledger: Ledger, session: Any, **values: Any) -> None:
    """Set keys of a session; None deletes one."""
    for key, value in values.items():
        if value is None:
            ledger.engine.state.delete(f"session:{session.id}", key)
        else:
            ledger.engine.state.set(f"session:{session.id}", key, value)


def scopes_of(ledger: Ledger) -> list[str]:
    """The scopes in which something is kept."""
    backend: Any = ledger.engine.state.places.backend
    return [scope for scope in backend.scopes() if backend.keys(scope)]


# -- as in the database ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_branch_takes_the_state_along_and_goes_its_own_way(away: Ledger) -> None:
    root = fill(away, a=1, b={"deep": [1]})
    away.engine.state.set(f"session:{root.id}", "soon", 7, ttl=50)
    away.engine.state.set(f"session:{root.id}", "passing", 7, state_class="ephemeral")
    branch = root.branch("try")
    assert state_of(away, branch) == {"a": 1, "b": {"deep": [1]}, "soon": 7}
    backend: Any = away.engine.state.places.backend
    assert 40 < backend.left(f"session:{branch.id}", ["a", "soon"])["soon"] <= 50
    (told,) = [one.data for one in root.stream(follow=False) if one.type == "session.branched"]
    assert told["state"] == {"keys": 3, "left": 0}
    change(away, branch, a=2, b=None)
    change(away, root, c=3)
    assert state_of(away, branch) == {"a": 2, "soon": 7}
    now = state_of(away, root)
    assert now.pop("passing") == 7 and now == {"a": 1, "b": {"deep": [1]}, "c": 3, "soon": 7}
    below = branch.branch("below")
    assert state_of(away, below) == {"a": 2, "soon": 7}
    assert state_of(away, away.sessions.create().branch("of nothing")) == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_merge_brings_what_has_changed_and_keeps_conflicts_until_they_are_resolved(away: Ledger) -> None:
    root = fill(away, a=1, b=1, c=1, d=1, e=1)
    branch = root.branch("try")
    change(away, branch, a=2, b=None, c=10, d=None, e=10, new={"x": 1})
    change(away, root, c=20, d=20, e=20, mine=1)
    talk(branch, "b1")
    found = root.merge(branch)
    assert (found.entries, found.keys, len(found.conflicts)) == (1, ["a", "b", "new"], 3)
    assert state_of(away, root) == {"a": 2, "c": 20, "d": 20, "e": 20, "mine": 1, "new": {"x": 1}}
    open_ = {one["key"]: one for one in root.merge_conflicts()}
    assert [open_["c"][side] for side in ("base", "ours", "theirs")] == [1, 20, 10] and open_["d"]["theirs"] is None
    change(away, branch, c=11)
    again = root.merge(branch)
    assert again.conflicts == [open_["c"]["id"]]
    backend: Any = away.engine.state.places.backend
    assert len(backend.keys(f"session:{root.id}:tree", "side:")) == 5
    (c,) = [one for one in root.merge_conflicts() if one["key"] == "c"]
    assert [c[side] for side in ("base", "ours", "theirs")] == [1, 20, 11]
    assert root.resolve(c["id"], lambda base, ours, theirs: [base, ours, theirs]) == [1, 20, 11]
    assert root.resolve(open_["d"]["id"], "theirs") is None and root.resolve(open_["e"]["id"], "ours", by="lea") == 20
    assert state_of(away, root) == {"a": 2, "c": [1, 20, 11], "e": 20, "mine": 1, "new": {"x": 1}}
    with pytest.raises(SessionError, match="has resolved merge conflict"):
        root.resolve(c["id"], "ours")
    nothing = root.merge(branch)
    assert (nothing.entries, nothing.keys, nothing.conflicts) == (0, [], [])
    change(away, branch, e=1)  # as it was when the branch began, but not when it was merged last
    assert len(root.merge(branch).conflicts) == 1
    resolved = {one["key"]: one for one in root.merge_conflicts(unresolved=False) if one["resolved"]}
    assert resolved["c"]["theirs"] == 11 and resolved["e"]["resolution"] == {"choice": "ours", "by": "lea"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_branch_at_an_entry_has_the_state_of_now_and_one_at_a_checkpoint_is_refused(away: Ledger) -> None:
    root = fill(away, a=1)
    then = root.checkpoint("then")
    early = root.branch("early", at=1)
    assert said(early) == ["one"] and state_of(away, early) == {"a": 1}
    with pytest.raises(SessionError, match="cannot be branched at a checkpoint: its keyed state lives outside"):
        root.branch("back", at=then)
    assert [one.id for one in root.children()] == [early.id]
    away.engine.state.clear_scope(f"session:{root.id}")
    assert said(root.branch("back", at=then)) == ["one", "two"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nothing_stays_of_a_tree_that_is_deleted(away: Ledger) -> None:
    root = fill(away, a=1)
    branch = root.branch("try")
    change(away, branch, a=2)
    change(away, root, a=3)
    root.merge(branch)
    assert len(scopes_of(away)) == 4
    for one in (branch, root):
        one.cancel()
        away.sessions.delete(one.id)
    assert scopes_of(away) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_trees_keep_elsewhere_is_archived_with_their_sessions(make: Make, tmp_path: Path) -> None:
    ledger = make(state_url=url_of("file", tmp_path, None), history_url=f"file://{tmp_path}/said")
    engine = ledger.engine
    archives = Archives(engine, engine.caller, ledger.sessions)
    root = fill(ledger, a=1, b=1, c=1)
    branch = root.branch("try")
    change(ledger, branch, a=2)
    change(ledger, root, a=3)
    (number,) = root.merge(branch).conflicts
    change(ledger, branch, b=2, c=2)
    change(ledger, root, c=3)
    talk(branch, "b1")
    for one in (branch, root):
        one.complete()
    branch.archive()
    with pytest.raises(SessionError, match=f"session {branch.id} is archived and cannot be merged any more"):
        root.merge(branch)
    assert state_of(ledger, root) == {"a": 3, "b": 1, "c": 3} and root.merge_conflicts()[0]["theirs"] == 2
    root.archive()
    assert scopes_of(ledger) == []
    for one in (root, branch):
        archives.restore(one.id)
    found = root.merge(branch)
    assert (found.entries, found.keys, len(found.conflicts)) == (1, ["b"], 1)
    assert [one["key"] for one in root.merge_conflicts()] == ["a", "c"]
    assert root.resolve(number, "theirs") == 2 and state_of(ledger, root) == {"a": 2, "b": 2, "c": 3}


def test_a_merge_of_many_values_comes_in_parts(make: Make) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger)
    scope = f"session:{root.id}"
    ledger.engine.state.set_many(scope, {f"k{n}": n for n in range(2500)})
    branch = root.branch("try")
    assert len(state_of(ledger, branch)) == 2500
    ledger.engine.state.set_many(f"session:{branch.id}", {f"k{n}": -n for n in range(1, 2500)})
    talk(branch, "b1")
    found = root.merge(branch)
    assert found.entries == 1 and len(found.keys) == 2499
    assert state_of(ledger, root) == {f"k{n}": -n for n in range(2500)} and said(root) == ["one", "two", "b1"]
    told = [one.data for one in root.stream(follow=False) if one.type == "session.merged"]
    assert [one["entries"] for one in told] == [1, 0, 0] and sum(len(one["keys"]) for one in told) == 2499


def test_what_the_parent_changes_while_it_is_merged_is_not_overwritten(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1, b=1, c=1)
    branch = root.branch("try")
    change(ledger, branch, a=2, b=2, c=2)
    change(ledger, root, c=3)
    begin = parts.Merging._begin

    def late(self: Any, part: Any) -> None:
        if state_of(ledger, root)["a"] == 1:
            change(ledger, root, a=9)
        begin(self, part)

    monkeypatch.setattr(parts.Merging, "_begin", late)
    found = root.merge(branch)
    assert found.keys == ["b"] and len(found.conflicts) == 2 and state_of(ledger, root) == {"a": 9, "b": 2, "c": 3}
    backend: Any = ledger.engine.state.places.backend
    assert len(backend.keys(f"session:{root.id}:tree")) == 4
    assert backend.keys(f"session:{branch.id}:tree") == ["base:a", "base:b", "base:c"]


def test_a_branch_that_is_deleted_while_it_is_merged_takes_nothing_with_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1, b=1)
    branch = root.branch("try")
    change(ledger, branch, a=2)
    compared = parts.Merging._compared

    def late(self: Any, keys: Any) -> Any:
        branch.cancel()
        ledger.sessions.delete(branch.id)
        return compared(self, ["a", "b"])

    with monkeypatch.context() as patch:
        patch.setattr(parts.Merging, "_compared", late)
        with pytest.raises(SessionError, match=f"session {branch.id} is deleted and cannot be merged any more"):
            root.merge(branch)
    assert state_of(ledger, root) == {"a": 1, "b": 1}


class Untold(MemoryBackend):
    """A backend that cannot tell how long values last."""

    left = None  # type: ignore[assignment]


def test_values_of_a_place_that_cannot_tell_how_long_they_last_stay_behind_and_are_counted(make: Make) -> None:
    ledger = make(state_url="memory:")
    ledger.engine.state.places.backend = Untold()
    root = fill(ledger, a=1)
    ledger.engine.state.set(f"session:{root.id}", "soon", 7, ttl=50)
    branch = root.branch("try")
    (told,) = [one.data for one in root.stream(follow=False) if one.type == "session.branched"]
    assert told["state"] == {"keys": 1, "left": 1} and state_of(ledger, branch) == {"a": 1}
    ledger.engine.state.set(f"session:{branch.id}", "a", 2, ttl=50)
    assert root.merge(branch).keys == [] and state_of(ledger, root) == {"a": 1, "soon": 7}


def test_a_branch_that_cannot_be_made_leaves_nothing(make: Make) -> None:
    ledger = make(state_url="memory:", tree_depth=1)
    root = fill(ledger, a=1)
    branch = root.branch("try")
    before = scopes_of(ledger)
    with pytest.raises(SessionError, match="tree_depth"):
        branch.branch("too deep")
    assert scopes_of(ledger) == before


def test_a_branch_whose_copying_was_given_up_is_not_made(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1)
    copy = taking._copy

    def slow(source: Any, target: Any) -> Any:
        found = copy(source, target)
        monkeypatch.setattr(taking, "_copy", copy)
        monkeypatch.setattr(taking, "_LATE", -1.0)
        assert state_of(ledger, root.branch("other")) == {"a": 1}  # takes the first one for dead
        return found

    monkeypatch.setattr(taking, "_copy", slow)
    with pytest.raises(SessionError, match="copying its keyed state took over an hour"):
        root.branch("try")
    (other,) = root.children()
    assert scopes_of(ledger) == sorted([f"session:{root.id}", f"session:{other.id}", f"session:{other.id}:tree"])


SECRET = "Zxsecretword"
OLD = Keys("old", {}).with_key("old", new_key())
BOTH = OLD.with_key("new", new_key())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_kept_elsewhere_is_sealed_and_takes_new_keys(make: Make, tmp_path: Path) -> None:
    def opened(keys: Keys) -> Ledger:
        file = tmp_path / f"{len(keys.secrets)}{keys.active}.toml"
        keyfile.write(file, keys)
        return make(state_url=f"file://{tmp_path}/own", keys_file=str(file), encrypt="all")

    ledger = opened(OLD)
    root = fill(ledger, a=SECRET, b=f"{SECRET} b")
    branch = root.branch("try")
    change(ledger, branch, a=f"{SECRET} theirs", b=f"{SECRET} new")
    change(ledger, root, a=f"{SECRET} ours")
    root.merge(branch)
    kept = [file.read_bytes() for file in (tmp_path / "own").rglob("*.json")]
    assert len(kept) == 8 and not any(SECRET.encode() in one for one in kept)
    assert rotating.rotate(opened(BOTH).engine, KeyRing(BOTH)).refused == []
    later = opened(Keys("new", {"new": BOTH.secrets["new"]}, OLD.hash))
    there = later.sessions.get(root.id)
    (conflict,) = there.merge_conflicts()
    assert [conflict[side] for side in ("base", "theirs")] == [SECRET, f"{SECRET} theirs"]
    assert there.merge(branch.id).keys == []
    assert there.resolve(conflict["id"], "theirs") == f"{SECRET} theirs"


# -- who is killed -----------------------------------------------------------------------------------------------------


@pytest.fixture
def talks(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where histories live."""
    return url_of(request.param, tmp_path, request)


@pytest.mark.parametrize(
    ("database_url", "talks", "meanwhile"),
    [
        ("sqlite", "file", False),
        ("sqlite", "file", True),
        ("sqlite", "redis", True),
        ("postgresql", "redis", False),
    ],
    indirect=["database_url", "talks"],
)
def test_entries_of_a_merge_that_was_killed_come_once(
    make: Make, tmp_path: Path, database_url: str, talks: str, meanwhile: bool
) -> None:
    rules = {"fields": [{"path": "pin", "action": "encrypt"}]}
    keyfile.write(tmp_path / "keys.toml", OLD)
    settings: dict[str, Any] = {"history_url": talks, "guard_rules": rules, "keys_file": str(tmp_path / "keys.toml")}
    ledger = make(**settings)
    found: list[Any] = []

    def merge(arm: Callable[[], None]) -> None:
        child = Ledger(database_url, tmp_path / "data", **settings)
        root, branch = (child.sessions.get(one.id) for one in found[-1])
        arm()
        root.merge(branch)

    def next_() -> None:
        root = fill(ledger)
        branch = root.branch("try")
        talk(branch, "b1", "b2")
        branch.history.add("user", {"pin": 7})
        found.append((root, branch))

    next_()
    for nth in every_death(merge):
        root, branch = found[-1]
        there = said(root)[2:]
        assert [one for one in there if isinstance(one, str)] in ([], ["b1", "b2"])
        if meanwhile and nth:
            talk(root, "x"), talk(branch, "b3")
        root.merge(branch)
        words = [one if isinstance(one, str) else root.reveal(one)["pin"] for one in said(root)]
        expected = ["one", "two", "b1", "b2", 7]
        if meanwhile and nth:
            expected = [*expected, "x", "b3"] if there else ["one", "two", "x", "b1", "b2", 7, "b3"]
        assert words == expected, nth
        assert root.merge(branch).entries == 0
        told = [one.data["entries"] for one in root.stream(follow=False) if one.type == "session.merged"]
        assert sum(told) == len(expected) - 2 - (meanwhile and nth > 0)
        next_()


def test_who_merges_late_finds_that_another_has(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make(history_url="memory:")
    root = fill(ledger)
    branch = root.branch("try")
    talk(branch, "b1")
    append = carrying._append

    def late(*given: Any) -> None:
        monkeypatch.setattr(carrying, "_append", append)
        assert root.merge(branch).entries == 1
        talk(root, "x")
        append(*given)

    monkeypatch.setattr(carrying, "_append", late)
    assert root.merge(branch).entries == 0
    assert said(root) == ["one", "two", "b1", "x"]


class Unconditional(MemoryPlace):
    """A place that cannot append on a condition."""

    append_after = None  # type: ignore[assignment]


def test_a_place_of_one_s_own_without_conditions_brings_entries_once_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(history_url="memory:")
    ledger.engine.conversations = Unconditional()
    root = fill(ledger)
    branch = root.branch("try")
    talk(branch, "b1")
    append = MemoryPlace.append

    def other(self: Any, name: str, items: Any) -> Any:
        append(self, name, list(items))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryPlace, "append", other)
        with pytest.raises(KeyboardInterrupt):
            root.merge(branch)
    assert said(root) == ["one", "two", "b1"] and root.merge(branch).entries == 1
    assert said(root) == ["one", "two", "b1"]
    with pytest.raises(HistoryConflict):
        carrying._append(ledger.engine, root.id, branch.id, carrying.Due(2, 3, 2))
    ledger.engine.conversations.append(root.id, [Item(b'{"role":"user","content":"y"}')])
    assert root.merge(branch).entries == 0


@pytest.fixture(params=["file", "redis", "rocksdb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where keyed state lives."""
    return url_of(request.param, tmp_path, request)


@pytest.mark.parametrize(("database_url", "place"), [("sqlite", "file"), ("postgresql", "redis")], indirect=True)
def test_a_branch_that_was_killed_is_there_with_all_of_its_state_or_not_at_all(
    make: Make, tmp_path: Path, database_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(state_url=place)
    root = fill(ledger)
    values = {f"k{n}": n for n in range(30)}
    ledger.engine.state.set_many(f"session:{root.id}", values)

    def branch(arm: Callable[[], None]) -> None:
        child = Ledger(database_url, tmp_path / "data", state_url=place)
        child.sessions.get(root.id).branch("try").history.count()
        arm()
        child.sessions.get(root.id).branch("try")

    ledger.engine.state.close()
    for _ in every_death(branch):
        assert all(state_of(ledger, one) == values for one in root.children())
        ledger.engine.state.close()
    monkeypatch.setattr(taking, "_LATE", -1.0)
    root.branch("last")
    expected = [f"session:{one.id}{kept}" for one in root.children() for kept in ("", ":tree")]
    assert scopes_of(ledger) == sorted([f"session:{root.id}", *expected])


def test_what_a_killed_branch_has_left_goes_with_its_parent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1)
    monkeypatch.setattr(taking, "give_up", lambda *given: None)
    monkeypatch.setattr(taking, "finish", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        root.branch("try")
    assert len(scopes_of(ledger)) == 3
    root.cancel()
    ledger.sessions.delete(root.id)
    assert scopes_of(ledger) == []


@pytest.mark.parametrize(
    ("database_url", "place", "meanwhile"),
    [
        ("sqlite", "file", False),
        ("sqlite", "file", True),
        ("sqlite", "rocksdb", False),
        ("sqlite", "redis", True),
        ("postgresql", "redis", True),
    ],
    indirect=["database_url", "place"],
)
def test_state_of_a_merge_that_was_killed_comes_once_and_whole(
    make: Make, tmp_path: Path, database_url: str, place: str, meanwhile: bool
) -> None:
    ledger = make(state_url=place)
    found: list[Any] = []

    def merge(arm: Callable[[], None]) -> None:
        child = Ledger(database_url, tmp_path / "data", state_url=place)
        root, branch = (child.sessions.get(one.id) for one in found[-1])
        arm()
        root.merge(branch)

    def next_() -> None:
        root = fill(ledger, a=1, b=1, c=1, d=1)
        branch = root.branch("try")
        talk(branch, "b1")
        change(ledger, branch, a=2, b=None if meanwhile else 2, c=10, new=1)
        change(ledger, root, c=20)
        found.append((root, branch))
        ledger.engine.state.close()

    before = {"a": 1, "b": 1, "c": 20, "d": 1}
    after = {"a": 2, "c": 20, "d": 1, "new": 1} if meanwhile else {"a": 2, "b": 2, "c": 20, "d": 1, "new": 1}
    next_()
    for nth in every_death(merge):
        root, branch = found[-1]
        there = state_of(ledger, root)
        assert there in (before, after), nth
        if meanwhile:
            change(ledger, root, new=5)  # somebody goes on with what is there
        root.merge(branch)
        clash = meanwhile and there == before
        assert state_of(ledger, root) == {**after, "new": 5 if meanwhile else 1}, nth
        assert [one["key"] for one in root.merge_conflicts()] == ["c", "new"][: 1 + clash], nth
        (c,) = [one for one in root.merge_conflicts() if one["key"] == "c"]
        assert [c[side] for side in ("base", "ours", "theirs")] == [1, 20, 10]
        told = [one.data for one in root.stream(follow=False) if one.type == "session.merged"]
        assert sorted(key for one in told for key in one["keys"]) == ["a", "b", "new"][: 3 - clash], nth
        assert sum(one["entries"] for one in told) == 1
        events = root.last_event()
        root.merge(branch)
        assert root.last_event() == events
        change(ledger, branch, a=1)  # as it was when the branch began
        assert root.merge(branch).keys == ["a"], nth
        next_()


def test_a_deletion_whose_merge_was_broken_off_is_recorded_by_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1)
    branch = root.branch("try")
    change(ledger, branch, a=None)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merging, "_merge_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            root.merge(branch)
    assert state_of(ledger, root) == {} and root.merge(branch).keys == ["a"]
    change(ledger, branch, a=1)
    assert root.merge(branch).keys == ["a"] and state_of(ledger, root) == {"a": 1}


def test_trees_of_a_tenant_keep_apart_what_they_keep_elsewhere(make: Make) -> None:
    ledger = make(state_url="memory:")
    caller = Caller(tenant="acme/x")
    root = Sessions(ledger.engine, caller=caller).create("q")
    own, others = ledger.engine.state.of_tenant("acme/x"), ledger.engine.state
    own.set(f"session:{root.id}", "a", 1)
    others.set(f"session:{root.id}", "a", "another's")
    branch = root.branch("try")
    assert own.get(f"session:{branch.id}", "a") == 1 and others.list_keys(f"session:{branch.id}") == []
    own.set(f"session:{branch.id}", "a", 2)
    own.set(f"session:{root.id}", "a", 3)
    (number,) = root.merge(branch).conflicts
    assert root.resolve(number, "theirs") == 2 == own.get(f"session:{root.id}", "a")
    for one in (branch, root):
        one.cancel()
        Sessions(ledger.engine, caller=caller).delete(one.id)
    assert scopes_of(ledger) == [f"session:{root.id}"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_values_that_end_by_themselves_are_merged_with_the_time_that_they_have_left(make: Make) -> None:
    ledger = make(state_url="memory:")
    root = fill(ledger, a=1)
    state = ledger.engine.state
    state.set(f"session:{root.id}", "short", 1, ttl=0.4)
    branch = root.branch("try")
    state.set(f"session:{branch.id}", "long", 1, ttl=60)
    assert root.merge(branch).keys == ["long"]
    backend: Any = state.places.backend
    assert 50 < backend.left(f"session:{root.id}", ["long"])["long"] <= 60
    time.sleep(0.45)
    change(ledger, root, short=5)
    assert state_of(ledger, branch) == {"a": 1, "long": 1}
    found = root.merge(branch)
    assert (found.keys, found.conflicts) == ([], []) and state_of(ledger, root) == {"a": 1, "long": 1, "short": 5}
