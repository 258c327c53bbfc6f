"""Retention: what must stay stays, what is to go goes, a dry run says so before, and no writer waits for it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Driver

from celeriac import step
from celeriac.errors import AccessDenied, CeleriacError
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.keeping.retention import Retained, Retention
from celeriac.orchestration.session import Session
from celeriac.storage import batches, sqlite, vacuum
from keeping.aged import DAY, age, count, counts, retention, sql

Make = Callable[..., Driver]
#: Every setting by which something of a user's goes.
ALL = {
    f"retention_{name}_days": 30.0
    for name in ("completed", "failed", "dead", "cancelled", "archived", "paused", "idle", "checkpoints", "events",
                 "state_events", "cold", "refusals", "migrations")
}  # fmt: skip


def done(driver: Driver, size: int = 10, steps: int = 2, **options: Any) -> Session:
    """A completed session."""
    session = driver.start(*(step(f"s{n}", "echo", {"x": "x" * size, "n": n}) for n in range(steps)), **options)
    driver.run(session)
    assert session.status == "completed"
    return session


def test_by_default_nothing_of_a_users_content_goes(make: Make) -> None:
    driver = make()
    session = done(driver)
    session.add(role="user", content="hello")
    driver.engine.state.set("custom:x", "k", 1)
    age(driver, session, 1000)
    assert counts(retention(driver).plan()) == {}
    assert counts(retention(driver).run()) == {}
    assert session.history.count() == 1 and session.output("s0")["n"] == 0


@pytest.mark.parametrize("status", ["completed", "failed", "dead", "cancelled", "archived", "paused", "idle"])
def test_sessions_of_a_status_go_when_they_are_old_and_others_stay(make: Make, status: str) -> None:
    driver = make(**{f"retention_{status}_days": 30.0})

    def one(pin: bool = False) -> Session:
        if status in ("failed", "dead"):
            session = driver.start(step("a", "fail", {}))
            driver.run_to_end(session)
            if status == "dead":
                sql(driver, "UPDATE steps SET status = 'dead' WHERE session_id = :i", i=session.id)
        elif status in ("completed", "archived"):
            session = done(driver)
            session.change(pinned=pin)
            if status == "archived":
                session.archive()
        else:
            session = driver.sessions.create("q")
            {"cancelled": session.cancel, "paused": session.pause, "idle": lambda: None}[status]()
        if status not in ("completed", "archived"):
            session.change(pinned=pin)
        return session

    old, young, pinned, talking = one(), one(), one(pin=True), one()
    other = driver.start(step("a", "echo", {}))  # has work
    for session in (old, pinned, talking, other):
        age(driver, session, 31)
    age(driver, young, 29)
    if status != "archived":
        talking.add(role="user", content="still here")
    found = retention(driver).run()
    gone = 1 if status != "archived" else 2
    assert found.kinds[f"sessions: {status}"].count == gone
    left = {row.id for row in driver.sessions.list(status=[*_STATES], limit=100)}
    assert left == {young.id, pinned.id, other.id, *([talking.id] if status != "archived" else [])}
    assert count(driver, "steps WHERE session_id = :i", i=old.id) == 0
    other.cancel()
    sql(driver, "UPDATE steps SET status = 'failed' WHERE status = 'dead'")


_STATES = ("active", "paused", "completed", "failed", "cancelled", "archived")


@pytest.mark.parametrize("seed", range(3))
def test_a_dry_run_says_what_the_run_then_does_and_what_must_stay_stays(make: Make, seed: int) -> None:
    driver, pick = make(**ALL, checkpoints_kept=3, inline_result_bytes=2000), random.Random(seed)
    keep: dict[str, list[Any]] = {}
    for n in range(12):
        session = done(driver, size=pick.choice([10, 5000]), steps=pick.randint(1, 6))
        for k in range(pick.randint(0, 5)):
            session.add(role="user", content=f"{n} {k} " + "y" * pick.choice([5, 4000]))
        driver.engine.state.set(f"session:{session.id}", "k", "z" * pick.choice([5, 4000]))
        if pick.random() < 0.3:
            session.checkpoint("by hand")
        if pick.random() < 0.3:
            session.change(pinned=True)
        if pick.random() < 0.3:
            session.mark(session.checkpoints()[0]["id"])
        old = pick.random() < 0.6
        age(driver, session, 40 if old else 5)
        if pinned(session) or not old:
            lasting = ("final", "manual")
            keep[session.id] = [c["id"] for c in session.checkpoints() if c["marked"] or c["kind"] in lasting]
    sql(driver, "UPDATE state_events SET at = at - :s WHERE version IN (SELECT version FROM state_events ORDER BY"
        " version LIMIT 4)", s=40 * DAY)  # fmt: skip
    planned = retention(driver).plan()
    again = retention(driver).run(dry_run=True)
    assert counts(planned) == counts(again) and planned.count > 0
    went = retention(driver).run()
    assert counts(went) == counts(planned)
    assert counts(retention(driver).run()) == {}
    assert {one.id for one in driver.sessions.list(limit=100)} == set(keep)
    for session_id, wanted in keep.items():
        session = driver.sessions.get(session_id)
        assert set(wanted) <= {c["id"] for c in session.checkpoints()}
        assert len(session.output("s0")["x"]) in (10, 5000)
        assert len(list(session.history.all())) == session.history.count()
        assert driver.engine.state.get(f"session:{session_id}", "k")[0] == "z"


def pinned(session: Session) -> bool:
    return bool(session.to_dict(details=False)["pinned"])


def test_surplus_checkpoints_of_a_running_session_go_and_the_rest_can_be_restored(make: Make) -> None:
    driver = make(checkpoints_kept=4)
    session = driver.start(*(step(f"s{n}", "echo", {"n": n}, after=[f"s{n - 1}"] if n else []) for n in range(30)))
    driver.run(session, most=25)
    first = session.checkpoints()[1]["id"]
    session.mark(first)
    assert len(session.checkpoints()) > 20
    found = retention(driver).run()
    left = session.checkpoints()
    assert found.kinds["checkpoints"].count > 15 and len(left) == 5 and left[0]["id"] == first
    assert len(session.checkpoint_state(left[0]["id"])["steps"]) == 30
    session.pause()
    session.restore(left[2]["id"])
    session.resume()
    assert driver.run_to_end(session) == "completed"


def test_old_checkpoints_go_but_the_newest_stays(make: Make) -> None:
    driver = make(retention_checkpoints_days=30.0)
    session = driver.start(*(step(f"s{n}", "echo", {"n": n}, after=[f"s{n - 1}"] if n else []) for n in range(6)))
    driver.run(session, most=4)
    age(driver, session, 31)
    last = session.checkpoints()[-1]["number"]
    retention(driver).run()
    assert [c["number"] for c in session.checkpoints()] == [last]
    session.cancel()


def test_old_events_go_but_the_last_and_following_goes_on(make: Make) -> None:
    driver = make(retention_events_days=30.0)
    session = done(driver)
    before = [event.seq for event in session.stream(follow=False)]
    age(driver, session, 31)
    found = retention(driver).run()
    assert found.kinds["events"].count == len(before) - 1
    assert [event.seq for event in session.stream(follow=False)] == before[-1:]
    session.change(title="an event more")
    assert [event.seq for event in session.stream(from_offset=2)] == [before[-1], before[-1] + 1]


def test_blobs_that_nothing_refers_to_go_after_a_while_and_the_others_stay(make: Make) -> None:
    driver = make(inline_result_bytes=100)
    session = done(driver, size=500)
    blobs = driver.engine.blobs
    young, old = blobs.put(b"young"), blobs.put(b"old")
    noted = blobs.put(b"noted")
    sql(driver, "INSERT INTO blobs (hash, size, created_at) VALUES (:h, 5, 0)", h=noted)
    sql(driver, "UPDATE blobs SET created_at = 0")
    for name in {*blobs.hashes()} - {young}:
        os.utime(blobs._path(name), (0, 0))
    left = blobs._path(old).with_name(".tmp-1-abc")
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    found = counts(retention(driver).run())
    assert (found["blobs"][0], found["blob files"][0], found["temporary files"]) == (1, 1, (1, 4))
    assert {*blobs.hashes()} == {young, *_named(driver)} and not left.exists()
    assert session.output("s0")["n"] == 0
    blobs.delete(young)


def _named(driver: Driver) -> set[str]:
    from sqlalchemy import text

    rows = driver.engine.database.read(lambda tx: tx.rows(text("SELECT blob FROM results WHERE blob IS NOT NULL")))
    return {row[0] for row in rows}


def test_what_is_over_goes_from_every_other_table(make: Make) -> None:
    driver = make(**ALL)
    state = driver.engine.state
    for n in range(3):
        state.set("custom:x", f"k{n}", n, ttl=100)
    sql(driver, "UPDATE state_values SET expires_at = 5 WHERE key = 'k0'")
    sql(driver, "UPDATE state_events SET at = 5 WHERE key <> 'k2'")
    sql(driver, "INSERT INTO workers (id, name, slots, queues, started_at, seen_at) VALUES ('w', 'w', 1, '', 1, 1)")
    sql(driver, "INSERT INTO outbox (session_id, queue, priority, hints, created_at) VALUES ('gone', 'q', 1, 1, 1)")
    sql(driver, "INSERT INTO refusals (id, tenant, principal, level, resource, times, first_at, last_at)"
        " VALUES ('r', '', 'eve', 'read', 'x', 1, 1, 1)")  # fmt: skip
    for status in ("accepted", "done"):
        sql(driver, "INSERT INTO migration_runs (id, schema, target, scope, key, level, place, status, created_at,"
            " updated_at) VALUES (:s, 's', '1', 'x', 'k', 'basic', 'p', :s, 1, 1)", s=status)  # fmt: skip
        sql(driver, "INSERT INTO migrated_values (run_id, scope, key, status, source, version)"
            " VALUES (:s, 'x', 'k', 'failed', '1', 1)", s=status)  # fmt: skip
    planned = counts(retention(driver).plan())
    assert {name: one[0] for name, one in planned.items()} == {
        "state events": 2, "refusals": 1, "old values of migrations": 1, "migrations": 1, "outbox": 1, "workers": 1,
        "values of state": 1,
    }  # fmt: skip
    assert counts(retention(driver).run()) == planned
    assert [state.get("custom:x", f"k{n}") for n in range(3)] == [None, 1, 2]
    assert count(driver, "migration_runs") == count(driver, "migrated_values") == 1
    sql(driver, "DELETE FROM migrated_values")


def fill(driver: Driver, entries: int = 3000, size: int = 1500) -> Session:
    """A cancelled session with many rows."""
    session = driver.sessions.create("big")
    session.history.extend({"role": "user", "content": f"{n} " + "m" * size} for n in range(entries))
    driver.engine.state.set_many(f"session:{session.id}", {f"k{n}": "v" * 200 for n in range(500)})
    session.cancel()
    age(driver, session, 40)
    return session


def test_a_large_session_goes_in_short_transactions_and_the_file_shrinks(make: Make) -> None:
    driver = make(**ALL)
    keep, big = done(driver), fill(driver)
    vacuum.checkpoint(driver.engine.database)
    size = vacuum.file_bytes(driver.engine.database)
    found = retention(driver).run()
    assert found.kinds["sessions: cancelled"].count == 1
    for table in ("history", "conversations", "removals", "state_changes"):
        assert count(driver, table) == 0, table
    assert count(driver, "state_values") == 0
    with pytest.raises(CeleriacError):
        driver.sessions.get(big.id)
    assert keep.output("s0")["n"] == 0
    if driver.engine.database.is_sqlite:
        assert found.free_bytes == 0 and vacuum.file_bytes(driver.engine.database) < size / 4
    else:
        assert "autovacuum" in found.notes[0]


def test_no_writer_waits_long_for_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.time, "perf_counter", time.thread_time)  # what others do does not count
    driver = Driver(f"sqlite:///{tmp_path / 'c.db'}", tmp_path / "data", **ALL)
    other = Driver(f"sqlite:///{tmp_path / 'c.db'}", tmp_path / "data")
    try:
        for attempt in range(3):  # on a machine that does other things as well, everybody waits now and then
            fill(driver, 9000)
            found, waits = beside_a_writer(driver, other)
            assert found.kinds["sessions: cancelled"].count == 1 and len(waits) > 50
            assert found.longest < 0.05, found.longest
            late = sorted(waits)[int(len(waits) * 0.98)]
            print(f"attempt {attempt}: of 100 writers, 98 waited {late * 1e3:.0f} ms at most")
            if late < 0.05:
                break
        assert late < 0.05, sorted(waits)[-10:]
    finally:
        driver.close()
        other.close()


def beside_a_writer(driver: Driver, other: Driver) -> tuple[Retained, list[float]]:
    """Run retention while another one writes again and again; gives the seconds that each of those writes waited."""
    waits, over = list[float](), threading.Event()

    def write() -> None:
        while not over.is_set():
            began = time.monotonic()
            other.engine.database.write(lambda tx: waits.append(time.monotonic() - began))  # noqa: B023
            time.sleep(0.001)

    beside = threading.Thread(target=write)
    beside.start()
    try:
        return retention(driver).run(), waits
    finally:
        over.set()
        beside.join()


def test_two_retentions_at_once_take_each_thing_once(make: Make) -> None:
    driver = make(**ALL)
    for _ in range(6):
        age(driver, done(driver, steps=3), 40)
    fill(driver, 400)
    planned = retention(driver).plan()
    with_args = [sys.executable, str(Path(__file__).with_name("running.py")), *arguments(driver)]
    others = [subprocess.Popen(with_args, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [int(one.communicate(timeout=60)[0]) for one in others]
    assert [one.returncode for one in others] == [0, 0]
    assert sum(told) == sum(one.count for name, one in planned.kinds.items() if name.startswith("sessions"))
    assert count(driver, "sessions") == count(driver, "history") == count(driver, "removals") == 0


def arguments(driver: Driver) -> list[str]:
    return [driver.engine.database.url.render_as_string(hide_password=False), str(driver.settings.data_dir)]


def test_a_killed_retention_leaves_nothing_half_done_for_the_next_one(make: Make) -> None:
    driver = make(**ALL, inline_result_bytes=1000)
    keep = done(driver, size=3000)
    for _ in range(3):
        fill(driver, 120)
    command = [sys.executable, str(Path(__file__).with_name("running.py")), *arguments(driver), "die"]
    for _ in range(3):
        assert subprocess.run(command, timeout=60).returncode in (-9, 0)
        left = {row.id for row in driver.sessions.list(limit=100)}
        for session_id in left - {keep.id}:  # whole, or gone
            assert (
                driver.sessions.get(session_id).history.count()
                == 120
                == count(driver, "history WHERE session_id = :i", i=session_id)
            )
    retention(driver).run()
    assert {row.id for row in driver.sessions.list(limit=100)} == {keep.id}
    assert count(driver, "history") == count(driver, "removals") == 0
    sql(driver, "UPDATE blobs SET created_at = 0")
    for name in driver.engine.blobs.hashes():
        os.utime(driver.engine.blobs._path(name), (0, 0))
    retention(driver).run()
    assert {*driver.engine.blobs.hashes()} == _named(driver)
    assert len(keep.output("s0")["x"]) == 3000


def test_retention_is_for_who_has_admin_on_everything_and_of_all_tenants(make: Make) -> None:
    driver = make(access="on")
    with pytest.raises(AccessDenied):
        Retention(driver.engine, Caller("eve", ""))
    with pytest.raises(CeleriacError, match="of all tenants"):
        Retention(make().engine, Caller("", "acme"))


def test_a_file_of_an_older_celeriac_keeps_its_room_until_it_is_vacuumed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "old.db"
    connection = sqlite.library().connect(file)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE before (x)")
    connection.close()
    driver = Driver(f"sqlite:///{file}", tmp_path / "data", **ALL)
    fill(driver)
    found = retention(driver).run()
    assert found.free_bytes > 1_000_000 and "celeriac db vacuum" in found.notes[0]
    before, after = vacuum.vacuum(driver.engine.database)
    assert after < before / 4 and vacuum.gives_back(driver.engine.database)
    fill(driver)
    found = retention(driver).run()
    assert (found.free_bytes, found.notes) == (0, [])
    driver.close()
