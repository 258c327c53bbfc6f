"""T28 at length: callers of several tenants at once, in programs of their own, for hundreds of sessions."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from guard.tenants import Fuzz, agents
from servers import RedisServer

from celeriac import Celeriac
from chaos.conftest import SEED

PROGRAMS, SESSIONS, TRIES = 4, 100, 40


@pytest.mark.chaos
def test_T28_no_canary_of_a_tenant_reaches_another(database_url: str, broker: RedisServer, tmp_path: Path) -> None:
    common: dict[str, Any] = {"data_dir": str(tmp_path / "data"), "database_url": database_url, "access": "on"}
    common |= {"redis_url": broker.url, "inline_result_bytes": 20_000}
    programs = [Celeriac(registry=agents(), embed=False, **common) for _ in range(PROGRAMS)]
    for one in programs:
        one.prepare()
    fuzzes = [
        Fuzz(lambda one=one: one, random.Random(SEED + n), f"{n}-")  # type: ignore[misc]
        for n, one in enumerate(programs)
    ]

    def all_at_once(act: Callable[[Fuzz], None]) -> None:
        with ThreadPoolExecutor(PROGRAMS) as pool:
            list(pool.map(act, fuzzes))

    try:
        all_at_once(lambda fuzz: fuzz.run(SESSIONS))
        everybodys = [known for fuzz in fuzzes for known in fuzz.known]
        for fuzz in fuzzes:
            fuzz.known = everybodys
        all_at_once(lambda fuzz: fuzz.try_every_door(TRIES))
        all_at_once(lambda fuzz: fuzz.check_all_that_is_left())
    finally:
        for one in programs:
            one.close()
    leaks = [leak for fuzz in fuzzes for leak in fuzz.leaks]
    sums = {name: sum(getattr(fuzz, name) for fuzz in fuzzes) for name in ("answers", "cached", "looks", "refused")}
    print(f"\nT28 seed {SEED}: {sums}, leaks {len(leaks)}")
    assert not leaks and sums["cached"] > sums["answers"] // 2
