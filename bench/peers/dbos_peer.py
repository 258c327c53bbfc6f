"""DBOS on SQLite: workflows of steps; a fan-out is child workflows, which is quicker than a queue."""

from __future__ import annotations

from typing import Any

from child import PAD, serve, sizes
from dbos import DBOS

SEQUENCE, WIDTH, SESSIONS, EACH = sizes()
DBOS(config={"name": "bench", "system_database_url": "sqlite:///dbos.db", "log_level": "ERROR"})


@DBOS.step()
def grow(n: int) -> dict[str, Any]:
    return {"n": n + 1, "pad": PAD}


@DBOS.workflow()
def chain(length: int) -> int:
    n = 0
    for _ in range(length):
        n = grow(n)["n"]
    return n


@DBOS.workflow()
def part(n: int) -> dict[str, Any]:
    return grow(n)


@DBOS.workflow()
def fan(width: int) -> int:
    handles = [DBOS.start_workflow(part, n) for n in range(width)]
    return len([handle.get_result() for handle in handles])


def many() -> None:
    handles = [DBOS.start_workflow(chain, EACH) for _ in range(SESSIONS)]
    assert all(handle.get_result() == EACH for handle in handles)


DBOS.launch()
serve("dbos", lambda: chain(SEQUENCE), lambda: fan(WIDTH), many)
