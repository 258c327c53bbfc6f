"""What appending to a history and reading its end cost, in sessions of 1,000 and of 1,000,000 entries, beside bare
SQLite and the SQLiteSession of OpenAI's agents SDK.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine

#: Calls of one slice; so many slices a round alternate.
APPENDS, READS, SLICES = 20, 20, 10
FEW, MANY = 1_000, 1_000_000
LAST, BYTES = 50, 500
TEXT = "x" * BYTES
OURS = ("append", f"last {LAST}")


def measure(base: Path, rounds: int) -> None:
    """Print what each operation costs, medians of rounds in which all take turns."""
    from peers import Child, installed

    folder = base / "history"
    folder.mkdir()
    c, calls = _calls(folder)
    python = installed(folder, ["openai-agents"])
    sizes = [APPENDS, READS, FEW, LAST, BYTES]
    peer = Child(python, folder, "openai_session.py", json.dumps(sizes)) if python else None
    took: dict[str, list[float]] = {name: [] for name in (*calls, "SQLiteSession 0", "SQLiteSession 1")}
    try:
        for number in range((rounds + 1) * SLICES):
            for name, call in calls.items():
                seconds = _seconds(call, READS if "last" in name else APPENDS)
                if number >= SLICES:  # the first round warms up
                    took[name].append(seconds * 1e6)
            for kind in (0, 1) if peer else ():
                seconds = peer.seconds(kind)
                if number >= SLICES:
                    took[f"SQLiteSession {kind}"].append(seconds * 1e6)
    finally:
        c.close()
        if peer:
            peer.close()
    _tell(took, rounds, peer.version if peer else "")


def _tell(took: dict[str, list[float]], rounds: int, version: str) -> None:
    print(f"history, entries of {BYTES} bytes, us each; SQLite, commits synced; median of {rounds} rounds")
    print(f"{'':12}{FEW:>12,} entries{MANY:>14,} entries{'':>9}{'bare sqlite3':>14}{'SQLiteSession':>16}")
    for kind, name in enumerate(OURS):
        few, many, bare = (machine.middle(took[f"{name} {size}"]) for size in (FEW, MANY, "bare"))
        theirs = machine.middle(took[f"SQLiteSession {kind}"]) if version else 0.0
        beside = f"{theirs:>16.0f}   {theirs / few:.1f}x, to be at least 2x" if theirs else ""
        print(f"{name:12}{few:>20.0f}{many:>22.0f}{(many / few - 1) * 100:>+8.0f}%{bare:>14.0f}{beside}")
    print(f"{'a session is created in':32}{machine.middle(took['create a session']):.0f}")
    print(
        f"targets: create < 1000 us, append <= 200 us, last {LAST} <= 135 us, {MANY:,} entries at most 10 % more;"
        f" openai-agents {version}\n"
    )


def _seconds(call: Callable[[], object], count: int) -> float:
    """The median of single calls: on a machine that others use, a mean tells more of them than of this."""
    times = []
    for _ in itertools.repeat(None, count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)


def _calls(folder: Path) -> tuple[Any, dict[str, Callable[[], object]]]:
    """A Celeriac, and one call of each kind by its name."""
    from celeriac import Celeriac

    c = Celeriac(data_dir=str(folder / "data"), embed=False)
    calls: dict[str, Callable[[], object]] = {}
    for size in (FEW, MANY):
        history = c.sessions.create(str(size)).history
        _fill(c, history, size)
        calls[f"append {size}"] = lambda history=history: history.append({"role": "user", "content": TEXT})  # type: ignore[misc]
        calls[f"last {LAST} {size}"] = lambda history=history: history.last(LAST)  # type: ignore[misc]
    calls["create a session"] = lambda: c.sessions.create("What was said?", user="ana")
    insert, read = _bare(folder)
    return c, calls | {"append bare": insert, f"last {LAST} bare": read}


def _fill(c: Any, history: Any, size: int) -> None:
    """Entries written at once: one by one they would take minutes."""
    from sqlalchemy import text

    from celeriac.storage.database import Query

    history.add("user", TEXT)
    body = json.dumps({"role": "user", "content": TEXT}, separators=(",", ":"))
    rows = Query(
        text(
            "INSERT INTO history (session_id, number, at, body, size)"
            " WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < :top)"
            " SELECT :session, i, 1.7e9 + i, :body, :size FROM n"
        )
    )
    counted = Query(text("UPDATE conversations SET entries = :top WHERE session_id = :session"))
    values = {"session": history._id, "top": size}
    c.engine.database.write(lambda tx: tx.run(rows, **values, body=body, size=len(body)))
    c.engine.database.write(lambda tx: tx.run(counted, **values))
    assert history.count() == size and len(history.last(LAST)) == LAST


def _bare(folder: Path) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same with nothing of ours around it: one row a commit; rows without their JSON being read."""
    from celeriac.storage import sqlite

    connection = sqlite.library().connect(str(folder / "bare.db"))
    sqlite.prepare(connection)
    connection.execute("CREATE TABLE t (s TEXT, n INTEGER, at REAL, body TEXT, PRIMARY KEY (s, n))")
    body = json.dumps({"role": "user", "content": TEXT})
    connection.executemany("INSERT INTO t VALUES ('full', ?, 1.5, ?)", [(n, body) for n in range(FEW)])
    numbers = itertools.count()
    last = f"SELECT n, at, body FROM t WHERE s = 'full' ORDER BY n DESC LIMIT {LAST}"
    return (
        lambda: connection.execute("INSERT INTO t VALUES ('growing', ?, 1.5, ?)", (next(numbers), body)),
        lambda: connection.execute(last).fetchall(),
    )
