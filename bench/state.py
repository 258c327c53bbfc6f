"""Keyed state beside raw floors in the same run: sets and cached gets, with a thousand keys and with a million."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import machine

MANY = 1_000_000
FEW = 1000
VALUE = {"n": 1, "text": "x" * 80}
#: Operations of one round; the fast ones are done more often.
OPERATIONS = 400
FAST = 4000
#: A round is done in so many slices, in which the operations take turns.
SLICES = 10

#: What is measured: name, floor beside which it is shown, target as text, whether it is reached by (us, floor us).
Rule = tuple[str, Callable[[float, float], bool]]
AT_MOST: dict[str, tuple[str, Rule]] = {
    "get, cached": ("", ("<= 5 us", lambda us, floor: us <= 5)),
    "set, memory": ("", ("<= 15 us", lambda us, floor: us <= 15)),
    "set, SQLite NORMAL": ("raw sqlite3 upsert NORMAL", ("<= 3x", lambda us, floor: us <= 3 * floor)),
    "set, SQLite FULL": ("raw sqlite3 upsert FULL", ("", lambda us, floor: True)),
    "set, RocksDB": ("raw rocksdict put", ("<= 25 us", lambda us, floor: us <= 25)),
    "set, Redis": ("raw Redis SET", ("<= 1.3x", lambda us, floor: us <= 1.3 * floor)),
}


def measure(base: Path, rounds: int) -> None:
    """Print what each operation costs, medians of rounds that alternate."""
    from servers import RedisServer

    redis = RedisServer()
    redis.start()
    try:
        calls = _calls(base / "state", redis.url)
        spread = {name: calls.pop(name) for name in list(calls) if name.endswith("spread")}
        # By themselves: they fetch pages of the same files, and leave the next one to write them back.
        took = _rounds(calls, rounds) | _rounds(spread, rounds)
    finally:
        redis.close()
    print(f"keyed state, values of {len(str(VALUE))} bytes, us each; p50 of {rounds * SLICES} slices")
    print(f"{'':20}{FEW:>11,} keys{MANY:>13,} keys{'more':>7}{'spread':>10}   beside")
    for name, (floor, (target, reached)) in AT_MOST.items():
        few, many, spread = (machine.middle(took[f"{name} {size}"]) for size in (FEW, MANY, "spread"))
        beside = machine.middle(took[floor]) if floor else 0.0
        ratio = f"{floor} {beside:.1f} us: {few / beside:.2f}x" if floor else ""
        verdict = "" if not target else f"target {target}: {'reached' if reached(few, beside) else 'MISSED'}"
        more = f"{(many / few - 1) * 100:+.0f}%"
        print(f"{name:20}{few:>16.1f}{many:>18.1f}{more:>7}{spread:>10.1f}   {ratio:44}{verdict}")
    print(
        f"the same {FEW:,} keys are used among {MANY:,}: target at most 10 % more;"
        " `spread` are keys anywhere among those,\nwhich the database has to fetch and write page by page\n"
    )


def _rounds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range((rounds + 1) * SLICES):
        names.reverse()  # so what the machine does beside falls on all alike
        for name in names:
            count = (FAST if "get" in name or "memory" in name or "rocks" in name.lower() else OPERATIONS) // SLICES
            call, began = calls[name], time.perf_counter()
            for _ in itertools.repeat(None, count):
                call()
            if number >= SLICES:  # the first round warms up
                took[name].append((time.perf_counter() - began) / count * 1e6)
    return took


def _calls(folder: Path, redis_url: str) -> dict[str, Callable[[], object]]:
    """One call of each kind by its name."""
    from celeriac.orchestration.state.state import State
    from celeriac.storage.states.memory import MemoryBackend
    from celeriac.storage.states.redis import RedisBackend
    from celeriac.storage.states.rocksdb import RocksBackend

    folder.mkdir()
    calls: dict[str, Callable[[], object]] = dict(_floors(folder, redis_url))
    for size in (FEW, MANY):
        scope = f"custom:{size}"
        kinds = {
            "memory": State(MemoryBackend()),
            "SQLite NORMAL": State(_sqlite(folder / f"normal-{size}", "NORMAL")),
            "SQLite FULL": State(_sqlite(folder / f"full-{size}", "FULL")),
            "RocksDB": State(RocksBackend(folder / f"rocks-{size}")),
            "Redis": State(RedisBackend(redis_url)),
        }
        for name, state in kinds.items():
            _fill(state.places.backend, scope, size)
            calls[f"set, {name} {size}"] = _setter(state, scope, FEW)
            if size == MANY:
                calls[f"set, {name} spread"] = _setter(state, scope, MANY)
        calls[f"get, cached {size}"] = _getter(kinds["SQLite NORMAL"], scope, 1)
        calls["get, cached spread"] = _getter(kinds["SQLite NORMAL"], scope, size // FEW)
    return calls


def _key(number: int) -> str:
    return f"user/{number:07d}"


def _keys(size: int) -> Iterator[str]:
    dice = random.Random(1)
    return itertools.cycle([_key(dice.randrange(size)) for _ in range(5000)])


def _setter(state: Any, scope: str, size: int) -> Callable[[], object]:
    keys = _keys(size)
    return lambda: state.set(scope, next(keys), VALUE)


def _getter(state: Any, scope: str, apart: int) -> Callable[[], object]:
    keys = itertools.cycle([_key(number * apart) for number in range(50)])
    return lambda: state.get(scope, next(keys))


def _sqlite(folder: Path, sync: str) -> Any:
    """A backend in a database of its own. Celeriac itself always syncs commits (FULL); NORMAL is for comparison."""
    from sqlalchemy import event

    from celeriac.storage import schema
    from celeriac.storage.blobs import BlobStore
    from celeriac.storage.database import Database
    from celeriac.storage.states.sql import SqlBackend

    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'celeriac.db'}")
    event.listen(database.engine, "connect", lambda c, _: c.execute(f"PRAGMA synchronous={sync}"))
    schema.ensure(database)
    return SqlBackend(database, BlobStore(folder / "blobs"), 1 << 20, with_steps=True)


def _fill(backend: Any, scope: str, size: int) -> None:
    from celeriac.storage import serial
    from celeriac.storage.database import Query
    from celeriac.storage.states.protocol import Write

    body = serial.encode(VALUE)
    if hasattr(backend, "_database"):  # quicker than one event each
        from sqlalchemy import text

        insert = Query(
            text(
                "INSERT INTO state_values (scope, key, version, body, size, updated_at)"
                " WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :top)"
                " SELECT :scope, printf('user/%07d', i), i + 1, :body, :size, 0 FROM n"
            )
        )
        values = {"top": size - 1, "scope": scope, "body": body.decode(), "size": len(body)}
        backend._database.write(lambda tx: tx.run(insert, **values))
        return
    for start in range(0, size, 1000):
        backend.put(scope, [Write(_key(number), body) for number in range(start, min(start + 1000, size))])


def _floors(folder: Path, redis_url: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """The same work with nothing of ours around it."""
    from redis import Redis
    from rocksdict import Options, Rdict

    from celeriac.storage import serial, sqlite

    body = serial.encode(VALUE)
    for sync in ("NORMAL", "FULL"):
        connection = sqlite.library().connect(str(folder / f"raw-{sync}.db"))
        sqlite.prepare(connection)
        connection.execute(f"PRAGMA synchronous={sync}")
        connection.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT)")
        yield f"raw sqlite3 upsert {sync}", _upsert(connection, body.decode())
    client = Redis.from_url(redis_url)
    keys = _keys(FEW)
    yield "raw Redis SET", lambda: client.set(next(keys), body)
    rocks = Rdict(str(folder / "raw-rocks"), Options(raw_mode=True))
    yield "raw rocksdict put", lambda: rocks.put(next(keys).encode(), body)


def _upsert(connection: Any, body: str) -> Callable[[], object]:
    keys, text = _keys(FEW), "INSERT INTO t VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
    count = itertools.count()  # a value that is the same would not be written
    return lambda: connection.execute(text, (next(keys), f"{body}{next(count)}"))
