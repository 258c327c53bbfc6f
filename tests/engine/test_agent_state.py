"""Persistent agent state (A1): what it holds, when it is saved, and where it is found again."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from driver import Driver

from celeriac.orchestration import sweeping
from celeriac.orchestration.plans import step

MakeDriver = Callable[..., Driver]
#: All that the state of an agent consists of.
FIELDS = {
    "history", "config", "tools", "execution", "metadata", "schema_version", "created_at", "updated_at",
}  # fmt: skip


def talk(ctx: Any, turn: int) -> None:
    """One turn of an agent that uses every part of its state."""
    memory = ctx.memory
    memory.history.append({"role": "user", "content": f"turn {turn}"})
    memory.config["model"] = "small"
    memory.used("search", seconds=0.5)
    memory.execution["at"] = turn
    memory.metadata["step"] = ctx.step
    memory.schema_version = "2.0.0"


def talker(driver: Driver) -> None:
    driver.agent("talker")(lambda request, ctx: talk(ctx, request))


def chain(n: int) -> list[Any]:
    return [step(f"s{k}", "talker", k, after=[f"s{k - 1}"] if k else []) for k in range(n)]


def memory_of(session: Any) -> dict[str, Any]:
    return dict(session.agent_states()["talker"]["memory"])


def test_a_session_shows_all_that_an_agent_keeps_and_when_it_was_saved(make_driver: MakeDriver) -> None:
    driver = make_driver()
    talker(driver)
    session = driver.start(*chain(2))
    assert session.agent_states()["talker"]["memory"] == {}
    driver.run(session, most=1)
    first = memory_of(session)
    assert set(first) == FIELDS and first["created_at"] <= first["updated_at"]
    driver.run(session)
    last = memory_of(session)
    assert last["created_at"] == first["created_at"] < last["updated_at"]
    assert [entry["content"] for entry in last["history"]] == ["turn 0", "turn 1"]
    assert (last["config"], last["execution"]) == ({"model": "small"}, {"at": 1})
    assert last["tools"] == {"search": {"calls": 2, "seconds": 1.0}}
    assert (last["metadata"], last["schema_version"]) == ({"step": "s1"}, "2.0.0")


def test_after_a_pause_another_process_starts_with_the_state_as_it_was(make_driver: MakeDriver) -> None:
    driver, elsewhere = make_driver(), make_driver()
    talker(driver)
    found: list[dict[str, Any]] = []

    @elsewhere.agent("talker")
    def later(request: Any, ctx: Any) -> None:
        found.append(json.loads(json.dumps(ctx.memory.to_dict())))
        talk(ctx, request)

    session = driver.start(*chain(3))
    driver.run(session, most=1)
    session.pause()
    saved = memory_of(session)
    (paused,) = (one for one in session.checkpoints() if one["kind"] == "pause")
    in_checkpoint = session.checkpoint_state(paused["id"])["agents"]["talker"]
    assert in_checkpoint == {name: saved[name] for name in in_checkpoint} and in_checkpoint["history"]
    again = elsewhere.sessions.get(session.id)
    again.resume()
    assert elsewhere.run_to_end(again) == "completed"
    for when in ("created_at", "updated_at"):
        assert found[0][when].startswith(saved.pop(when).removesuffix("+00:00"))  # shown to the millisecond
        found[0].pop(when)
    assert found[0] == saved and [entry["content"] for entry in memory_of(again)["history"]] == [
        "turn 0", "turn 1", "turn 2",
    ]  # fmt: skip


def test_what_a_stopped_worker_had_reaches_the_attempt_that_follows(make_driver: MakeDriver) -> None:
    driver, elsewhere = make_driver(), make_driver()
    begun, stop = threading.Event(), threading.Event()

    @driver.agent("talker")
    def interrupted(request: Any, ctx: Any) -> None:
        talk(ctx, request)
        begun.set()
        assert stop.wait(10)

    @elsewhere.agent("talker")
    def goes_on(request: Any, ctx: Any) -> Any:
        left = ctx.memory.unfinished
        assert ctx.memory.take_up()
        return left

    session = driver.start(*chain(1))
    work = driver.engine.claim(session.id)
    assert work is not None
    running = threading.Thread(target=driver.perform, args=(work,))
    running.start()
    assert begun.wait(10)
    # What a worker does that stops before its step has ended.
    sweeping.take_back(driver.engine, session.id, [work.claimed], given_back=True, leaving=[work])
    again = elsewhere.sessions.get(session.id)
    assert elsewhere.run_to_end(again) == "completed"
    stop.set()
    running.join()
    assert again.result["execution"] == {"at": 0} and again.result["history"] == [{"role": "user", "content": "turn 0"}]
    memory = memory_of(again)
    assert set(memory) == FIELDS and memory["tools"] == {"search": {"calls": 1, "seconds": 0.5}}


@pytest.mark.parametrize("part", ["config", "tools", "execution", "metadata", "history"])
def test_a_part_alone_is_saved_with_the_step_or_not_at_all(make_driver: MakeDriver, part: str) -> None:
    driver = make_driver()

    @driver.agent("talker", retries=1, backoff=0.01)
    def once(request: Any, ctx: Any) -> None:
        inside = getattr(ctx.memory, part)
        if part == "history":
            inside.append("said")
        else:
            inside["k"] = 1
        if ctx.attempt == 1:
            raise ValueError("not recorded")

    session = driver.start(step("s", "talker"))
    assert driver.run_to_end(session) == "completed"
    assert memory_of(session)[part] == (["said"] if part == "history" else {"k": 1})
