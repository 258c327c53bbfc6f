"""State classes: what each demands of a value, and where the value lies."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac.errors import KeyMissing, SchemaError, SealBroken
from celeriac.orchestration.schemas import Schema, Schemas, String
from celeriac.orchestration.state.classes import Rules, Values
from celeriac.orchestration.state.state import State
from celeriac.storage.keys.sealing import KeyRing
from celeriac.storage.states.protocol import StateError, Write

Opened = Callable[..., State]
SECRET = "correct horse battery staple"


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    """A key ring with one key."""
    import base64

    class NoFile:
        keys_file = ""

    found = KeyRing.load(NoFile(), {"CELERIAC_KEYS": "k1:" + base64.b64encode(bytes(range(32))).decode()})
    assert found is not None
    return found


@pytest.fixture
def schemas() -> Schemas:
    """A schema `person`, bound to `agent:a` keys that start with `person`."""
    made = Schemas()
    made.add(Schema("person", "1.0.0", {"name": String()}))
    made.bind("agent:a", "person*", "person")
    return made


def everything(folder: Path) -> bytes:
    """All bytes of all files below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture(params=["sqlite", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"sqlite": f"sqlite:///{tmp_path / 'state.db'}", "file": f"file://{tmp_path / 'files'}"}[request.param]


def test_a_sensitive_value_lies_nowhere_in_the_clear(opened: Opened, url: str, tmp_path: Path, ring: KeyRing) -> None:
    state = opened(url, values=Values(1 << 24, ring))
    state.set("agent:a", "k", {"password": SECRET}, state_class="sensitive")
    state.update("agent:a", "k", lambda v: v | {"again": SECRET})
    version = state.get_versioned("agent:a", "k")[1]
    assert state.compare_and_set("agent:a", "k", version, {"password": SECRET, "n": 1})
    assert state.get("agent:a", "k") == {"password": SECRET, "n": 1}
    state.set("agent:a", "big", SECRET * 100_000, state_class="sensitive")
    assert state.get("agent:a", "big") == SECRET * 100_000
    state.delete("agent:a", "big")
    state.close()
    assert SECRET.encode() not in everything(tmp_path)
    assert opened(url, values=Values(1 << 24, ring)).get("agent:a", "k") == {"password": SECRET, "n": 1}


def test_without_a_key_a_sensitive_value_is_refused_and_nothing_is_written(opened: Opened, url: str) -> None:
    state = opened(url, rules=["agent:*|token*=sensitive"])
    for call in (
        lambda: state.set("agent:a", "k", SECRET, state_class="sensitive"),
        lambda: state.set("agent:a", "token", SECRET),
        lambda: state.set_many("agent:a", {"fine": 1, "token": SECRET}),
        lambda: state.update("agent:a", "token", lambda v: SECRET),
        lambda: state.compare_and_set("agent:a", "token", 0, SECRET),
    ):
        with pytest.raises(StateError, match=r"sensitive.*no key.*keys_file or CELERIAC_KEYS"):
            call()
    assert state.list_keys("agent:a") == []


def test_a_sealed_value_does_not_open_without_its_key_or_in_another_place(
    opened: Opened, url: str, ring: KeyRing
) -> None:
    state = opened(url, values=Values(1 << 24, ring))
    state.set("agent:a", "k", SECRET, state_class="sensitive")
    with pytest.raises(KeyMissing, match="agent:a 'k' is sealed"):
        opened(url).get("agent:a", "k")
    backend = state.places.backend
    entry = backend.get("agent:a", ["k"])["k"]
    for scope, key in (("agent:a", "other"), ("agent:b", "k")):
        backend.put(scope, [Write(key, entry.body, entry.meta)])
        with pytest.raises(SealBroken):
            state.get(scope, key, consistent=True)
    backend.put(state.of_tenant("t").place_of("agent:a"), [Write("k", entry.body, entry.meta)])
    with pytest.raises(SealBroken):
        state.of_tenant("t").get("agent:a", "k")
    assert state.get("agent:a", "k") == SECRET


def test_the_first_rule_that_matches_counts_and_a_class_that_is_given_counts_more(
    opened: Opened, ring: KeyRing
) -> None:
    rules = ["agent:a|token*=sensitive", "agent:*|*=trusted"]
    state = opened("memory:", values=Values(1 << 24, ring), rules=rules)
    for scope, key, given, expected in (
        ("agent:a", "token-1", None, "sensitive"),
        ("agent:a", "other", None, "trusted"),
        ("agent:b", "token-1", None, "trusted"),
        ("global", "token-1", None, "standard"),
        ("agent:a", "token-2", "standard", "standard"),
    ):
        state.set(scope, key, 1, state_class=given)
        entry = state.places.backend.get(scope, [key])[key]
        assert expected in entry.meta or (expected == "standard" and entry.meta == "")


@pytest.mark.parametrize("line", ["no rule", "=sensitive", "a|b=secret", ""])
def test_a_rule_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(StateError, match="ephemeral, trusted|write pattern=class"):
        Rules([line])


def test_a_class_that_is_none_is_refused(opened: Opened) -> None:
    state = opened("memory:")
    with pytest.raises(StateError, match="'secret' is no state class; there are: ephemeral, trusted"):
        state.set("global", "k", 1, state_class="secret")  # type: ignore[arg-type]
    assert not state.exists("global", "k")


def test_an_external_value_needs_a_schema_and_has_to_fit_it(opened: Opened, schemas: Schemas) -> None:
    state = opened("memory:", values=Values(1 << 24, None, schemas))
    state.set("agent:a", "person-1", {"name": "Ana"}, state_class="external")
    for call in (
        lambda: state.set("agent:a", "person-2", {"name": 7}, state_class="external"),
        lambda: state.set("agent:a", "other", {"name": "Ana"}, state_class="external"),
        lambda: state.update("agent:a", "person-1", lambda v: {}, state_class="external"),
    ):
        with pytest.raises(SchemaError):
            call()
    assert state.list_keys("agent:a") == ["person-1"] and state.get("agent:a", "person-1") == {"name": "Ana"}
    with pytest.raises(StateError, match="needs a schema"):
        opened("memory:").set("agent:a", "person-1", {"name": "Ana"}, state_class="external")


def test_a_standard_value_has_to_fit_a_schema_that_it_is_bound_to_and_a_trusted_one_has_not(
    opened: Opened, schemas: Schemas
) -> None:
    state = opened("memory:", values=Values(1 << 24, None, schemas))
    with pytest.raises(SchemaError, match="person"):
        state.set("agent:a", "person-1", {"name": 7})
    state.set("agent:a", "person-1", {"name": 7}, state_class="trusted")
    assert state.get("agent:a", "person-1") == {"name": 7}
    state.set("agent:a", "unbound", {"name": 7})
    state.set("agent:a", "person-2", {"name": "Bo"})
    assert state.places.backend.get("agent:a", ["person-2"])["person-2"].meta == '{"schema":"person@1.0.0"}'


def test_the_guards_policy_is_applied_to_what_is_kept(opened: Opened) -> None:
    class Policy:
        active = seals = True

        def apply(self, value: Any, place: str) -> Any:
            return {"$sealed": value} if isinstance(value, str) else value

        def reveal(self, value: Any, place: str) -> Any:
            return value["$sealed"] if isinstance(value, dict) and "$sealed" in value else value

    state = opened("memory:", values=Values(1 << 24, policy=Policy()))
    state.set("global", "k", SECRET)
    assert state.places.backend.get("global", ["k"])["k"].body == b'{"$sealed":"%b"}' % SECRET.encode()
    assert state.get("global", "k") == SECRET
    assert state.update("global", "k", lambda v: v + "!") == SECRET + "!" == state.get("global", "k")


# -- ephemeral ---------------------------------------------------------------------------------------------------------


def test_ephemeral_values_are_in_the_hot_layer_only_and_pass(opened: Opened, url: str) -> None:
    state = opened(url, hot="memory:", rules=["*|live-*=ephemeral"])
    state.set("global", "k", 1, state_class="ephemeral", ttl=0.2)
    state.set("global", "live-1", 2)
    state.set_many("global", {"live-2": 3, "stays": 4})
    assert state.update("global", "live-2", lambda v: v + 1) == 4
    assert state.get_many("global", ["k", "live-1", "live-2", "stays"]) == {
        "k": 1,
        "live-1": 2,
        "live-2": 4,
        "stays": 4,
    }
    assert state.list_keys("global") == ["k", "live-1", "live-2", "stays"]
    assert state.places.backend.keys("global") == ["stays"]
    assert (
        state.exists("global", "live-1") and state.delete("global", "live-1") and state.get("global", "live-1") is None
    )
    time.sleep(0.25)
    assert state.list_keys("global") == ["live-2", "stays"] and state.get("global", "k") is None
    assert opened(url, hot="memory:").list_keys("global") == ["stays"], "gone after a restart"
    assert state.clear_scope("global") == 2 and state.list_keys("global") == []


def test_a_value_that_changes_its_class_is_found_as_it_was_written_last(opened: Opened, url: str) -> None:
    state = opened(url, hot="memory:")
    state.set("global", "k", 1, state_class="ephemeral")
    assert state.update("global", "k", lambda v: v + 1) == 2, "where the value is"
    state.set("global", "k", 3)
    assert state.get("global", "k") == 3
    state.set("global", "k", 4, state_class="ephemeral")
    assert state.get("global", "k") == 4 and state.places.backend.keys("global") == []
    assert state.update("global", "k", lambda v: v + 1, state_class="standard") == 5
    assert state.update("global", "k", lambda v: v + 1, state_class="ephemeral") == 6
    assert state.get("global", "k") == 6
    assert state.delete("global", "k") and state.get("global", "k") is None


def test_ephemeral_values_in_redis_are_seen_by_others_and_missed_by_nobody_when_redis_is_away(
    opened: Opened, redis_server: RedisServer, url: str
) -> None:
    redis_server.client().flushall()
    state, other = opened(url, hot=redis_server.url), opened(url, hot=redis_server.url)
    state.set("global", "live", 1, state_class="ephemeral")
    state.set("global", "k", 2)
    assert other.get("global", "live") == 1 and other.list_keys("global") == ["k", "live"]
    away = opened(url, hot="redis://127.0.0.1:1/0")
    assert away.get("global", "live", "lost") == "lost" and away.get("global", "k") == 2
    assert away.list_keys("global") == ["k"]


def test_without_a_hot_layer_of_its_own_an_ephemeral_value_has_a_time_to_live(opened: Opened) -> None:
    state = opened("memory:", ephemeral_seconds=0.1)
    state.set("global", "k", 1, state_class="ephemeral")
    assert state.get("global", "k") == 1
    time.sleep(0.15)
    assert state.get("global", "k") is None
