"""Hits of the result cache beside their raw floors: cachetools, a raw Redis GET, a raw SQLite read."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import machine

CALLS = 2000
REQUEST = {"path": "docs/suppliers.md", "question": "Who supplies X?", "depth": 3, "flags": ["a", "b"]}
VALUE = {"summary": "x" * 400, "found": [{"line": n, "text": "a line"} for n in range(10)]}


def measure(base: Path, rounds: int) -> None:
    """Print microseconds a hit, here and shared; medians of rounds in turns."""
    from cachetools import LRUCache
    from servers import RedisServer

    from celeriac import Celeriac

    server = RedisServer()
    server.start()
    try:
        c = Celeriac(data_dir=str(base / "cache"), redis_url=server.url, embed=False)
        plain = Celeriac(data_dir=str(base / "cache"), embed=False)
        cache, database = c.cache, plain.cache
        key = cache.key("summary", REQUEST, permissions=frozenset({"docs:read"}))
        cache.put(key, VALUE)
        client = server.client(decode_responses=False)
        client.set("raw", client.get(client.keys("celeriac:cache:*")[0]))
        alone = server.client(decode_responses=False, single_connection_client=True)
        lru: LRUCache[str, object] = LRUCache(1000)
        lru[key.hash] = VALUE
        raw = sqlite3.connect(base / "cache" / "celeriac.db")
        granted = frozenset({"docs:read"})

        def forgetting(of: object) -> Callable[[], object]:
            def look() -> object:
                of._memory.clear()  # type: ignore[attr-defined]
                return of.get(key)  # type: ignore[attr-defined]

            return look

        _report(
            rounds,
            {
                "cachetools get": (lambda: lru.get(key.hash), None, 0.0),
                "hit in process, key ready": (lambda: cache.get(key), None, 2.0),
                "hit in process, key made": (
                    lambda: cache.get(cache.key("summary", REQUEST, permissions=granted)),
                    None,
                    6.0,
                ),
                "raw Redis GET": (lambda: client.get("raw"), None, 0.0),
                "the same, one connection": (lambda: alone.get("raw"), None, 0.0),
                "hit in Redis": (forgetting(cache), "raw Redis GET", 1.3),
                "raw SQLite SELECT": (
                    lambda: raw.execute("SELECT body FROM cached_results WHERE key = ?", (key.hash,)).fetchall(),
                    None,
                    0.0,
                ),
                "hit in SQLite": (forgetting(database), None, 0.0),
            },
        )
        raw.close()
        c.close()
        plain.close()
    finally:
        server.close()


def _report(rounds: int, kinds: dict[str, tuple[Callable[[], object], str | None, float]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds * 3):
        for name, (work, _, _) in kinds.items():
            work()
            began = time.perf_counter()
            for _ in range(CALLS):
                work()
            times[name].append((time.perf_counter() - began) / CALLS * 1e6)
    middle = {name: machine.middle(found) for name, found in times.items()}
    print(f"cached results, microseconds each (median of {rounds * 3} rounds of {CALLS}; {os.cpu_count()} cores)")
    for name, (_, floor, most) in kinds.items():
        if floor is None:
            target = f"   target <= {most:g}" if most else ""
        else:
            ratios = [a / b for a, b in zip(times[name], times[floor], strict=True)]
            target = f"   {machine.middle(ratios):.2f} x {floor}, target <= {most:g} x"
        print(f"  {name:<28}{middle[name]:9.2f}{target}")
    print()
