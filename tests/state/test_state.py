"""State: what is read is what was written, by whom and when it should be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.errors import NotSerializable, SettingsError, StorageError, TooLarge
from celeriac.orchestration.state.scopes import Scope, ScopeError
from celeriac.orchestration.state.state import State
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.states import opening
from celeriac.storage.states.memory import MemoryBackend
from celeriac.storage.states.opening import open_backend
from celeriac.storage.states.protocol import StateError

Opened = Callable[..., State]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def test_a_value_is_read_back_and_others_see_nothing_of_it(state: State) -> None:
    state.set("agent:a", "k", {"n": [1, 2.5, None, "ä\0"]})
    assert state.get("agent:a", "k") == {"n": [1, 2.5, None, "ä\0"]}
    assert state.get(Scope.agent("a"), "k") == {"n": [1, 2.5, None, "ä\0"]}
    assert state.get("agent:b", "k", "none") == "none" and state.get("global", "k") is None
    assert state.exists("agent:a", "k") and not state.exists("agent:a", "other")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_json_is_read_back_equal_from_files_and_sqlite(opened: Opened, tmp_path: Path, value: Any) -> None:
    for url in (f"file://{tmp_path / 'files'}", f"sqlite:///{tmp_path / 'state.db'}"):
        if url not in _kept:
            _kept[url] = opened(url)
        _kept[url].set("global", "k", value)
        found = _kept[url].get("global", "k", consistent=True)
        assert found == value and repr(found) == repr(value)


_kept: dict[str, State] = {}


def test_what_is_got_can_be_changed_without_changing_what_is_kept(state: State) -> None:
    state.set("global", "k", {"list": []})
    state.get("global", "k")["list"].append(1)
    assert state.get("global", "k") == {"list": []}


def test_keys_are_deleted_listed_and_cleared(state: State) -> None:
    state.set_many("workflow:w", {f"user/{n}": n for n in range(5)} | {"other": 1})
    assert state.list_keys("workflow:w", "user/", limit=2) == ["user/0", "user/1"]
    assert state.list_keys("workflow:w", "user/", after="user/1") == ["user/2", "user/3", "user/4"]
    assert state.get_many("workflow:w", ["user/3", "none", "other", "user/3"]) == {"user/3": 3, "other": 1}
    assert state.delete("workflow:w", "other") and not state.delete("workflow:w", "other")
    assert state.get("workflow:w", "other") is None
    assert state.clear_scope("workflow:w") == 5 and state.list_keys("workflow:w") == []
    assert state.get("workflow:w", "user/3") is None


def test_update_starts_from_the_default_and_gives_the_new_value(state: State) -> None:
    default: list[int] = []

    def grow(value: list[int]) -> list[int]:
        value.append(len(value))
        return value

    assert state.update("global", "list", grow, default) == [0]
    assert state.update("global", "list", grow, default) == [0, 1]
    assert default == [] and state.get("global", "list") == [0, 1]


def test_no_update_by_threads_is_lost(state: State) -> None:
    def count() -> None:
        for _ in range(25):
            state.update("global", "n", lambda v: v + 1, 0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.get("global", "n") == 100


def test_compare_and_set_writes_once_and_knows_a_value_that_was_made_again(state: State) -> None:
    assert state.get_versioned("global", "k", "none") == ("none", 0)
    first = state.compare_and_set("global", "k", 0, "a")
    assert first and state.get_versioned("global", "k") == ("a", first)
    assert not state.compare_and_set("global", "k", 0, "b")
    state.delete("global", "k")
    again = state.compare_and_set("global", "k", 0, "a")
    assert again > first
    assert not state.compare_and_set("global", "k", first, "c") and state.get("global", "k") == "a"
    assert state.compare_and_set("global", "k", again, "d") > again and state.get("global", "k") == "d"


def test_a_function_of_update_must_not_write_state(state: State) -> None:
    with pytest.raises(StateError, match="return the new value"):
        state.update("global", "k", lambda v: state.set("global", "other", 1))
    assert state.list_keys("global") == []
    state.set("global", "k", 1)


def test_a_function_that_raises_changes_nothing(state: State) -> None:
    state.set("global", "k", 1)
    with pytest.raises(ZeroDivisionError):
        state.update("global", "k", lambda v: v / 0)
    assert state.get("global", "k") == 1
    state.update("global", "k", lambda v: v + 1)
    assert state.get("global", "k") == 2


@pytest.mark.parametrize("value", [{"a": {"b": object()}}, {"a": {"b": float("nan")}}, {"a": {"b": {1: 2}}}])
def test_what_is_no_json_is_refused_with_its_path_and_nothing_is_written(
    opened: Opened, tmp_path: Path, value: Any
) -> None:
    state = opened(f"sqlite:///{tmp_path / 'state.db'}")
    with pytest.raises(NotSerializable, match=r"global 'k'\.a\.b"):
        state.set("global", "k", value)
    with pytest.raises(NotSerializable, match=r"global 'k'\.a\.b"):
        state.set_many("global", {"fine": 1, "k": value})
    with pytest.raises(NotSerializable):
        state.update("global", "k", lambda _: value)
    assert state.list_keys("global") == []


def test_a_value_over_the_limit_is_refused(opened: Opened, tmp_path: Path) -> None:
    small = opened(f"sqlite:///{tmp_path / 'state.db'}", max_bytes=100)
    small.set("global", "k", "x" * 98)
    with pytest.raises(TooLarge, match="global 'k' is 101 bytes of JSON; the limit is 100 bytes"):
        small.set("global", "k", "x" * 99)
    assert small.get("global", "k") == "x" * 98


@pytest.mark.parametrize("scope, key", [("agent:", "k"), ("nobody", "k"), ("global", ""), ("global", "a\0b")])
def test_what_is_no_scope_or_key_is_refused_by_every_operation(opened: Opened, scope: str, key: str) -> None:
    state = opened("memory:")
    calls: list[Callable[[], Any]] = [
        lambda: state.get(scope, key),
        lambda: state.set(scope, key, 1),
        lambda: state.delete(scope, key),
        lambda: state.exists(scope, key),
        lambda: state.get_many(scope, [key]),
        lambda: state.set_many(scope, {key: 1}),
        lambda: state.update(scope, key, lambda v: v),
        lambda: state.compare_and_set(scope, key, 0, 1),
        lambda: state.get_versioned(scope, key),
    ]
    for call in calls:
        with pytest.raises(ScopeError):
            call()


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_consistent_read_sees_what_another_process_has_just_written(two: tuple[State, State]) -> None:
    one, other = two
    for number in range(30):
        one.set("global", "k", number)
        assert other.get("global", "k", consistent=True) == number
        assert other.get("global", "k") == number, "and what was seen once is not unseen"


def test_other_reads_are_at_most_100_ms_behind(two: tuple[State, State]) -> None:
    one, other = two
    one.set("global", "k", 0)
    for number in range(1, 6):
        assert other.get("global", "k") == number - 1
        if number % 2:
            one.set("global", "k", number)
        else:
            one.update("global", "k", lambda v: v + 1)
        written = time.monotonic()
        while other.get("global", "k") != number:
            assert time.monotonic() < written + 0.1
    one.delete("global", "k")
    time.sleep(0.1)
    assert other.get("global", "k") is None
    one.set("global", "k", "again")
    time.sleep(0.1)
    assert other.get("global", "k") == "again"
    one.clear_scope("global")
    time.sleep(0.1)
    assert other.get("global", "k") is None


def test_ones_own_writes_are_read_at_once(two: tuple[State, State]) -> None:
    one, other = two
    for number in range(20):
        other.set("global", "k", -1)
        one.set("global", "k", number)
        assert one.get("global", "k") == number
        one.update("global", "k", lambda v: v + 100)
        assert one.get("global", "k") == number + 100
        one.delete("global", "k")
        assert one.get("global", "k") is None


# -- tenants and places ------------------------------------------------------------------------------------------------


def test_tenants_see_nothing_of_each_other(state: State) -> None:
    one, other = state.of_tenant("acme/x"), state.of_tenant("acme")
    state.set("global", "k", "nobody's")
    one.set("global", "k", "one's")
    assert other.get("global", "k") is None and other.list_keys("global") == []
    other.set("custom:x/global", "k", "other's")
    assert (one.get("global", "k"), state.get("global", "k")) == ("one's", "nobody's")
    assert one.clear_scope("global") == 1
    assert state.get("global", "k") == "nobody's" and other.get("custom:x/global", "k") == "other's"
    assert state.of_tenant("").get("global", "k") == "nobody's"


def test_access_is_asked_before_anything_is_done(opened: Opened) -> None:
    asked: list[Any] = []

    def access(action: str, scope: Scope, keys: Any) -> None:
        asked.append((action, str(scope), tuple(keys)))
        if action == "write":
            raise PermissionError("no")

    guarded = opened("memory:").with_access(access)
    assert guarded.get("agent:a", "k") is None
    for call in (
        lambda: guarded.set("agent:a", "k", 1),
        lambda: guarded.update("agent:a", "k", lambda v: 1),
        lambda: guarded.delete("agent:a", "k"),
        lambda: guarded.clear_scope("agent:a"),
    ):
        with pytest.raises(PermissionError):
            call()
    assert guarded.list_keys("agent:a") == []
    assert asked[0] == ("read", "agent:a", ("k",)) and ("write", "agent:a", ()) in asked


def test_a_backend_of_another_package_is_opened_by_its_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, value = "mine", "mypackage.state:MyBackend"

        @staticmethod
        def load() -> Callable[[str], Any]:
            return lambda url: MemoryBackend() if url == "mine://here" else "no backend"

    def entry_points(group: str, name: str = "mine") -> list[type[Entry]]:
        return [Entry] if (group, name) == ("celeriac.state_backends", "mine") else []

    monkeypatch.setattr(opening, "entry_points", entry_points)
    database, blobs = Database(f"sqlite:///{tmp_path / 'x.db'}"), BlobStore(tmp_path / "blobs")
    assert isinstance(open_backend("mine://here", database, blobs, 1), MemoryBackend)
    with pytest.raises(SettingsError, match="mypackage.state:MyBackend .* gave no Backend but 'no backend'"):
        open_backend("mine://elsewhere", database, blobs, 1)
    with pytest.raises(SettingsError, match=r"there are: .*memory:.*mine: \(mypackage.state:MyBackend\)"):
        open_backend("other://here", database, blobs, 1)


def test_rocksdb_is_for_one_process_at_a_time_and_says_so(tmp_path: Path, opened: Opened) -> None:
    url = f"rocksdb://{tmp_path / 'rocks'}"
    one, other = opened(url), opened(url)
    one.set("global", "k", 1)
    with pytest.raises(StorageError, match=r"cannot be opened \(by one process at a time\)"):
        other.get("global", "k")
    one.close()
    assert other.get("global", "k") == 1


def test_a_state_can_be_used_again_after_it_was_closed(state: State) -> None:
    state.set("global", "k", 1)
    time.sleep(0.06)
    assert state.get("global", "k") == 1
    state.close()
    if state.capabilities.durable:
        assert state.get("global", "k") == 1
    state.set("global", "k", 2)
    assert state.get("global", "k") == 2


@pytest.mark.parametrize("url", ["nosuch://x", "nosuch", "file:", "file://", "memory://somewhere", "sqlite://"])
def test_a_url_without_a_backend_is_one_clear_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="state_url = "):
        open_backend(url, Database(f"sqlite:///{tmp_path / 'x.db'}"), BlobStore(tmp_path / "blobs"), 1)
