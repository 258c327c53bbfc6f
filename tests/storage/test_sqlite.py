"""How connections to SQLite are set up."""

from __future__ import annotations

import time

from celeriac.storage import sqlite


def test_nothing_and_bytes_cost_no_more_to_store_than_numbers() -> None:
    connection = sqlite.library().connect(":memory:")
    sqlite.prepare(connection)
    connection.execute("CREATE TABLE t (a, b, c, d, e, f, g, h)")

    took: dict[str, list[float]] = {"numbers": [], "None": [], "bytes": []}
    for _ in range(9):  # in turns, and by the time of this thread: others are at work beside it
        for kind, value in zip(took, (1.5, None, b"x"), strict=True):
            rows = [(value,) * 8] * 10_000
            began = time.thread_time()
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            took[kind].append(time.thread_time() - began)
    number, nothing, some = (min(times) for times in took.values())
    print(f"10,000 rows of 8 values: numbers {number:.3f} s, None {nothing:.3f} s, bytes {some:.3f} s")
    assert max(nothing, some) < 4 * number
    connection.close()
