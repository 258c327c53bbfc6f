"""What a branch costs, and a fork of which every step is taken over."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

ENTRIES, KEYS, BRANCHES, STEPS = 10_000, 100, 200, 200
BYTES = 500


def measure(base: Path, rounds: int) -> None:
    """Print what branches cost, in time and in bytes on the disk, and forks beside the run that they spare."""
    from celeriac import Celeriac

    folder = base / "trees"
    folder.mkdir()
    c = Celeriac(data_dir=str(folder / "data"), embed=False, agents=("agents",))
    try:
        _branches(c, folder / "data" / "celeriac.db", rounds)
        _forks(c, rounds)
    finally:
        c.close()


def _branches(c: Any, file: Path, rounds: int) -> None:
    root = c.sessions.create("What was said?", user="ana")
    root.history.extend({"role": "user", "content": "x" * BYTES} for _ in range(ENTRIES))
    c.state.set_many(f"session:{root.id}", {f"key-{n}": "x" * 100 for n in range(KEYS)})
    root.branch("first")  # its checkpoint has the state
    took, sizes, merges = [], [], []
    for _ in range(rounds):
        before = _size(c, file)
        for number in range(BRANCHES):
            began = time.perf_counter()
            branch = root.branch(f"try {number}")
            took.append((time.perf_counter() - began) * 1000)
        sizes.append((_size(c, file) - before) / BRANCHES / 1000)
        branch.history.add("user", "x" * BYTES)
        began = time.perf_counter()
        root.merge(branch)
        merges.append((time.perf_counter() - began) * 1000)
    print(f"trees: a branch of a session of {ENTRIES:,} entries and {KEYS} keys; SQLite, commits synced")
    print(f"{'a branch':24}{median(took):>8.2f} ms{median(sizes):>10.1f} KB   to be under 5 ms and 10 KB")
    print(f"{'a merge of one entry':24}{median(merges):>8.2f} ms")


def _size(c: Any, file: Path) -> int:
    """Bytes of the database once all is in it."""
    with c.engine.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


def _forks(c: Any, rounds: int) -> None:
    from celeriac import Plan, step

    plan = Plan("chain", [step(f"s{n}", "bench.grow", {"n": n}) for n in range(STEPS)])
    session = c.sessions.start(plan)
    with c.embedded(1):
        session.wait(120)
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        fork = session.fork()
        took.append((time.perf_counter() - began) * 1000)
        assert fork.status == "completed"
    print(f"{'a fork of ' + str(STEPS) + ' steps':24}{median(took):>8.2f} ms   {median(took) / STEPS:.2f} ms a step\n")
