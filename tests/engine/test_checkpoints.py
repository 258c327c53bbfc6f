"""Checkpoints: after every step, on demand, pruned, compared, restored whole or not at all, and undone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import invariants
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import CheckpointDamaged, CheckpointNotFound, SessionError
from celeriac.orchestration import sweeping
from celeriac.orchestration.agents import AgentOutput
from celeriac.orchestration.engine import Lost
from celeriac.orchestration.plans import step
from celeriac.orchestration.session import Session
from celeriac.storage import checkpoints

THREE = (step("a", "echo", 1), step("b", "echo", "${a}"), step("c", "echo", "${b}"))


def _execute(driver: Driver, statement: str) -> None:
    with driver.engine.database.engine.connect() as connection:
        connection.execute(text(statement))
        connection.commit()


def test_there_is_a_checkpoint_after_each_step(driver: Driver) -> None:
    session = driver.start(*THREE)
    driver.run(session)
    assert [c["kind"] for c in session.checkpoints()] == ["step"] * 3 + ["final"]
    assert [
        len([s for s in session.checkpoint_state(n)["steps"].values() if s["status"] == "done"]) for n in range(1, 5)
    ] == [0, 1, 2, 3]
    (change,) = [d for d in session.diff(1, 2) if d["path"] == "steps.a.status"]
    assert (change["a"], change["b"]) == ("ready", "done")


def test_a_checkpoint_costs_what_changed(driver: Driver) -> None:
    @driver.agent("keeper")
    def keeper(request: Any, ctx: Any) -> Any:
        ctx.memory.setdefault("notes", []).append(f"{ctx.step} " * 10)
        return None

    session = driver.start(*(step(f"s{n}", "keeper", after=[f"s{n - 1}"] if n else []) for n in range(60)))
    driver.run(session, most=50)
    sizes = [c["size"] for c in session.checkpoints()]
    assert max(sizes[3:]) < 500


def test_a_restored_session_runs_again_from_there_and_the_restore_can_be_undone(driver: Driver) -> None:
    runs: list[str] = []

    @driver.agent("count")
    def count(request: Any, ctx: Any) -> Any:
        runs.append(ctx.step)
        ctx.memory["runs"] = ctx.memory.get("runs", 0) + 1
        return ctx.memory["runs"]

    session = driver.start(step("a", "count"), step("b", "count", after=["a"]), step("c", "count", after=["b"]))
    driver.run(session)
    undo = session.restore(2)
    assert (session.status, driver.states(session)) == ("paused", {"a": "done", "b": "ready", "c": "blocked"})
    assert session.agent_states()["count"]["state"] == {"runs": 1}
    assert driver.run(session) == 0
    session.resume()
    driver.run(session)
    assert runs == ["a", "b", "c", "b", "c"]
    assert session.result == 3
    session.restore(undo)
    assert (session.status, session.result) == ("completed", 3)
    assert session.agent_states()["count"]["state"] == {"runs": 3}


def test_steps_of_a_fan_out_that_opened_after_the_checkpoint_are_made_anew(driver: Driver) -> None:
    items = [[1, 2, 3], [4, 5]]

    @driver.agent("giver")
    def giver(request: Any, ctx: Any) -> Any:
        return items[len([s for s in driver.started if s == "l"]) - 1]

    session = driver.start(step("l", "giver"), step("a", "echo", "${item}", each="${l}"), step("j", "echo", "${a}"))
    session.mark(1)
    driver.run(session)
    assert session.result == [1, 2, 3]
    first = session.checkpoints()[0]["number"]
    session.restore(first)
    session.resume()
    driver.run(session)
    assert session.result == [4, 5]
    session.restore(first)
    session.resume()
    items.append([6])
    driver.run(session)
    assert session.result == [6]


def test_a_claim_from_before_a_restore_cannot_write(driver: Driver) -> None:
    session = driver.start(step("l", "echo", [1, 2]), step("a", "echo", "${item}", each="${l}"))
    first = session.checkpoints()[0]["number"]
    driver.run(session, most=1)
    work = driver.engine.claim(session.id)
    assert work is not None
    with pytest.raises(SessionError, match="cannot be restored while a-0 runs"):
        session.restore(first)
    session.pause()
    with pytest.raises(SessionError, match="cannot be restored while a-0 runs"):
        session.restore(first)
    sweeping.take_back(driver.engine, session.id, [work.claimed])
    session.restore(first)
    session.resume()
    driver.run(session, most=1)
    again = driver.engine.claim(session.id)
    assert again is not None and again.claimed.name == work.claimed.name
    assert again.claimed.epoch > work.claimed.epoch
    with pytest.raises(Lost):
        driver.engine.finish(work, AgentOutput(data="late"))
    driver.perform(again)
    driver.run(session)
    assert session.result == [1, 2]


def test_a_step_that_waits_for_a_failed_one_is_not_run_after_a_restore(driver: Driver) -> None:
    session = driver.start(
        step("bad", "fail", priority=9), step("good", "echo", 1), step("both", "echo", 2, after=["bad", "good"])
    )
    driver.run(session, most=1)
    middle = session.checkpoints()[-1]["number"]
    driver.run(session)
    assert driver.states(session) == {"bad": "failed", "good": "done", "both": "skipped"}
    session.restore(middle)
    session.resume()
    driver.run(session)
    assert driver.states(session) == {"bad": "failed", "good": "done", "both": "skipped"}
    session.restore(session.checkpoints()[-1]["number"])
    assert session.status == "failed"
    assert session.retry() == 2


@pytest.mark.parametrize("move", ["cancel", "complete"])
def test_going_back_to_an_end_gives_that_end(driver: Driver, move: str) -> None:
    session = driver.start(*THREE)
    driver.run(session, most=1)
    getattr(session, move)()
    status = session.status
    end = session.checkpoints()[-1]["number"]
    session.restore(1)
    assert session.status == "paused"
    session.restore(end)
    assert session.status == status


@pytest.mark.damages_checkpoints
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE checkpoints SET body = digest WHERE number = 2",
        "UPDATE checkpoints SET base = 2 WHERE number = 2",
        "DELETE FROM checkpoints WHERE number = 2",
        "UPDATE checkpoints SET digest = body WHERE number = 1",
        "DELETE FROM results WHERE number = 1",
    ],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_restored(driver: Driver, statement: str) -> None:
    session = driver.start(*THREE)
    driver.run(session, most=2)
    _execute(driver, statement)
    before = driver.states(session)
    session.pause()
    events = driver.events(session)
    with pytest.raises(CheckpointDamaged):
        session.restore(3)
    assert driver.events(session) == events
    assert {**before, "c": "ready"} == driver.states(session)
    if "results" in statement:
        driver.sessions.delete(session.id)
        return
    session.resume()
    driver.run(session)
    assert session.status == "completed"


@pytest.mark.parametrize("unknown", ["7", 7, -1, 10**12, "x", "", "1;2", "0190a000-0000-7000-8000-000000000000:1", "٣"])
def test_an_unknown_checkpoint_is_not_found(driver: Driver, unknown: Any) -> None:
    session = driver.start(*THREE)
    for call in (session.restore, session.checkpoint_state, session.mark):
        with pytest.raises(CheckpointNotFound):
            call(unknown)


def test_the_last_ten_are_kept_and_the_marked_manual_and_final_ones(
    make_driver: Callable[..., Driver], driver: Driver
) -> None:
    session = driver.start(*(step(f"s{n}", "echo", n, after=[f"s{n - 1}"] if n else []) for n in range(40)))
    driver.run(session, most=5)
    session.mark(3)
    manual = session.checkpoint("here")
    driver.run(session, most=10)
    session.pause()
    session.resume()
    driver.run(session)
    kept = session.checkpoints()
    assert [c["number"] for c in kept if c["marked"]] == [3]
    assert [c["label"] for c in kept if c["kind"] == "manual"] == ["here"]
    assert kept[-1]["kind"] == "final"
    assert len(kept) == 10 + 3
    for one in kept:
        done = [s for s in session.checkpoint_state(one["id"])["steps"].values() if s["status"] == "done"]
        assert len(done) == (5 if one["id"] == manual else 2 if one["marked"] else len(done))
    session.mark(3, False)
    session.restore(manual)
    session.resume()
    driver.run(session)
    assert session.result == 39


def _random_plan(rng: random.Random) -> list[Any]:
    """A plan of chains, fan-outs, sub-plans, conditions and steps that fail now and then."""
    steps: list[Any] = [step("s0", "list")]
    for n in range(1, rng.randint(4, 9)):
        after = [f"s{rng.randrange(n)}" for _ in range(rng.randint(1, 2))]
        match rng.randrange(6):
            case 0:
                steps.append(step(f"s{n}", "work", "${item}", each="${s0}", after=after))
            case 1:
                inner = [step("x", "work", n), step("y", "work", "${x}")]
                steps.append(step(f"s{n}", plan=inner, after=after))
            case 2:
                steps.append(step(f"s{n}", "work", n, when=f"${{{after[0]}}} == null", after=after))
            case 3:
                steps.append(step(f"s{n}", "shaky", n, after=after, retries=1, backoff=0))
            case _:
                steps.append(step(f"s{n}", "work", n, after=after))
    return steps


@pytest.mark.parametrize("seed", range(6))
def test_every_checkpoint_of_a_random_session_can_be_restored(make_driver: Callable[..., Driver], seed: int) -> None:
    driver = make_driver(checkpoints_kept=1000)
    rng = random.Random(seed)

    @driver.agent("list")
    def numbers(request: Any, ctx: Any) -> Any:
        return list(range(rng.randint(0, 3)))

    @driver.agent("work")
    def work(request: Any, ctx: Any) -> Any:
        ctx.memory["count"] = ctx.memory.get("count", 0) + 1
        more = [step(f"more-{ctx.step.replace('/', '_')}-x", "list")] if rng.random() < 0.1 else []
        return AgentOutput(data=request, add_steps=more)

    @driver.agent("shaky")
    def shaky(request: Any, ctx: Any) -> Any:
        if rng.random() < 0.5:
            raise ValueError("shaky")
        return request

    session = driver.start(*_random_plan(rng))
    known: dict[int, dict[str, Any]] = {}
    while session.status == "active":
        driver.run(session, most=1)
        number = session.checkpoints()[-1]["number"]
        known[number] = _kept(driver, session, number)
        invariants.check(driver.engine)
    for _ in range(5):
        number = rng.choice(list(known))
        undo = session.restore(number)
        invariants.check(driver.engine)
        assert _kept(driver, session, session.checkpoints()[-1]["number"]) == known[number]
        if rng.random() < 0.5 and session.status == "paused":
            session.resume()
            driver.run_to_end(session)
        else:
            session.restore(undo)
        invariants.check(driver.engine)


def _kept(driver: Driver, session: Session, number: int) -> dict[str, Any]:
    return invariants.settled(driver.engine.database.read(lambda tx: checkpoints.state_at(tx, session.id, number)))
