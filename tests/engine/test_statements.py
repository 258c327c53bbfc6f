"""The statements of a step's trip find their rows by key, however many steps a session has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from driver import Driver

from celeriac import step
from celeriac.storage import graph, steps
from celeriac.storage.database import Call, Transaction

#: Steps of the session that are looked at, and rows that one statement may read besides those that it wants.
WIDTH, FEW = 300, 5


def of_a_trip(driver: Driver) -> list[Call]:
    """The statements of one step's trip in a wide fan-out whose first steps have ended."""

    @driver.agent("list")
    def items(request: Any, ctx: Any) -> Any:
        return list(range(WIDTH))

    session = driver.start(
        step("list", "list"), step("wide", "echo", "${item}", each="${list}"), step("join", "echo", after=["wide"])
    )
    driver.run(session, most=WIDTH // 3)
    work = driver.engine.claim(session.id)
    assert work is not None
    c = work.claimed
    return [
        steps.claiming(c.session_id, "me", 30.0),
        steps.claiming(c.session_id, "me", 30.0, c.queue),
        steps.finishing(c),
        graph.counting_down(driver.engine.database.dialect.name, c.session_id, c.number),
    ]


class Undone(Exception):
    """Takes a transaction back."""


def explained(driver: Driver, prefix: str, call: Call) -> list[Any]:
    """What the database says to a statement behind `prefix`; what the statement did is taken back."""
    rows: list[Any] = []

    def work(tx: Transaction) -> None:
        text, carried = call[0].text(tx._dialect)
        tx._cursor.execute(prefix + text, {**carried, **call[1]})
        rows.extend(tx._cursor.fetchall())
        raise Undone

    with pytest.raises(Undone):
        driver.engine.database.write(work)
    return rows


def needless(node: Mapping[str, Any]) -> int:
    """Rows that a plan of PostgreSQL read and threw away."""
    here = sum(int(value) * int(node.get("Actual Loops", 1)) for key, value in node.items() if "Removed" in key)
    sorted_ = node.get("Actual Rows", 0) if node["Node Type"] in ("Seq Scan", "Sort") else 0
    return here + int(sorted_) + sum(needless(child) for child in node.get("Plans", []))


def test_no_statement_of_a_trip_reads_all_steps_of_the_session(driver: Driver) -> None:
    for call in of_a_trip(driver):
        if driver.engine.database.is_sqlite:
            steps_of_plan = [row[3] for row in explained(driver, "EXPLAIN QUERY PLAN ", call)]
            assert not [one for one in steps_of_plan if "SCAN" in one or "TEMP B-TREE" in one], steps_of_plan
        else:
            ((plan,),) = explained(driver, "EXPLAIN (ANALYZE, FORMAT JSON) ", call)
            assert needless(plan[0]["Plan"]) <= FEW, json.dumps(plan, indent=1)


def test_a_worker_goes_on_with_whichever_session_has_something_to_do(driver: Driver) -> None:
    sessions = [driver.start(step("only", "echo", n)) for n in range(5)]
    found = set()
    while (work := driver.engine.claim_any()) is not None:
        found.add(work.session_id)
        driver.perform(work)
    assert found == {session.id for session in sessions}
    assert {session.status for session in sessions} == {"completed"}


def test_of_the_sessions_that_wait_the_most_urgent_is_gone_on_with(driver: Driver) -> None:
    for _ in range(3):
        driver.start(step("only", "echo"))
    urgent = driver.start(step("only", "echo", priority=9))
    work = driver.engine.claim_any()
    assert work is not None and work.session_id == urgent.id


def test_a_worker_goes_on_with_no_step_of_another_queue_or_of_a_paused_session(driver: Driver) -> None:
    driver.start(step("only", "echo", queue="elsewhere"))
    driver.start(step("only", "echo")).pause()
    assert driver.engine.claim_any(driver.settings.queue) is None
    assert driver.engine.claim_any("elsewhere") is not None


def test_a_paused_session_lets_nothing_begin_when_a_step_ends(driver: Driver) -> None:
    session = driver.start(step("a", "echo"), step("b", "echo", after=["a"]))
    work = driver.engine.claim(session.id)
    assert work is not None
    session.pause()
    assert driver.perform(work, carry=True) is None
    assert [one["status"] for one in session.steps()] == ["done", "ready"]
    assert driver.engine.claim(session.id) is None
    session.resume()
    driver.run(session)
    assert session.status == "completed"
