"""Tenants see nothing of each other; T28, the longer form of which is in tests/chaos."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guard.tenants import Fuzz, agents
from servers import RedisServer

from celeriac import Celeriac, Plan, step
from celeriac.errors import CacheError, SessionNotFound
from celeriac.storage.cache import cutoffs, entries

Make = Callable[..., Celeriac]
PLAN = Plan("p", [step("a", "oracle", "who")])


@pytest.fixture
def make(database_url: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[Make]:
    """Makes programs over one database and one Redis; access is off."""
    redis_server.client().flushall()
    made: list[Celeriac] = []
    common = {"data_dir": str(tmp_path / "data"), "database_url": database_url, "redis_url": redis_server.url}
    registry = agents()

    def new(**settings: object) -> Celeriac:
        made.append(Celeriac(registry=registry, embed=False, **{**common, "inline_result_bytes": 20_000, **settings}))
        return made[-1]

    yield new
    for one in made:
        one.close()


def test_T28_no_canary_of_a_tenant_reaches_another(make: Make) -> None:
    fuzz = Fuzz(lambda: make(access="on"), random.Random(28))
    fuzz.run(24)
    fuzz.try_every_door(6)
    fuzz.check_all_that_is_left()
    assert fuzz.cached and fuzz.refused > 100


def test_ids_of_another_tenant_are_as_if_there_were_none(make: Make) -> None:
    one, other = make(tenant="one"), make(tenant="other")
    session = one.sessions.start(PLAN, "who", key="k", tags=["t"])
    for program in (other, make()):
        for look in (session.id, session.id[:13]):
            with pytest.raises(SessionNotFound, match=f"^no session '{look}'$"):
                program.sessions.get(look)
        with pytest.raises(SessionNotFound, match=f"^no session {session.id!r}$"):
            program.sessions.delete(session.id)
        assert program.sessions.list() == [] == program.sessions.search("who") == program.sessions.list(tag="t")
        assert program.sessions.active_count() == 0 and program.sessions.cleanup_inactive(-1) == []
    assert session.status == "active" and [s.id for s in one.sessions.search("who")] == [session.id]


def test_the_same_idempotency_key_is_another_session_in_another_tenant(make: Make) -> None:
    found = [make(tenant=tenant).sessions.start(PLAN, key="k").id for tenant in ("one", "other", "", "one", "")]
    assert len(set(found)) == 3 and found[0] == found[3] and found[2] == found[4]


def test_state_is_a_tenants_own_and_goes_with_its_sessions(make: Make) -> None:
    one, other, plain = make(tenant="one"), make(tenant="other"), make()
    session = one.sessions.create("q")
    for program in (one, other, plain):
        program.state.set(f"session:{session.id}", "k", program.settings.tenant)
    session.cancel()
    one.sessions.delete(session.id)
    assert one.state.list_keys(f"session:{session.id}") == []
    assert (
        other.state.get(f"session:{session.id}", "k") == "other"
        and plain.state.of_tenant("one").list_keys("global") == []
    )


def test_cached_results_are_a_tenants_own(make: Make) -> None:
    programs = [make(tenant=tenant) for tenant in ("one", "other", "")]
    keys = [program.cache.key("oracle", "who", permissions=[]) for program in programs]
    for n, (program, key) in enumerate(zip(programs, keys, strict=True)):
        assert program.cache.get(key) is None and program.cache.put(key, n, tags=["t"])
    with pytest.raises(CacheError, match="not of this tenant"):
        programs[0].cache.get(keys[1])
    assert programs[0].cache.invalidate(key=keys[1]) == 0
    kinds = ({"agent": "oracle"}, {"tag": "t"}, {"key": keys[0]}, {"everything": True})
    for kind in kinds:
        programs[0].cache.put(keys[0], 0, tags=["t"])
        assert programs[0].cache.invalidate(**kind) == 1 and programs[0].cache.get(keys[0]) is None
    assert programs[0].cache.prune(max_entries=0) == 0
    for program, key, value in zip(programs[1:], keys[1:], (1, 2), strict=True):
        hit = program.cache.get(key)
        assert hit is not None and hit.value == value
        stats = program.cache.stats()
        assert (stats["entries"], stats["stored"], stats["misses"], stats["invalidated"]) == (1, 1, 1, 0)
        assert stats["this_process"]["entries"] == 1
    assert programs[0].cache.stats()["entries"] == 0 and programs[0].cache.stats()["invalidated"] == len(kinds)


def test_an_invalidation_of_everything_leaves_those_of_other_tenants_standing(make: Make) -> None:
    one, other = make(tenant="one"), make(tenant="other")
    late = make(tenant="other")  # knows nothing yet of what was invalidated
    key = other.cache.key("oracle", "who", permissions=[])
    other.cache.put(key, 1)
    other.cache.invalidate(agent="oracle")
    one.cache.invalidate(everything=True)
    kept = late.engine.database.read(lambda tx: cutoffs.since(tx, -1))
    assert {(c.kind, c.value, c.tenant) for c in kept} == {("agent", "oracle", "other"), ("everything", "", "one")}
    assert late.cache.get(key) is None
    assert other.engine.database.read(entries.held) == (0, 0)
