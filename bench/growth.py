"""The same step rate with a million old steps in the database, and in a session of ten thousand steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import machine
from steps import SEQUENCE, WIDTH

OLD_STEPS = 1_000_000
PER_SESSION = 100
WIDE = 10_000


def measure(base: Path, rounds: int) -> None:
    """Embedded on two SQLite databases, one new and one with old steps, in turns; prints the ratio of their rates."""
    import agents

    from celeriac import Celeriac

    new = Celeriac(data_dir=str(base / "new"), agents=["agents"])
    old = Celeriac(data_dir=str(base / "old"), agents=["agents"])
    pattern = old.sessions.start(agents.sequence(PER_SESSION))
    assert pattern.wait(timeout=60) == "completed"
    old.close()  # nobody else writes meanwhile
    took = machine.timed(lambda: _fill(old, pattern.id))
    size = (base / "old" / "celeriac.db").stat().st_size
    print(f"{OLD_STEPS:,} old steps written in {took:.0f} s, database {size / 1e6:,.0f} MB")
    for name, plan, count in (
        ("in sequence", agents.sequence(SEQUENCE), SEQUENCE),
        ("fanned out", agents.fan(WIDTH), WIDTH),
    ):
        seconds: dict[Any, list[float]] = {new: [], old: []}
        for _ in range(2 * rounds + 1):
            for celeriac in (new, old):
                seconds[celeriac].append(machine.timed(lambda c=celeriac, p=plan: c.sessions.start(p).wait(timeout=60)))
        ratio = machine.middle([n / o for n, o in zip(seconds[new][1:], seconds[old][1:], strict=True)])
        rates = {which: count / machine.middle(seconds[which][1:]) for which in (new, old)}
        print(f"{name}: new {rates[new]:,.0f}/s, old {rates[old]:,.0f}/s, old/new {ratio:.2f}")
    print("target: within 10 %")
    _wide(new, rounds)
    new.close()
    old.close()


def _wide(celeriac: Any, rounds: int) -> None:
    """A fan-out of ten thousand in turns with one of a few hundred; prints the ratio of their rates."""
    import agents

    seconds: dict[int, list[float]] = {WIDTH: [], WIDE: []}
    for _ in range(max(rounds // 2, 1)):
        for width, found in seconds.items():
            plan = agents.fan(width, joined=False)
            found.append(machine.timed(lambda p=plan: celeriac.sessions.start(p).wait(timeout=300)))
    rates = {width: width / machine.middle(found) for width, found in seconds.items()}
    print(
        f"fan-out of {WIDTH}: {rates[WIDTH]:,.0f}/s, of {WIDE:,}: {rates[WIDE]:,.0f}/s,"
        f" ratio {rates[WIDE] / rates[WIDTH]:.2f}\n"
    )


def _fill(celeriac: Any, pattern: str) -> None:
    """Copy one finished session's rows ten thousandfold under new ids, with SQL; far quicker than running them."""
    tables = {
        "sessions": "id", "session_documents": "session_id", "steps": "session_id", "step_inputs": "session_id",
        "edges": "session_id", "results": "session_id", "events": "session_id", "checkpoints": "session_id",
    }  # fmt: skip
    connection = celeriac.engine.database.engine.raw_connection()
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    cursor.execute(
        "CREATE TEMP TABLE fresh AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " SELECT i, '00000000-0000-7000-8000-' || printf('%012d', i) AS id FROM n",
        (OLD_STEPS // PER_SESSION,),
    )
    for table, key in tables.items():
        columns = [row[1] for row in cursor.execute(f"PRAGMA table_info({table})").fetchall()]
        chosen = [
            "fresh.id" if c == key else f"t.{c}" if c != "key" else "NULL"
            for c in (f'"{c}"' if c == "user" else c for c in columns)
        ]
        cursor.execute(
            f"INSERT INTO {table} SELECT {', '.join(chosen)} FROM fresh, {table} AS t WHERE t.{key} = ?", (pattern,)
        )
    cursor.execute("COMMIT")
    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
