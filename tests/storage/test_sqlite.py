"""How connections to SQLite are set up."""

from __future__ import annotations

import time
from typing import Any

from celeriac.storage import sqlite


def test_nothing_and_bytes_cost_no_more_to_store_than_numbers() -> None:
    connection = sqlite.library().connect(":memory:")
    sqlite.prepare(connection)
    connection.execute("CREATE TABLE t (a, b, c, d, e, f, g, h)")

    def seconds(value: Any) -> float:
        rows, took = [(value,) * 8] * 10_000, []
        for _ in range(5):
            began = time.perf_counter()
            connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            took.append(time.perf_counter() - began)
        return min(took)

    number, nothing, some = seconds(1.5), seconds(None), seconds(b"x")
    print(f"10,000 rows of 8 values: numbers {number:.3f} s, None {nothing:.3f} s, bytes {some:.3f} s")
    assert max(nothing, some) < 4 * number
    connection.close()
