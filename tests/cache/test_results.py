"""The cache itself: what is found, for how long, what is taken back, and what it tells of itself."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer
from sqlalchemy import text

from cache.conftest import Make
from celeriac.errors import CacheError, SettingsError
from celeriac.orchestration.cache import Key, ResultCache
from celeriac.orchestration.cache import results as module
from celeriac.storage import serial
from celeriac.storage.database import Database

VALUE = {"found": ["a", 1, 1.5, None], "text": "Zoë"}


def key(cache: ResultCache, request: Any = 1, agent: str = "reader", **scope: Any) -> Key:
    return cache.key(agent, request, **({"permissions": ["read"]} | scope))


def value(cache: ResultCache, of: Key) -> Any:
    hit = cache.get(of)
    return hit and hit.value


def execute(cache: ResultCache, statement: str) -> None:
    database: Database = cache._database
    with database.engine.connect() as connection:
        connection.execute(text(statement))
        connection.commit()


def test_a_result_is_found_here_and_in_other_processes(shared: Make) -> None:
    here, there = shared(), shared()
    k = key(here)
    assert here.get(k) is None
    assert here.put(k, VALUE, seconds=3.0, cost=0.5)
    assert (here.get(k).value, here.get(k).origin) == (VALUE, "process")
    first, second = there.get(k), there.get(k)
    assert (first.value, first.origin, second.origin) == (VALUE, "shared", "process")
    assert (first.entry.seconds, first.entry.cost, first.entry.agent) == (3.0, 0.5, "reader")
    assert first.entry.content == serial.digest(serial.canonical(VALUE))
    assert 0 <= first.age < 5 and not first.stale


def test_what_is_found_is_the_finders_own(make: Make) -> None:
    cache = make()
    cache.put(key(cache), VALUE)
    cache.get(key(cache)).value["found"].clear()
    assert value(cache, key(cache)) == VALUE


@pytest.mark.parametrize("other", [{"agent": "writer"}, {"version": "2"}, {"permissions": []}, {"tenant": "b"}])
def test_another_agent_version_permission_or_tenant_finds_nothing(make: Make, other: dict[str, Any]) -> None:
    cache = make()
    cache.put(key(cache), VALUE)
    assert cache.get(key(cache, **other)) is None


def test_what_lies_under_a_key_but_is_of_another_scope_is_not_served(shared: Make) -> None:
    here, there = shared(), shared()
    secret, mine = key(here, permissions=["read", "secrets"]), key(here, permissions=["read"])
    here.put(secret, "secret")
    forged = Key(secret.hash, mine.scope)
    assert here.get(forged) is None and there.get(forged) is None
    assert value(there, secret) == "secret"


def test_a_row_that_was_moved_to_another_key_is_not_served(shared: Make) -> None:
    here, there = shared(), shared()
    secret, mine = key(here, permissions=["read", "secrets"]), key(here, permissions=["read"])
    here.put(secret, "secret")
    execute(here, f"UPDATE cached_results SET key = '{mine.hash}'")
    assert there.get(mine) is None


def test_a_damaged_result_is_a_miss(make: Make) -> None:
    here, there = make(), make()
    here.put(key(here), ["x" * 5000] * 3)
    execute(here, "UPDATE cached_results SET body = x'28b52ffd00'")
    assert there.get(key(there)) is None


def test_results_too_large_for_a_row_are_kept_as_blobs_that_go_with_them(make: Make) -> None:
    here, there = make(inline_result_bytes=2000), make(inline_result_bytes=2000)
    blobs = here._blobs
    one, other = key(here, agent="a"), key(here, agent="b")
    large, larger = _noise(20_000, 1), _noise(30_000, 2)
    assert here.put(one, large, tags=["t"]) and here.put(other, large)
    assert value(there, one) == large == value(there, other)
    assert here.stats()["bytes"] > 20_000
    assert len(list(blobs.hashes())) == 1, "equal results are one blob"
    assert here.put(one, larger) and value(make(), one) == larger
    here.invalidate(agent="b")
    assert len(list(blobs.hashes())) == 1, "the blob of `key` now; what neither refers to any more is gone"
    here.invalidate(everything=True)
    assert list(blobs.hashes()) == [] and make().get(one) is None
    assert here.put(one, large)
    for name in blobs.hashes():
        blobs.delete(name)
    assert make().get(one) is None, "a blob that is not there is a miss"


def _noise(size: int, seed: int) -> str:
    """Text that cannot be compressed much."""
    return random.Random(seed).randbytes(size).hex()


def test_large_results_are_compressed_and_too_large_ones_refused(make: Make) -> None:
    here, there = make(cache_entry_bytes=20_000), make()
    assert here.put(key(here, 1), "ab" * 50_000)
    assert value(there, key(there, 1)) == "ab" * 50_000
    stats = here.stats()
    assert stats["bytes"] < 1000 and stats["json_bytes"] > 100_000
    assert not here.put(key(here, 2), os.urandom(30_000).hex())
    assert here.get(key(here, 2)) is None and here.stats()["refused"] == 1


def test_sealed_results_are_not_in_the_clear_and_open_with_the_key_only(
    shared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_KEYS", "k1:" + "QUFB" * 10 + "QUE=")
    here, there = shared(), shared()
    here.put(key(here), {"pin": "canary-4711"})
    assert value(there, key(there)) == {"pin": "canary-4711"}
    rows = here._database.read(lambda tx: tx.rows(text("SELECT body FROM cached_results")))
    assert b"canary" not in bytes(rows[0][0])
    monkeypatch.delenv("CELERIAC_KEYS")
    keyless = shared()
    assert keyless.get(key(keyless)) is None


def test_the_guard_takes_out_of_cached_results_what_it_takes_out_of_all_others(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_KEYS", "k1:" + "QUFB" * 10 + "QUE=")
    rules = {"fields": [{"path": "password", "action": "redact"}, {"path": "email", "action": "encrypt"}]}
    here, there = make(guard_rules=rules), make(guard_rules=rules)
    here.put(key(here), {"password": "canary-1", "people": [{"email": "canary-2"}]})
    for cache in (here, there):
        assert value(cache, key(cache)) == {"password": "[redacted]", "people": [{"email": "canary-2"}]}


def test_a_result_is_served_until_its_time_is_over(shared: Make) -> None:
    here, there = shared(), shared()
    here.put(key(here), VALUE, ttl=0.4)
    assert value(here, key(here)) == value(there, key(there)) == VALUE
    time.sleep(0.45)
    assert here.get(key(here)) is None and there.get(key(there)) is None and shared().get(key(here)) is None


def test_a_stale_result_says_so_and_is_served_until_that_time_is_over_too(shared: Make) -> None:
    here, there = shared(), shared()
    here.put(key(here), VALUE, ttl=0.2, stale=0.4)
    assert not here.get(key(here)).stale
    time.sleep(0.25)
    assert here.get(key(here)).stale and there.get(key(there)).stale
    time.sleep(0.45)
    assert here.get(key(here)) is None and there.get(key(there)) is None


def test_without_a_time_the_default_counts(make: Make) -> None:
    cache = make(cache_default_ttl=0.1)
    cache.put(key(cache), VALUE)
    time.sleep(0.15)
    assert cache.get(key(cache)) is None


@pytest.mark.parametrize(
    "bad", [{"ttl": 0}, {"ttl": -1}, {"ttl": 1e9}, {"stale": -1}, {"tags": "word"}, {"tags": [""]}]
)
def test_times_and_tags_that_cannot_be_are_refused(make: Make, bad: dict[str, Any]) -> None:
    cache = make()
    with pytest.raises(CacheError):
        cache.put(key(cache), VALUE, **bad)


def test_the_result_whose_use_is_longest_ago_goes_first(shared: Make) -> None:
    cache = shared(cache_entries=3)
    for n in range(3):
        cache.put(key(cache, n), n)
        time.sleep(0.002)
    assert value(cache, key(cache, 0)) == 0
    cache.flush()  # tells the database of that use
    cache.put(key(cache, 3), 3)
    other = shared()
    assert [value(other, key(other, n)) for n in range(4)] == [0, None, 2, 3]
    stats = cache.stats()
    assert (stats["entries"], stats["evicted"], stats["levels"]["shared"]["evicted"]) == (3, 1, 1)


def test_the_database_holds_no_more_bytes_than_it_may(make: Make) -> None:
    cache = make(cache_bytes=50_000)
    for n in range(12):
        cache.put(key(cache, n), os.urandom(5_000).hex())
    stats = cache.stats()
    assert 3 <= stats["entries"] < 12 and stats["bytes"] <= 50_000


def test_a_process_holds_no_more_than_it_may(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(cache_memory_bytes=30_000)
    for n in range(12):
        cache.put(key(cache, n), "x" * 5_000)
    here = cache.stats()["this_process"]
    assert 1 <= here["entries"] < 6 and here["bytes"] <= 30_000
    monkeypatch.setattr(module, "MEMORY_ENTRIES", 5)
    few = make()
    for n in range(12):
        few.get(key(few, n))
    stats = few.stats()
    assert stats["this_process"]["entries"] == 5 and stats["levels"]["process"]["evicted"] >= 7


def test_pruning_by_use_by_number_and_by_bytes(shared: Make) -> None:
    cache = shared()
    for n in range(6):
        cache.put(key(cache, n), "x" * 100)
        time.sleep(0.002)
    for n in (1, 4, 5):
        cache.get(key(cache, n))
    assert cache.prune(min_accesses=1) == 3
    assert [n for n in range(6) if cache.get(key(cache, n))] == [1, 4, 5]
    assert cache.prune(max_entries=2) == 1
    assert cache.prune(max_bytes=200) == 1
    assert cache.prune(max_bytes=200, max_entries=1) == 0
    assert cache.stats()["entries"] == 1 and cache.stats()["pruned"] == 5
    for bad in ({}, {"max_bytes": -1}):
        with pytest.raises(CacheError):
            cache.prune(**bad)


def test_expired_results_are_cleaned_up_in_batches(shared: Make) -> None:
    cache = shared()
    for n in range(6):
        cache.put(key(cache, n), n, ttl=0.05 if n else 60, tags=["t"])
    time.sleep(0.1)
    assert cache.cleanup_expired(most=2) == 2
    assert cache.tidy() == 3 and cache.cleanup_expired() == 0
    assert cache.stats()["entries"] == 1 and cache.stats()["expired"] == 5
    assert cache._database.read(lambda tx: tx.value(text("SELECT count(*) FROM cached_tags"))) == 1


KINDS = ["key", "agent", "content_hash", "tag", "everything"]


def what(kind: str, of: Key, content: str) -> dict[str, Any]:
    return {kind: {"key": of, "agent": "reader", "content_hash": content, "tag": "docs", "everything": True}[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_invalidated_is_gone_everywhere_within_a_tenth_of_a_second(shared: Make, kind: str) -> None:
    here, there = shared(), shared()
    one, other = key(here, 1), key(here, 2, agent="writer")
    here.put(one, VALUE, tags=["docs", "x"])
    here.put(other, "other", tags=["x"])
    assert value(there, one) == VALUE and value(there, other) == "other"
    content = there.get(one).entry.content
    assert here.invalidate(**what(kind, one, content)) == (2 if kind == "everything" else 1)
    assert here.get(one) is None
    time.sleep(0.06)
    assert there.get(one) is None and shared().get(one) is None
    rest = None if kind == "everything" else "other"
    assert value(here, other) == value(there, other) == rest


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_computed_before_an_invalidation_is_not_stored_after_it(shared: Make, kind: str) -> None:
    here, there = shared(), shared()
    one = key(here)
    before = here.generation()
    there.invalidate(**what(kind, one, serial.digest(serial.canonical(VALUE))))
    assert not here.put(one, VALUE, tags=["docs"], generation=before)
    assert here.get(one) is None and there.get(one) is None
    assert here.put(one, VALUE, tags=["docs"]) and value(there, one) == VALUE


def test_an_invalidation_of_something_else_keeps_nothing_from_being_stored(make: Make) -> None:
    cache = make()
    before = cache.generation()
    cache.invalidate(agent="writer")
    cache.invalidate(tag="other")
    assert cache.put(key(cache), VALUE, tags=["docs"], generation=before)


def test_what_is_computed_anew_outlives_the_invalidation_before_it(shared: Make) -> None:
    here, there = shared(), shared()
    for n in range(3):
        here.put(key(here), n)
        assert value(there, key(there)) == n
        here.invalidate(agent="reader")
        time.sleep(0.06)
        assert there.get(key(there)) is None


@pytest.mark.parametrize("bad", [{}, {"agent": "a", "tag": "b"}, {"tag": ""}, {"agent": "\ud800"}, {"key": "a\0"}])
def test_an_invalidation_says_exactly_one_thing(make: Make, bad: dict[str, Any]) -> None:
    with pytest.raises(CacheError):
        make().invalidate(**bad)


def test_a_redis_that_lost_everything_is_filled_again_from_the_database(make: Make, redis: RedisServer) -> None:
    here = make(redis_url=redis.url)
    here.put(key(here), VALUE)
    redis.client().flushall()
    assert value(make(redis_url=redis.url), key(here)) == VALUE
    assert len(redis.client().keys("celeriac:cache:*")) == 1


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_redis_that_is_away_costs_one_timeout_and_no_result(make: Make, redis: RedisServer, how: str) -> None:
    cache, other = make(redis_url=redis.url, redis_timeout=0.1), make(redis_url=redis.url, redis_timeout=0.1)
    cache.put(key(cache, 1), 1)
    getattr(redis, how)()
    began = time.monotonic()
    assert other.get(key(other, 2)) is None
    assert value(other, key(other, 1)) == 1
    assert other.put(key(other, 3), 3) and other.invalidate(tag="none") == 0
    assert time.monotonic() - began < 0.1 + 0.3
    assert value(make(redis_url=redis.url, redis_timeout=0.1), key(cache, 3)) == 3


def test_a_redis_that_missed_an_invalidation_does_not_bring_the_result_back(make: Make, redis: RedisServer) -> None:
    here, there = make(redis_url=redis.url), make(redis_url=redis.url)
    here.put(key(here), VALUE)
    client = redis.client(decode_responses=False)
    (name,) = client.keys("celeriac:cache:*")
    kept = client.get(name)
    assert here.invalidate(agent="reader") == 1
    client.set(name, kept)  # as if the deletion had not come through
    time.sleep(0.06)
    assert there.get(key(there)) is None and make(redis_url=redis.url).get(key(here)) is None


def test_databases_that_share_a_redis_do_not_share_results(make: Make, redis: RedisServer, tmp_path: Path) -> None:
    here, there = make(redis_url=redis.url), make(redis_url=redis.url, data_dir=str(tmp_path / "other"))
    here.put(key(here), VALUE)
    assert there.get(key(there)) is None
    there.put(key(there), "other")
    assert value(make(redis_url=redis.url), key(here)) == VALUE


def test_rubbish_in_redis_is_not_served(make: Make, redis: RedisServer) -> None:
    here, there = make(redis_url=redis.url), make(redis_url=redis.url)
    here.put(key(here), VALUE)
    for body in (b"", b"rubbish", b"\xc1", b"\x90"):
        redis.client().set(redis.client().keys("celeriac:cache:*")[0], body)
        assert value(there, key(there)) == VALUE
        there._start_again()


def test_the_figures_of_all_processes_are_added_up(shared: Make) -> None:
    here, there = shared(), shared()
    here.put(key(here, 1), VALUE, seconds=2)
    for cache in (here, there):
        for n in (1, 1, 2):
            cache.get(key(cache, n))
    there.flush()
    stats = here.stats()
    assert (stats["entries"], stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 4, 2, round(4 / 6, 4))
    assert stats["levels"]["process"] == {"hits": 3, "hit_rate": 0.5, "evicted": 0}
    assert stats["levels"]["shared"] == {"hits": 1, "hit_rate": round(1 / 3, 4), "evicted": 0}
    assert stats["average_accesses"] == 4.0
    assert stats["agents"] == {"reader": {"entries": 1, "bytes": stats["bytes"], "accesses": 4}}


def test_figures_are_handed_over_by_themselves(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.orchestration.cache import counting

    monkeypatch.setattr(counting, "FLUSH_SECONDS", 0.05)
    here, there = make(), make()
    here.get(key(here))
    time.sleep(0.3)
    assert there.stats()["misses"] == 1


def test_a_fork_begins_with_no_copies_and_nothing_counted(make: Make) -> None:
    cache = make()
    cache.put(key(cache), VALUE)
    cache.get(key(cache))
    pid = os.fork()
    if not pid:
        here = cache._memory.figures()
        found = cache.get(key(cache))
        os._exit(0 if here == (0, 0) and found is not None and found.origin == "shared" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_settings_of_the_cache_are_checked(make: Make) -> None:
    with pytest.raises(SettingsError, match="cache_entries"):
        make(cache_entries=0)
