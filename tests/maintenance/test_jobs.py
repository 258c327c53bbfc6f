"""What each job does, on both databases, as the schedule has it done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driver import Driver
from sqlalchemy import text

from celeriac import step
from celeriac.errors import AccessDenied, MaintenanceError
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.cache import ResultCache
from celeriac.orchestration.guard.access import Caller, Housekeeper
from celeriac.orchestration.guard.grants import bootstrap
from celeriac.orchestration.maintenance.jobs import JOBS
from celeriac.orchestration.maintenance.keeper import Ended, Keeper
from celeriac.orchestration.maintenance.maintenance import Maintenance
from celeriac.orchestration.sessions import Sessions

MakeDriver = Callable[..., Driver]
DAY = 86400


def chain(agent: str, n: int) -> list[Any]:
    """Steps of which each waits for the one before."""
    return [step(f"s{k}", agent, {}, after=[f"s{k - 1}"] if k else []) for k in range(n)]


def ran(driver: Driver, job: str) -> Ended:
    """Run a job that has to succeed."""
    cache = ResultCache(driver.engine.settings, driver.engine.database, driver.engine.blobs)
    ended = Keeper(driver.engine, cache).run_now(job)
    assert ended.outcome == "done", ended.error
    return ended


def changed(driver: Driver, statement: str) -> None:
    driver.engine.database.write(lambda tx: tx.run(text(statement)))


def values(driver: Driver, query: str) -> list[Any]:
    return [row[0] for row in driver.engine.database.read(lambda tx: tx.rows(text(query)))]


def test_expiry_removes_what_nobody_can_read_any_more(make_driver: MakeDriver) -> None:
    driver = make_driver()
    state, cache = (
        driver.engine.state,
        ResultCache(driver.engine.settings, driver.engine.database, driver.engine.blobs),
    )
    for n in range(3):
        state.set("custom:x", f"passing{n}", "x" * 2_000_000 if n == 0 else n, ttl=60)
        cache.put(cache.key("a", n, permissions=[]), n, ttl=60)
    state.set("custom:x", "stays", 1)
    changed(driver, "UPDATE state_values SET expires_at = 1 WHERE expires_at IS NOT NULL")
    changed(driver, "UPDATE cached_results SET stale_until = 1")
    assert ran(driver, "expiry").detail == {"cached": 3, "state": 3, "sessions": 0}
    assert values(driver, "SELECT key FROM state_values") == ["stays"]
    assert values(driver, "SELECT hash FROM blobs") == []


def test_expiry_cancels_what_nobody_goes_on_with_in_all_tenants(make_driver: MakeDriver) -> None:
    driver = make_driver(inactive_days=10)
    ids = {}
    for name, tenant in (("old", ""), ("other", "acme"), ("pinned", ""), ("young", "")):
        session = Sessions(driver.engine, caller=Caller("", tenant)).create(name)
        ids[session.id] = name
        if name == "pinned":
            session.change(pinned=True)
        if name != "young":
            changed(driver, f"UPDATE sessions SET updated_at = updated_at - {11 * DAY} WHERE id = '{session.id}'")
    assert ran(driver, "expiry").detail["sessions"] == 2
    cancelled = values(driver, "SELECT id FROM sessions WHERE status = 'cancelled'")
    assert {ids[one] for one in cancelled} == {"old", "other"}


def test_checkpoints_of_a_session_that_runs_are_pruned_and_it_goes_on(make_driver: MakeDriver) -> None:
    driver = make_driver(checkpoints_kept=4)

    @driver.agent("count")
    def count(request: Any, ctx: Any) -> int:
        ctx.memory["n"] = ctx.memory.get("n", 0) + 1
        return int(ctx.memory["n"])

    session = driver.start(*chain("count", 15))
    driver.run(session, most=12)
    before = session.checkpoints()
    kept = session.checkpoint("mine")
    assert ran(driver, "checkpoints").detail == {"checkpoints": len(before) - 3, "sessions": 1}
    left = session.checkpoints()
    assert [one["number"] for one in left] == [one["number"] for one in [*before, {"number": len(before) + 1}]][-4:]
    assert kept in {one["id"] for one in left}
    for one in left:
        assert "s0" in session.checkpoint_state(one["id"])["steps"]
    session.restore(left[0]["id"])
    session.resume()
    assert driver.run_to_end(session) == "completed" and session.agent_states()["count"]["state"] == {"n": 15}
    assert ran(driver, "checkpoints").detail == {"checkpoints": 0, "sessions": 0}


def test_backups_are_made_and_thinned_out_where_access_is_on_and_a_tenant_is_set(make_driver: MakeDriver) -> None:
    driver = make_driver(access="on", tenant="acme", backups_kept=1, backups_kept_least=1, backups_kept_daily=0,
                         backups_kept_weekly=0, backups_kept_monthly=0)  # fmt: skip
    first, second = ran(driver, "backup").detail["id"], ran(driver, "backup").detail["id"]
    assert ran(driver, "backup_retention").detail["deleted"] == 1
    backups = Backups(driver.engine, Housekeeper())
    assert [one.id for one in backups.list()] == [second] and backups.verify(second).ok and first != second


def test_statistics_are_rows_and_only_so_many(make_driver: MakeDriver) -> None:
    driver = make_driver(maintenance_kept=3)

    @driver.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    driver.run(driver.start(*chain("echo", 2)))
    driver.sessions.create("waits")
    ran(driver, "statistics")
    driver.run(driver.start(*chain("echo", 3)))
    for _ in range(4):
        ran(driver, "statistics")
    found = Maintenance(driver.engine, Keeper(driver.engine, None), Caller()).stats(10)  # type: ignore[arg-type]
    assert len(found) == 3 and found[0]["at"] > found[1]["at"]
    assert found[0]["sessions"] == {"active": 1, "completed": 2} and found[0]["steps"] == {"done": 5}
    assert found[0]["bytes"]["database"] > 100_000 and found[0]["entries"]["checkpoints"] > 0
    assert found[0]["per_second"] == {"sessions_started": 0, "sessions_ended": 0, "steps_ended": 0}


def test_rates_count_what_happened_since_the_row_before(make_driver: MakeDriver) -> None:
    driver = make_driver()

    @driver.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    ran(driver, "statistics")
    driver.run(driver.start(*chain("echo", 4)))
    ran(driver, "statistics")
    maintenance = Maintenance(driver.engine, Keeper(driver.engine, None), Caller())  # type: ignore[arg-type]
    now, first = maintenance.stats(2)
    assert first["per_second"] == {"sessions_started": None, "sessions_ended": None, "steps_ended": None}
    assert round(now["per_second"]["steps_ended"] * now["seconds"]) == 4
    assert round(now["per_second"]["sessions_ended"] * now["seconds"]) == 1


def test_sweeping_by_schedule_takes_back_what_a_lost_worker_had(make_driver: MakeDriver) -> None:
    driver = make_driver()

    @driver.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    session = driver.start(*chain("echo", 1))
    assert driver.engine.claim(session.id) is not None
    changed(driver, "UPDATE steps SET lease_until = 1")
    assert ran(driver, "sweep").detail["returned"] == 1
    assert driver.run_to_end(session) == "completed"


def test_maintenance_is_for_who_is_admin_of_everything(make_driver: MakeDriver) -> None:
    driver = make_driver(access="on")
    keeper = Keeper(driver.engine, None)  # type: ignore[arg-type]
    for caller in (Caller("eve"), Caller("celeriac")):  # a name alone makes nobody the housekeeper
        with pytest.raises(AccessDenied):
            Maintenance(driver.engine, keeper, caller)
    assert len(Maintenance(driver.engine, keeper, Housekeeper()).jobs()) == len(JOBS)
    with pytest.raises(MaintenanceError, match="of all tenants"):
        Maintenance(make_driver(tenant="acme").engine, keeper, Caller("eve", "acme"))


def test_retention_by_schedule_deletes_what_is_past_it(make_driver: MakeDriver) -> None:
    driver = make_driver(access="on", retention_cancelled_days=1.0)
    bootstrap(driver.engine.database, "acme", "ana")
    of_ana = Sessions(driver.engine, caller=Caller("ana", "acme"))
    old, young = of_ana.create("old"), of_ana.create("young")
    for session in (old, young):
        session.cancel()
    changed(driver, f"UPDATE sessions SET updated_at = 1, completed_at = 1 WHERE id = '{old.id}'")
    assert ran(driver, "retention").detail["count"] >= 1
    assert values(driver, "SELECT id FROM sessions") == [young.id]


def test_pruning_by_schedule_is_of_all_tenants_and_off_by_default(make_driver: MakeDriver) -> None:
    driver = make_driver()
    for tenant in ("", "acme"):
        session = Sessions(driver.engine, caller=Caller("", tenant)).create("talk", type="dm")
        for n in range(6):
            session.add(role="user", content=f"message {n}")
    assert ran(driver, "pruning").detail == {}
    pruning = make_driver(prune_strategy="lru", prune_messages=4, prune_preserve_dm=2)
    assert ran(pruning, "pruning").detail["messages"] == 4


def test_sessions_that_ended_long_ago_are_archived_in_all_tenants_where_access_is_on(make_driver: MakeDriver) -> None:
    driver = make_driver(access="on", archive_days=30.0)
    for tenant in ("", "acme"):
        bootstrap(driver.engine.database, tenant, "ana")
    ids = {}
    for name, tenant in (("old", ""), ("other", "acme"), ("pinned", ""), ("young", "")):
        session = Sessions(driver.engine, caller=Caller("ana", tenant)).create(name)
        session.cancel()
        ids[session.id] = name
        if name == "pinned":
            session.change(pinned=True)
        if name != "young":
            changed(driver, f"UPDATE sessions SET completed_at = completed_at - {31 * DAY} WHERE id = '{session.id}'")
    assert ran(driver, "archive").detail == {"sessions": 2, "settled": 0, "files": 0}
    archived = values(driver, "SELECT id FROM sessions WHERE status = 'archived'")
    assert {ids[one] for one in archived} == {"old", "other"}
    assert ran(driver, "archive").detail["sessions"] == 0
