"""What agents keep from step to step: recorded with results, merged, restored, and left by attempts that do not end."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import elsewhere
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac import step
from celeriac.orchestration import sweeping
from celeriac.orchestration.engine import Lost, Work
from celeriac.orchestration.guard import Policy
from celeriac.orchestration.memory import remembering
from celeriac.orchestration.memory.memory import PersistentAgentState
from celeriac.orchestration.session import Session
from celeriac.storage import agent_parts, schema
from celeriac.storage.database import Database
from celeriac.storage.keys.keyfile import Keys, Raw
from celeriac.storage.keys.sealing import KeyRing


def kept(session: Session, agent: str) -> dict[str, Any]:
    """An agent's memory as it is recorded."""
    found: dict[str, Any] = session.agent_states()[agent]["memory"]
    return found


def chain(agent: str, count: int) -> list[Any]:
    return [step(f"s{n}", agent, n, after=[f"s{n - 1}"] if n else []) for n in range(count)]


def test_a_step_finds_all_that_the_step_before_it_left(driver: Driver) -> None:
    seen: list[dict[str, Any]] = []

    @driver.agent("talker")
    def talker(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        assert isinstance(memory, PersistentAgentState)
        seen.append(json.loads(json.dumps(memory.to_dict())))
        memory.history.append({"role": "user", "content": f"turn {request}"})
        memory.config["model"] = "small"
        memory.used("search", seconds=0.5)
        memory["place"] = {"page": request}
        memory.metadata["by"] = ctx.step
        memory.schema_version = "1.1.0"

    session = driver.start(*chain("talker", 3))
    driver.run(session)
    assert seen[0] == {
        "history": [],
        "config": {},
        "tools": {},
        "execution": {},
        "metadata": {},
        "schema_version": "1.0.0",
        "created_at": None,
        "updated_at": None,
    }
    last = seen[2]
    assert [item["content"] for item in last["history"]] == ["turn 0", "turn 1"]
    assert last["config"] == {"model": "small"} and last["metadata"] == {"by": "s1"}
    assert last["tools"] == {"search": {"calls": 2, "seconds": 1.0}}
    assert last["execution"] == {"place": {"page": 1}} and last["schema_version"] == "1.1.0"
    assert last["created_at"] < last["updated_at"]
    assert session.agent_states()["talker"]["state"] == {"place": {"page": 2}}
    assert kept(session, "talker")["tools"]["search"]["calls"] == 3


def test_steps_at_once_lose_nothing_of_each_other(driver: Driver) -> None:
    @driver.agent("many")
    def many(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        memory.history.append(f"h{request}")
        memory.used("search", found=request)
        memory[f"k{request}"] = request
        memory.setdefault("notes", []).append(request)
        memory.setdefault("deep", {})[str(request)] = True
        memory["last"] = request

    session = driver.start(*(step(f"s{n}", "many", n) for n in range(6)))
    works = [driver.engine.claim(session.id) for _ in range(6)]
    for work in works:
        assert work is not None
        assert driver.engine.agent_state(work).history == []
    for work in works:
        assert work is not None
        driver.perform(work)
    memory = kept(session, "many")
    assert memory["history"] == [f"h{n}" for n in range(6)]
    assert memory["tools"] == {"search": {"calls": 6, "found": 15}}
    execution = memory["execution"]
    assert {key: execution.pop(key) for key in [f"k{n}" for n in range(6)]} == {f"k{n}": n for n in range(6)}
    assert execution == {"notes": [0, 1, 2, 3, 4, 5], "deep": {str(n): True for n in range(6)}, "last": 5}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str | None]]:
    """What is written of memories: the changed parts of each write."""
    found: list[dict[str, str | None]] = []
    write = agent_parts.write

    def noted(*args: Any) -> Any:
        found.append(dict(args[4]))
        return write(*args)

    monkeypatch.setattr(agent_parts, "write", noted)
    return found


def test_a_small_change_of_a_large_memory_writes_little(driver: Driver, written: list[dict[str, str | None]]) -> None:
    @driver.agent("large")
    def large(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        if request == 0:
            memory.update({f"key{n}": "x" * 10_000 for n in range(100)})
            memory.history.extend({"role": "user", "content": "y" * 500} for _ in range(500))
        elif request < 3:
            memory.history.append({"role": "user", "content": "new"})
            memory["key7"] = "x" * 9_999 + "z"
        else:
            memory["small"] = request

    session = driver.start(*chain("large", 5))
    driver.run(session)
    assert [sorted(parts) for parts in written[1:]] == [
        ["execution/key7", "history/000000000501"],
        ["history/000000000502"],
        ["execution/small"],
        ["execution/small"],
    ]
    assert all(one["size"] < 600 for one in session.checkpoints()[2:])
    assert len(kept(session, "large")["history"]) == 502


def test_what_is_removed_and_changed_in_the_middle_is_recorded(driver: Driver) -> None:
    @driver.agent("tidy")
    def tidy(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        if request == 0:
            memory.history = [f"item {n}" for n in range(10)]
            memory.update(a=1, b=2)
            memory["nul\0 and 100%"] = 3
        elif request == 1:
            del memory.history[:4]
            memory.history[1] = "edited"
            del memory["a"]
        else:
            memory.history.pop()
            memory.history.append("new")

    session = driver.start(*chain("tidy", 3))
    driver.run(session)
    memory = kept(session, "tidy")
    assert memory["history"] == ["item 4", "edited", "item 6", "item 7", "item 8", "new"]
    assert memory["execution"] == {"b": 2, "nul\0 and 100%": 3}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: m.update(x={1, 2}), "memory of agent spoiler: execution.x: set is not JSON"),
        (lambda m: m.history.append({"at": object()}), r"history\[0\].at: object is not JSON"),
        (lambda m: m.config.update({5: 1}), "keys are text, found 5"),
        (lambda m: m.update({"k" * 2000: 1}), "a key has over 1024 bytes"),
        (lambda m: setattr(m, "tools", []), "tools in the memory of agent 'spoiler' must be an object"),
    ],
)
def test_what_cannot_be_kept_fails_the_step_by_name(driver: Driver, spoil: Any, told: str) -> None:
    @driver.agent("spoiler")
    def spoiler(request: Any, ctx: Any) -> Any:
        spoil(ctx.memory)

    session = driver.start(step("a", "spoiler"))
    driver.run(session)
    assert session.status == "failed"
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(session.error)


# -- attempts that do not end ------------------------------------------------------------------------------------------


def begun(driver: Driver, session: Session, change: Callable[[PersistentAgentState], Any]) -> Work:
    """A claimed step whose agent has changed its memory and has not ended."""
    work = driver.engine.claim(session.id)
    assert work is not None
    change(driver.engine.agent_state(work))
    return work


def give_back(driver: Driver, work: Work) -> None:
    """What a worker does that is stopped."""
    sweeping.take_back(driver.engine, work.session_id, [work.claimed], given_back=True, leaving=[work])


def changed(memory: PersistentAgentState) -> None:
    memory.history.append("asked")
    memory.used("search")
    memory["page"] = 7


def test_what_a_step_left_that_was_given_back_is_not_in_the_memory_and_is_not_doubled(driver: Driver) -> None:
    seen: list[Any] = []

    @driver.agent("stopped")
    def stopped(request: Any, ctx: Any) -> Any:
        seen.append((dict(ctx.memory), list(ctx.memory.history), ctx.memory.unfinished))
        changed(ctx.memory)

    session = driver.start(step("a", "stopped"), step("b", "stopped", after=["a"]))
    give_back(driver, begun(driver, session, changed))
    assert "agent.saved" in driver.events(session)
    driver.run(session)
    execution, history, unfinished = seen[0]
    assert (execution, history) == ({}, [])
    assert unfinished.pop("saved_at") <= time.time()
    assert unfinished == {
        "attempt": 1,
        "history": ["asked"],
        "config": {},
        "tools": {"search": {"calls": 1}},
        "execution": {"page": 7},
        "metadata": {},
    }
    assert seen[1] == ({"page": 7}, ["asked"], None)
    memory = kept(session, "stopped")
    assert (memory["history"], memory["tools"]) == (["asked", "asked"], {"search": {"calls": 2}})
    assert "unfinished" not in memory


def test_what_was_left_can_be_taken_up_and_counts_once(driver: Driver) -> None:
    @driver.agent("goes-on")
    def goes_on(request: Any, ctx: Any) -> Any:
        if request == "first":
            if not ctx.memory.take_up():
                changed(ctx.memory)
            assert not ctx.memory.take_up()
            ctx.memory["page"] += 1
        else:
            ctx.memory.used("search")

    session = driver.start(step("a", "goes-on", "first"), step("b", "goes-on", "other"))
    work = begun(driver, session, changed)
    other = driver.engine.claim(session.id)
    assert other is not None
    driver.perform(other)
    give_back(driver, work)
    driver.run(session)
    memory = kept(session, "goes-on")
    assert (memory["history"], memory["execution"]) == (["asked"], {"page": 8})
    assert memory["tools"] == {"search": {"calls": 2}}


def test_an_agent_saves_what_it_has_and_finds_it_after_its_worker_was_lost(driver: Driver) -> None:
    seen: list[Any] = []

    @driver.agent("saver")
    def saver(request: Any, ctx: Any) -> Any:
        seen.append(ctx.memory.unfinished["execution"] if ctx.memory.unfinished else None)

    session = driver.start(step("a", "saver"))
    work = begun(driver, session, changed)
    assert work.memory is not None
    work.memory.save()
    work.memory["page"] = 8
    work.memory.save()
    sweeping.take_back(driver.engine, session.id, [work.claimed])
    with pytest.raises(Lost):
        work.memory.save()
    driver.run(session)
    assert seen == [{"page": 8}]
    assert "unfinished" not in kept(session, "saver")


def test_what_was_left_is_dropped_when_the_next_attempt_does_not_ask_for_its_memory(driver: Driver) -> None:
    @driver.agent("careless")
    def careless(request: Any, ctx: Any) -> Any:
        return None

    session = driver.start(step("a", "careless"))
    give_back(driver, begun(driver, session, changed))
    assert "unfinished" in kept(session, "careless")
    driver.run(session)
    assert "unfinished" not in kept(session, "careless")


def test_what_is_no_json_yet_does_not_keep_a_step_from_being_given_back(driver: Driver) -> None:
    @driver.agent("half")
    def half(request: Any, ctx: Any) -> Any:
        return ctx.memory.unfinished

    session = driver.start(step("a", "half"))
    give_back(driver, begun(driver, session, lambda memory: memory.update(x=object())))
    driver.run(session)
    assert session.result is None and session.status == "completed"


def test_a_running_step_of_a_session_that_is_paused_leaves_what_it_has(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(lease_seconds=3.0)
    go_on = threading.Event()

    @driver.agent("slow")
    def slow(request: Any, ctx: Any) -> Any:
        changed(ctx.memory)
        assert go_on.wait(20)

    session = driver.start(step("a", "slow"))
    runner = threading.Thread(target=driver.run, args=(session,))
    runner.start()
    until = time.monotonic() + 10
    while driver.states(session)["a"] != "running" and time.monotonic() < until:
        time.sleep(0.02)
    session.pause()
    while "unfinished" not in kept(session, "slow") and time.monotonic() < until:
        time.sleep(0.05)
    left = kept(session, "slow")
    go_on.set()
    runner.join()
    (unfinished,) = left["unfinished"].values()
    assert unfinished["changes"]["execution/page"] == {"after": 7}
    assert (left["execution"], left["history"]) == ({}, [])
    memory = kept(session, "slow")
    assert (memory["execution"], memory["history"]) == ({"page": 7}, ["asked"])
    assert "unfinished" not in memory
    assert driver.events(session).count("agent.saved") == 1


def test_sealed_fields_are_open_to_the_agent_and_are_not_sealed_anew(
    make_driver: Callable[..., Driver], written: list[dict[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver()
    ring = KeyRing(Keys("k1", {"k1": Raw(b"1" * 32)}, b"h" * 32))
    driver.engine.guard = Policy.load({"fields": [{"path": "token", "action": "encrypt"}]}, ring)
    seen: list[Any] = []

    @driver.agent("secretive")
    def secretive(request: Any, ctx: Any) -> Any:
        memory = ctx.memory
        seen.append((dict(memory), list(memory.history)))
        if request == 0:
            memory["token"] = "s3cret"
            memory.history.append({"token": "s3cret", "text": "hello"})
        memory["n"] = request

    session = driver.start(*chain("secretive", 3))
    driver.run(session)
    assert seen[2] == ({"token": "s3cret", "n": 1}, [{"token": "s3cret", "text": "hello"}])
    assert [sorted(parts) for parts in written] == [
        ["execution/n", "execution/token", "history/000000000001"],
        ["execution/n"],
        ["execution/n"],
    ]
    assert "s3cret" not in str(kept(session, "secretive")) + str(session.checkpoint_state(4))


def test_processes_that_are_killed_at_random_lose_and_double_nothing_of_a_memory(
    driver: Driver, database_url: str, tmp_path: Path
) -> None:
    @driver.agent("recorder")
    def recorder(request: Any, ctx: Any) -> Any:
        raise AssertionError("run elsewhere")

    session = driver.start(*(step(f"s{n}", "recorder", n) for n in range(40)))
    context, killed = multiprocessing.get_context("spawn"), 0
    arguments = (database_url, str(tmp_path / "data"), session.id)
    running: list[Any] = []
    for seed in range(40):
        while len(running) >= 3:
            running[0].join(0.05)
            killed += sum(one.exitcode == -9 for one in running)
            running = [one for one in running if one.is_alive()]
        if session.status != "active":
            break
        running.append(context.Process(target=elsewhere.remember, args=(*arguments, seed)))
        running[-1].start()
    for one in running:
        one.join(30)
        assert one.exitcode in (0, -9)
    assert (session.status, killed > 0) == ("completed", True), f"{killed} were killed"
    memory = kept(session, "recorder")
    assert sorted(memory["history"]) == sorted(memory["execution"]["seen"]) == list(range(40))
    assert memory["tools"] == {"search": {"calls": 40, "found": 80}}
    assert {key for key in memory["execution"] if key != "seen"} == {f"k{n}" for n in range(40)}
    assert "unfinished" not in memory


# -- going back --------------------------------------------------------------------------------------------------------


def test_a_restored_session_has_the_memories_of_that_time(driver: Driver) -> None:
    @driver.agent("talker")
    def talker(request: Any, ctx: Any) -> Any:
        ctx.memory.history.append(f"turn {request}")
        ctx.memory["n"] = request
        ctx.memory["long"] = "x" * 1000 + str(request)

    session = driver.start(*chain("talker", 4))
    driver.run(session)
    whole = kept(session, "talker")
    undo = session.restore(3)
    memory = kept(session, "talker")
    assert (memory["history"], memory["execution"]["n"]) == (["turn 0", "turn 1"], 1)
    session.resume()
    driver.run(session)
    assert kept(session, "talker")["history"] == [f"turn {n}" for n in range(4)]
    session.restore(undo)
    back = kept(session, "talker")
    assert back["updated_at"] > whole["updated_at"] and back == whole | {"updated_at": back["updated_at"]}
    paths = [one["path"] for one in session.diff(2, 3)]
    assert "agents.talker.execution.n" in paths


def test_what_was_removed_stays_removed_in_checkpoints(driver: Driver) -> None:
    @driver.agent("forgets")
    def forgets(request: Any, ctx: Any) -> Any:
        if request == 0:
            ctx.memory.update(a=1, b=2)
        elif request == 1:
            del ctx.memory["a"]

    session = driver.start(*chain("forgets", 3))
    driver.run(session)
    assert session.checkpoint_state(2)["agents"]["forgets"]["execution"] == {"a": 1, "b": 2}
    assert session.checkpoint_state(3)["agents"]["forgets"]["execution"] == {"b": 2}
    session.restore(3)
    assert kept(session, "forgets")["execution"] == {"b": 2}


def test_states_of_older_checkpoints_become_memories(driver: Driver) -> None:
    session = driver.sessions.create("old")
    driver.engine.database.write(lambda tx: agent_parts.replace_all(tx, session.id, {"old": '{"a/b":1,"c":[2]}'}))
    bodies = driver.engine.database.read(lambda tx: agent_parts.all_of(tx, session.id))
    assert agent_parts.shown(bodies)["old"]["execution"] == {"a/b": 1, "c": [2]}


def test_states_of_an_older_database_become_memories(database_url: str) -> None:
    database = Database(database_url)
    schema.upgrade(database, "0004")
    with database.engine.connect() as connection:
        connection.execute(
            text("INSERT INTO agent_states VALUES ('s', 'old', 3, :body, 1, 2)"), {"body": '{"a/b":1,"\\u0000":"é"}'}
        )
    schema.upgrade(database)
    found = database.read(lambda tx: agent_parts.read(tx, "s", "old"))
    memory = PersistentAgentState(found)
    assert dict(memory) == {"a/b": 1, "\0": "é"}
    assert memory.created_at is not None and not memory.changes()
    database.dispose()


def test_a_deleted_session_leaves_no_memory(driver: Driver) -> None:
    @driver.agent("talker")
    def talker(request: Any, ctx: Any) -> Any:
        ctx.memory["n"] = 1

    session = driver.start(step("a", "talker"))
    driver.run(session)
    driver.sessions.delete(session.id)
    with driver.engine.database.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM agent_parts")).scalar() == 0


def test_memories_are_merged_by_whoever_records_last(driver: Driver) -> None:
    """The rule that `remembering` writes by is the one of `merging`."""
    assert remembering._merged("execution/a", "[1]", "[1,2]", "[1,3]") == "[1,2,3]"
    assert remembering._merged("tools/a", '{"n":1}', '{"n":4}', '{"n":2}') == '{"n":5}'
    assert remembering._merged("execution/a", "1", "2", None) == "2"
