"""A session and a user have at most what the quotas allow; what is over is refused, and says which quota it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import QuotaExceeded
from celeriac.orchestration import quotas
from celeriac.orchestration.plans import Plan, step
from celeriac.storage import schema, sessions
from celeriac.storage.database import Database

Make = Callable[..., Driver]


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Driver] = []

    def one(**settings: Any) -> Driver:
        driver = Driver(database_url, tmp_path / "data", inline_result_bytes=2000, **settings)
        made.append(driver)

        @driver.agent("give", retries=3, backoff=0.001)
        def give(request: int, ctx: Any) -> str:
            runs.append(request)
            return "x" * (request - 2)

        @driver.agent("partly")
        def partly(request: int, ctx: Any) -> str:
            ctx.partial("x" * (request - 2))
            return ""

        runs: list[int] = []
        driver.runs = runs  # type: ignore[attr-defined]
        return driver

    yield one
    for driver in made:
        driver.close()


def chain(*sizes: int) -> list[Any]:
    """Steps that give so many bytes, one after the other."""
    return [step(f"s{n}", agent="give", request=s, after=[f"s{n - 1}"] if n else []) for n, s in enumerate(sizes)]


def test_a_user_has_no_more_open_sessions_than_allowed(make: Make) -> None:
    driver = make(quota_user_sessions=2)
    first, _ = driver.sessions.create("q", "ana"), driver.sessions.start(Plan("p", chain(10)), user="ana", key="k")
    with pytest.raises(QuotaExceeded, match="quota_user_sessions: user 'ana' has 2 .* at most 2 are allowed"):
        driver.sessions.create("q", "ana")
    assert driver.sessions.start(Plan("p", chain(10)), user="ana", key="k").user == "ana"  # it is there already
    driver.sessions.create("q", "ben")
    first.pause()
    with pytest.raises(QuotaExceeded):
        driver.sessions.create("q", "ana")
    first.cancel()
    assert driver.sessions.create("q", "ana").status == "active"
    assert len(driver.sessions.list(user="ana", status="active")) == 2


def test_a_step_that_records_too_much_fails_at_once_and_for_good(make: Make) -> None:
    driver = make(quota_session_bytes=1000)
    session = driver.start(*chain(600, 400, 10))
    assert driver.run_to_end(session) == "failed" and driver.runs == [600, 400, 10]
    assert driver.states(session) == {"s0": "done", "s1": "done", "s2": "failed"}
    told = (
        "QuotaExceeded: quota_session_bytes: session {} uses 1,000 bytes and needs 10 more; at most 1,000 are allowed"
    )
    assert session.steps()[2]["error"] == told.format(session.id)
    assert driver.run_to_end(driver.start(*chain(900))) == "completed"


def test_partial_results_count(make: Make) -> None:
    driver = make(quota_session_bytes=1000)
    session = driver.start(step("a", agent="partly", request=995), step("b", agent="give", request=10, after=["a"]))
    assert driver.run_to_end(session) == "failed" and "uses 997 bytes" in session.error


def test_a_session_has_no_more_blobs_than_allowed_and_none_is_left_lying_about(make: Make) -> None:
    driver = make(quota_session_blobs=1)
    session = driver.start(*chain(3000, 100, 4000))
    assert driver.run_to_end(session) == "failed"
    assert "quota_session_blobs: session" in session.error and "uses 1 blobs and needs 1 more" in session.error
    assert len(list(driver.engine.blobs.hashes())) == 1


def test_what_a_user_has_is_summed_up_over_sessions_and_processes(make: Make, monkeypatch: Any) -> None:
    monkeypatch.setattr(quotas, "KNOWN_SECONDS", 0.0)  # what others record is known at once
    one, other = make(quota_user_bytes=1000), make(quota_user_bytes=1000)
    for driver, size, end in ((one, 500, "completed"), (other, 400, "completed"), (one, 200, "failed")):
        session = driver.start(*chain(size), user="ana")
        assert driver.run_to_end(session) == end, session.error
    assert "quota_user_bytes: user 'ana' uses 900 bytes and needs 200 more; at most 1,000 are allowed" in session.error
    assert one.run_to_end(one.start(*chain(900), user="ben")) == "completed"
    for old in one.sessions.list(user="ana"):
        one.sessions.delete(old.id)
    assert one.run_to_end(one.start(*chain(900), user="ana")) == "completed"


def test_what_an_agent_does_once_counts(make: Make) -> None:
    driver = make(quota_session_bytes=1000)

    @driver.agent("often", retries=2, backoff=0.001)
    def often(request: int, ctx: Any) -> None:
        for n in range(request):
            ctx.once(f"n{n}", lambda: "x" * 398)

    session = driver.start(step("a", agent="often", request=3))
    assert driver.run_to_end(session) == "failed" and "uses 800 bytes and needs 400 more" in session.error


@pytest.mark.parametrize("where", ["", "file"])
def test_what_is_said_counts_and_is_refused_when_it_is_too_much(make: Make, where: str, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'said'}" if where else ""
    driver = make(quota_session_bytes=1000, quota_user_bytes=1500, history_url=url)
    session, other = driver.sessions.create("q", "ana"), driver.sessions.create("q", "ana")
    for _ in range(3):
        session.history.add("user", "x" * 272)  # 300 bytes as JSON
    with pytest.raises(QuotaExceeded, match="quota_session_bytes: session .* uses 900 bytes and needs 300 more"):
        session.history.add("user", "x" * 272)
    with pytest.raises(QuotaExceeded, match="quota_user_bytes: user 'ana' uses 900 bytes and needs 900 more"):
        other.history.extend([{"role": "user", "content": "x" * 272}] * 3)
    assert (session.history.count(), other.history.count()) == (3, 0)
    made = driver.start(*chain(700), user="ana")
    assert driver.run_to_end(made) == "failed" and "user 'ana' uses 900 bytes" in made.error
    if not where:
        session.history.clear()
        other.history.extend([{"role": "user", "content": "x" * 272}] * 3)


def test_without_quotas_it_is_counted_all_the_same_so_that_one_can_be_set_later(make: Make) -> None:
    driver = make()
    session = driver.start(*chain(3000, 100))
    assert driver.run_to_end(session) == "completed"
    hot = driver.engine.database.read(lambda tx: sessions.look(tx, session.id))
    assert hot is not None and (hot.stored_bytes, hot.stored_blobs) == (3100, 1)
    later = make(quota_user_bytes=3150)
    assert later.run_to_end(later.start(*chain(60))) == "failed"


def test_what_was_said_before_there_were_quotas_counts(make: Make) -> None:
    session = make().sessions.create("q", "ana")
    session.history.add("user", "x" * 272)
    session.history.extend([{"role": "user", "content": "x" * 2972}])
    with pytest.raises(QuotaExceeded, match="uses 3,300 bytes and needs 300 more; at most 3,500"):
        make(quota_session_bytes=3500).sessions.get(session.id).history.add("user", "x" * 272)


def test_what_sessions_had_before_there_were_quotas_is_counted_by_the_migration(database_url: str) -> None:
    database = Database(database_url)
    schema.upgrade(database, "0007")
    rows = {
        "sessions (id, query, status, phase, correlation_id, created_at, updated_at)": [
            "'a', 'q', 'active', 'x', 'c', 1, 1",
            "'b', 'q', 'active', 'x', 'c', 1, 1",
        ],
        "results (session_id, number, epoch, body, blob, size)": [
            "'a', 1, 1, '12', NULL, 2",
            "'a', 2, 1, NULL, 'f', 70",
        ],
        "partial_results (session_id, seq, number, agent, body)": ["'a', 5, 1, 'x', '123'"],
    }
    with database.engine.begin() as connection:
        for into, values in rows.items():
            for one in values:
                connection.execute(text(f"INSERT INTO {into} VALUES ({one})"))
    schema.upgrade(database)
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT id, stored_bytes, stored_blobs FROM sessions ORDER BY id")).fetchall()
    assert [tuple(row) for row in found] == [("a", 75, 1), ("b", 0, 0)]
    database.dispose()
