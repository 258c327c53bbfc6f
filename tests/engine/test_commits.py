"""The database under fault: commits whose outcome is unknown, writers at once, forks, and many workers on one
session.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import elsewhere
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import SessionError, StorageError
from celeriac.orchestration import sweeping
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.plans import step
from celeriac.storage import database as databases
from celeriac.storage import sqlite
from celeriac.storage.database import Database

_COUNT = databases.Query(text("SELECT count(*) FROM t"))
_ADD = databases.Query(text("INSERT INTO t VALUES (:n)"))
_ALL = databases.Query(text("SELECT n FROM t ORDER BY rowid"))
_fork = multiprocessing.get_context("fork")


def _break_commits(database: Database, seed: int, p: float) -> list[int]:
    """With probability p each: raise instead of the COMMIT, or after it went in. Gives the counts of both."""
    rng, counts = random.Random(seed), [0, 0]
    good = database._commit
    fault = sqlite.library().OperationalError if database.is_sqlite else _psycopg_fault()

    def commit(cursor: Any) -> None:
        chance = rng.random()
        if chance < p:
            counts[0] += 1
            raise fault("the connection was lost before the commit")
        good(cursor)
        if chance > 1 - p:
            counts[1] += 1
            raise fault("the connection was lost after the commit")

    database._commit = commit
    return counts


def _psycopg_fault() -> Any:
    import psycopg

    return psycopg.OperationalError


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_commits_of_unknown_outcome_lose_and_double_nothing(driver: Driver, seed: int) -> None:
    ran: list[str] = []

    @driver.agent("work", retries=3, backoff=0)
    def work(request: Any, ctx: Any) -> Any:
        ran.append(ctx.step)
        ctx.partial({"of": ctx.step})
        ctx.memory["n"] = ctx.memory.get("n", 0) + 1
        if request == 3 and ctx.attempt == 1:
            raise ValueError("once")
        return {"n": request}

    counts = _break_commits(driver.engine.database, seed, 0.15)
    plan = [
        step("l", "echo", list(range(20))),
        step("a", "work", "${item}", each="${l}"),
        step("j", "echo", "${a}"),
    ]
    session = driver.start(*plan, key="k")
    driver.run(session, most=5)
    session.pause()
    number = session.checkpoint("here")
    session.resume()
    session.change(title="t")
    deadline = time.monotonic() + 8
    while session.status == "active":
        driver.run(session, carry=seed != 2)
        assert time.monotonic() < deadline, [s for s in session.steps() if s["status"] not in ("done", "blocked")]
    assert driver.start(*plan, key="k").id == session.id
    driver.engine.database._commit = databases._commit
    assert min(counts) > 2, counts
    assert session.result == [{"n": n} for n in range(20)]
    assert len(ran) == 21
    assert session.agent_states()["work"]["state"] == {"n": 20}
    assert len(session.partials()["work"]) == 21
    types = driver.events(session)
    for type_, times in (("session.created", 1), ("session.paused", 1), ("session.active", 1), ("session.changed", 1),
                         ("checkpoint.created", 1), ("step.expanded", 1), ("step.done", 23), ("step.retry", 1),
                         ("step.started", 23), ("session.completed", 1)):  # fmt: skip
        assert types.count(type_) == times, type_
    assert [c["id"] for c in session.checkpoints() if c["kind"] == "manual"] == [number]


def test_restore_cancel_retry_and_delete_go_in_once_whatever_happens_to_the_commit(driver: Driver) -> None:
    for seed in range(6):
        session = driver.start(step("a", "echo", 1), step("b", "fail", 2), step("c", "echo", after=["b"]))
        driver.run(session)
        _break_commits(driver.engine.database, seed, 0.3)
        assert session.retry() == 2
        session.cancel()
        undo = session.restore(session.checkpoints()[0]["number"])
        session.restore(undo)
        with pytest.raises(SessionError):
            session.pause()
        types = driver.events(session)
        assert (types.count("session.cancelled"), types.count("session.restored"), types.count("step.reopened")) == (
            1,
            2,
            2,
        )
        assert [c["kind"] for c in session.checkpoints()].count("restore") == 2
        driver.sessions.delete(session.id)
        driver.engine.database._commit = databases._commit
    assert driver.sessions.list() == []


def test_a_transaction_that_reads_and_then_writes_is_never_refused_as_busy(database_url: str, tmp_path: Path) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("about SQLite")
    path = tmp_path / "t.db"
    library = sqlite.library()
    one, two = (library.connect(path, isolation_level=None, timeout=5) for _ in "12")
    one.execute("PRAGMA journal_mode=WAL")
    one.execute("CREATE TABLE t (n)")
    one.execute("BEGIN")
    one.execute("SELECT * FROM t").fetchall()
    two.execute("INSERT INTO t VALUES (1)")
    began = time.monotonic()
    with pytest.raises(library.OperationalError, match="locked"):  # what a deferred transaction would meet (S1)
        one.execute("INSERT INTO t VALUES (2)")
    assert time.monotonic() - began < 1
    one.close()
    two.close()
    database = Database(f"sqlite:///{path}")

    def read_then_write(tx: databases.Transaction) -> None:
        count = tx.value(_COUNT)
        time.sleep(0.001)
        tx.run(_ADD, n=count)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: database.write(read_then_write), range(100)))
    rows = [row[0] for row in database.read(lambda tx: tx.rows(_ALL))]
    assert rows == [1, *range(1, 101)]
    runs = []

    def read_while_another_writes(tx: databases.Transaction) -> None:
        runs.append(tx.value(_COUNT))
        stranger = library.connect(path, isolation_level=None, timeout=0)
        with contextlib.closing(stranger), pytest.raises(library.OperationalError, match="locked"):
            stranger.execute("INSERT INTO t VALUES (7)")
        tx.run(_ADD, n=0)

    database.write(read_while_another_writes)
    assert runs == [101]
    database.dispose()


def test_nothing_of_ours_opens_the_database_file_but_sqlite(driver: Driver, database_url: str) -> None:
    """Opening and closing it would drop the locks that SQLite holds on it (reliability: S3)."""
    if not database_url.startswith("sqlite"):
        pytest.skip("about SQLite")
    opened: list[str] = []
    path = str(driver.engine.database.path)
    watching = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "os.open") and str(arguments[0]) in (path, f"{path}-wal", f"{path}-shm"):
            opened.append(event)

    sys.addaudithook(audit)
    session = driver.start(step("a", "echo", "x" * 1000), step("b", "echo", "${a}"))
    driver.run(session)
    session.wait(1)
    sweeping.sweep(driver.engine)
    driver.sessions.delete(session.id)
    watching = False
    assert opened == []


def test_a_full_disk_is_one_clear_error(driver: Driver) -> None:
    session = driver.start(step("a", "echo"))
    fault = sqlite3.OperationalError if driver.engine.database.is_sqlite else _psycopg_fault()

    def refuse(tx: Any) -> None:
        error = fault("database or disk is full")
        if not driver.engine.database.is_sqlite:
            import psycopg

            error = psycopg.errors.DiskFull("disk full")
        raise error

    with pytest.raises(StorageError, match="disk"):
        driver.engine.database.write(refuse)
    driver.run(session)
    assert session.status == "completed"


def _query_in_child(driver: Driver, session_id: str, answers: Any) -> None:
    session = driver.sessions.get(session_id)
    for _ in range(50):
        mine = f"{os.getpid()}-{random.random()}"
        child = driver.sessions.create(mine)
        answers.put((child.query == mine, session.status))
    answers.put(driver.engine.presence.token)


def test_forked_children_talk_to_the_database_each_on_their_own(driver: Driver) -> None:
    session = driver.start(step("a", "echo"))
    work = driver.engine.claim(session.id)
    changes = driver.engine.database.changes()
    answers = _fork.SimpleQueue()
    children = [_fork.Process(target=_query_in_child, args=(driver, session.id, answers)) for _ in range(4)]
    for child in children:
        child.start()
    got = [answers.get() for _ in range(4 * 51)]
    for child in children:
        child.join(10)
        assert child.exitcode == 0
    tokens = {answer for answer in got if isinstance(answer, str)}
    assert len(tokens | {driver.engine.presence.token}) == 5
    assert {answer for answer in got if not isinstance(answer, str)} == {(True, "active")}
    assert changes.any()
    changes.close()
    assert work is not None
    driver.perform(work)
    assert session.status == "completed"
    assert len(driver.sessions.list(limit=1000)) == 201


def test_a_fork_leaves_no_connection_to_sqlite_open_in_the_child(driver: Driver, database_url: str) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("about SQLite")
    driver.start(step("a", "echo"))
    changes = driver.engine.database.changes()
    pid = os.fork()
    if pid == 0:
        names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _is_open(n)]
        os._exit(
            any(name.startswith(str(driver.engine.database.path)) and not name.endswith("-gate") for name in names)
        )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    changes.close()


def _is_open(number: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
    return True


def _die_with_claim(driver: Driver, session_id: str) -> None:
    driver.engine.claim(session_id)
    os._exit(9)


def test_a_dead_process_s_step_is_returned_at_once(make_driver: Callable[..., Driver], driver: Driver) -> None:
    patient = make_driver(lease_seconds=60)
    patient.agent("echo")(lambda request, ctx: request)
    session = driver.start(step("a", "echo"))
    child = _fork.Process(target=_die_with_claim, args=(patient, session.id))
    child.start()
    child.join(10)
    assert driver.states(session) == {"a": "running"}
    assert sweeping.sweep(patient.engine).returned == 1
    driver.run(session)
    assert session.status == "completed"


def test_four_processes_that_end_all_parents_at_once_start_the_child_once(
    driver: Driver, database_url: str, tmp_path: Path
) -> None:
    driver.agent("note")(lambda request, ctx: request)
    parents = [step(f"p{n}", "note", n) for n in range(8)]
    plan = [*parents, step("child", "note", {f"p{n}": f"${{p{n}}}" for n in range(8)})]
    sessions = [driver.start(*plan) for _ in range(15)]
    ledger = tmp_path / "ledger"
    context = multiprocessing.get_context("spawn")
    ids = [s.id for s in sessions]
    workers = [
        context.Process(target=elsewhere.work_off, args=(database_url, str(tmp_path / "data"), ids, str(ledger), n))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    starts = ledger.read_text().splitlines()
    assert len(starts) == len(set(starts)) == 15 * 9
    for session in sessions:
        assert session.status == "completed"
        assert session.result == {f"p{n}": n for n in range(8)}


def test_findings_of_steps_that_end_at_once_are_all_kept(driver: Driver) -> None:
    @driver.agent("finder")
    def finder(request: Any, ctx: Any) -> Any:
        return AgentOutput(findings=[Finding("e", "a", request)])

    session = driver.start(*(step(f"s{n}", "finder", n) for n in range(8)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: driver.run(session, most=1), range(8)))
    driver.run(session)
    assert sorted(f["value"] for f in session.findings()) == list(range(8))
