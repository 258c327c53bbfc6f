"""What a worker costs when it has nothing to do: queries and memory."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresServer, RedisServer

from tasks.conftest import one
from tasks.processes import Worker, ended, python, until

#: Jobs of maintenance come in bursts; these are due so seldom that none falls into the time that is measured.
SELDOM = "; ".join(f"{job}=@yearly" for job in ("sweep", "expiry", "statistics"))


def test_an_idle_worker_asks_the_database_at_most_twice_a_second(
    tmp_path: Path,
    own_redis: RedisServer,
    postgres_server: PostgresServer,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERIAC_MAINTENANCE", SELDOM)
    name = f"idle_{time.monotonic_ns()}"
    settings = {"broker_url": own_redis.url, "database_url": postgres_server.create_database(name)}
    postgres_server.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
    log = postgres_server.folder / "server.log"

    def said(start: int) -> list[str]:
        with log.open("rb") as file:
            file.seek(start)
            return re.findall(r"(?:statement|execute [^:]+): (\w+.{,30})", file.read().decode(errors="replace"))

    def queries(start: int) -> int:
        return sum(not re.match("BEGIN|COMMIT|ROLLBACK", statement) for statement in said(start))

    worker = Worker(tmp_path, "-c", "2", **settings)
    with ended(worker):
        start = log.stat().st_size
        c = client(tmp_path, **settings)
        assert c.sessions.start(one("edge.inc")).wait(10) == "completed"
        until(lambda: any(statement.startswith("INSERT INTO maintenance_jobs") for statement in said(start)))
        time.sleep(1)
        start, seconds = log.stat().st_size, 5
        time.sleep(seconds)
        rate = queries(start) / seconds
        start = log.stat().st_size
        c.maintenance.run("sweep")
        sweep = queries(start)  # its own, those of who asks, and the worker's of that moment
        print(f"idle: {rate:.1f} queries/s, and {sweep} a minute for sweeping")
        assert rate + sweep / 60 <= 2


BARE = """
from celery import Celery
app = Celery("bare", broker=__import__("os").environ["BROKER"])
@app.task
def add(x, y): return x + y
"""


def _memory(pid: int) -> tuple[float, float]:
    """(RSS, PSS) of a process in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, pss = (int(re.findall(rf"^{kind}:\s+(\d+)", rollup, re.M)[0]) / 1024 for kind in ("Rss", "Pss"))
    return rss, pss


def test_a_worker_needs_little_more_memory_than_a_bare_one(tmp_path: Path, own_redis: RedisServer, client: Any) -> None:
    (tmp_path / "bare.py").write_text(BARE)
    bare = Worker(tmp_path, "-c", "1", app="bare", name="bare", BROKER=own_redis.url)
    ours = Worker(tmp_path, "-c", "1", broker_url=own_redis.url)
    with ended(bare, ours):
        assert client(tmp_path, broker_url=own_redis.url).sessions.start(one("edge.inc")).wait(10) == "completed"
        for which in ("parent", "child"):
            pids = [w.pid if which == "parent" else w.children()[-1] for w in (bare, ours)]
            (bare_rss, bare_pss), (rss, pss) = map(_memory, pids)
            print(f"{which}: RSS {rss:.0f} MB (bare {bare_rss:.0f}), PSS {pss:.0f} MB (bare {bare_pss:.0f})")
            assert rss <= bare_rss + 40


def test_a_worker_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    script = "import sys, celeriac; celeriac.Celeriac().prepare(); print(*sys.modules)"
    loaded = {module.partition(".")[0] for module in python(script, tmp_path).stdout.split()}
    heavy = {
        "alembic",
        "rich",
        "typst",
        "pypdf",
        "pydantic_ai",
        "markdown_it",
        "license_expression",
        "flower",
        "redis",
        "psycopg",
    }
    assert not loaded & heavy, loaded & heavy
