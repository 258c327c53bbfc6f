"""Copies of sessions that a process keeps at hand: never behind what any process has written, and bounded."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from driver import Driver

from celeriac.errors import CeleriacError, SessionNotFound
from celeriac.orchestration import session_cache
from celeriac.orchestration.heartbeat import Heartbeat
from celeriac.orchestration.plans import step
from celeriac.orchestration.session import Session
from celeriac.storage import sessions

Make = Callable[..., Driver]
READS: dict[str, Callable[[Session], Any]] = {
    "to_dict": lambda session: session.to_dict(),
    "description": lambda session: session.to_dict(details=False),
    "status": lambda session: session.status,
    "error": lambda session: session.error,
    "progress": lambda session: session.progress,
    "result": lambda session: session.result,
    "report": lambda session: session.report,
    "plan": lambda session: session.plan and session.plan.to_dict(),
    "steps": lambda session: session.steps(),
    "output": lambda session: session.output("a"),
    "findings": lambda session: session.findings(),
    "conflicts": lambda session: session.conflicts(),
    "checkpoints": lambda session: session.checkpoints(),
    "saved": lambda session: session.saved,
}


def agents(driver: Driver) -> Driver:
    @driver.agent("echo")
    def echo(request: Any, ctx: Any) -> Any:
        return request

    @driver.agent("find")
    def find(request: Any, ctx: Any) -> Any:
        from celeriac.orchestration.agents import AgentOutput, Finding

        return AgentOutput(request, findings=[Finding("e", "colour", request, confidence=0.9)])

    @driver.agent("fail")
    def fail(request: Any, ctx: Any) -> Any:
        raise ValueError("no")

    return driver


@pytest.fixture
def three(make_driver: Make) -> tuple[Driver, Driver, Driver]:
    """Two engines with copies and one without, over one database: as three processes would have them."""
    return agents(make_driver()), agents(make_driver()), agents(make_driver(session_cache_entries=0))


def seen(driver: Driver, session_id: str) -> dict[str, Any]:
    """All that a session shows, errors included."""
    session = Session(driver.engine, session_id)
    found: dict[str, Any] = {}
    for name, read in READS.items():
        try:
            found[name] = read(session)
        except CeleriacError as fault:
            found[name] = type(fault).__name__
    return found


def test_a_session_that_does_not_change_is_read_once(three: tuple[Driver, ...]) -> None:
    one, _, bare = three
    session = one.start(*(step(f"s{n}", "echo", n) for n in range(20)), tags=["x"], preferences={"a": 1})
    one.run(session)
    first = session.to_dict()
    before = one.sessions.cache_stats()
    assert all(session.to_dict() == first for _ in range(9))
    after = one.sessions.cache_stats()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (9, 0)
    assert after["entries"] == 1 and after["bytes"] > 1000 and 0 < after["hit_rate"] <= 1
    assert first == bare.sessions.get(session.id).to_dict()
    assert bare.sessions.cache_stats()["hits"] == bare.sessions.cache_stats()["entries"] == 0


def test_what_a_caller_does_with_what_it_was_given_stays_with_it(three: tuple[Driver, ...]) -> None:
    one = three[0]
    session = one.start(step("a", "echo", {"list": [1]}))
    one.run(session)
    for _ in range(2):
        view = session.to_dict()
        assert view["result"] == {"list": [1]} and view["steps"][0]["name"] == "a"
        view["result"]["list"].append(2)
        view["steps"].clear()


CHANGES: dict[str, Callable[[Driver, Session], Any]] = {
    "tags": lambda driver, session: session.change(tags=["new"]),
    "notes": lambda driver, session: session.change(notes="new"),
    "preferences": lambda driver, session: session.change(preferences={"new": 1}),
    "metadata": lambda driver, session: session.change(metadata={"new": 1}),
    "title and priority": lambda driver, session: session.change(title="new", priority=9),
    "pinned": lambda driver, session: session.change(pinned=True),
    "checkpoint": lambda driver, session: session.checkpoint("new"),
    "mark": lambda driver, session: session.mark(session.checkpoints()[0]["id"]),
    "restore": lambda driver, session: session.restore(session.checkpoints()[0]["id"]),
    "resolve": lambda driver, session: session.resolve_conflict(1, "red"),
    "note": lambda driver, session: driver.engine.note(session.id, "test", [("test.noted", {"a": 1})]),
    "archive": lambda driver, session: session.archive(),
    "delete": lambda driver, session: driver.sessions.delete(session.id),
}


@pytest.mark.parametrize("how", CHANGES)
def test_each_way_of_writing_is_seen_by_other_processes_at_once(three: tuple[Driver, ...], how: str) -> None:
    one, other, bare = three
    session = one.start(step("a", "find", "red"), step("b", "find", "blue", after=["a"]), step("c", "echo", 1))
    one.run(session)
    before = seen(other, session.id)
    assert before == seen(other, session.id) == seen(bare, session.id)
    CHANGES[how](one, Session(one.engine, session.id))
    after = seen(bare, session.id)
    assert after["to_dict"] != before["to_dict"]
    assert seen(other, session.id) == seen(one, session.id) == after


def test_progress_of_running_steps_is_as_of_now_though_no_event_tells_of_it(three: tuple[Driver, ...]) -> None:
    one, other, bare = three
    session = one.start(step("a", "echo", 1), step("b", "echo", 2))
    work = one.engine.claim(session.id)
    assert work is not None
    beats = Heartbeat(one.engine)
    for part in (0.0, 0.2, 0.7, 0.9):
        work.progress, work.task = part, f"at {part}"
        seq = one.engine.database.read(lambda tx: sessions.version(tx, session.id))
        assert beats.write(work)
        assert one.engine.database.read(lambda tx: sessions.version(tx, session.id)) == seq
        seen(other, session.id)
        shown = seen(other, session.id)
        assert shown == seen(bare, session.id)
        assert (shown["steps"][0]["progress"], shown["steps"][0]["task"]) == (part, f"at {part}")
        assert shown["progress"] == pytest.approx(part / 2)
    assert other.sessions.cache_stats()["hits"] > other.sessions.cache_stats()["misses"]


def random_move(rng: random.Random, driver: Driver, session: Session) -> None:
    """Anything that can be done to a session; what its status forbids does nothing."""
    moves: list[Callable[[], Any]] = [
        lambda: driver.run(session, most=rng.randint(1, 3), carry=rng.random() < 0.5),
        lambda: driver.run(session, most=1),
        lambda: session.change(tags=[f"t{rng.randint(0, 5)}"], notes=f"n{rng.randint(0, 99)}"),
        lambda: session.change(pinned=rng.random() < 0.5, title=f"t{rng.randint(0, 9)}"),
        session.pause,
        session.resume,
        session.retry,
        lambda: session.checkpoint("c"),
        lambda: session.mark(rng.choice(session.checkpoints())["id"], rng.random() < 0.5),
        lambda: session.restore(rng.choice(session.checkpoints())["id"]),
        lambda: session.resolve_conflict(1, rng.randint(0, 9)),
    ]
    if rng.random() < 0.05:
        moves = [
            session.cancel,
            lambda: session.complete({"r": rng.random()}),
            lambda: driver.sessions.delete(session.id),
        ]
    with contextlib.suppress(CeleriacError):
        rng.choice(moves)()


def interleave(three: tuple[Driver, ...], seed: int, moves: int) -> list[str]:
    """Let two engines write and read in any order; gives where what they show is not what an engine without copies
    shows.
    """
    one, other, bare = three
    rng = random.Random(seed)
    plan = [step("a", "find", 1), step("b", "find", 2), step("l", "echo", [1, 2, 3])]
    plan += [step("e", "echo", "${item}", each="${l}"), step("f", "fail", 0), step("j", "echo", "${e}")]
    session_id = one.start(*plan, query=f"q{seed}").id
    wrong = []
    for number in range(moves):
        random_move(rng, rng.choice((one, other)), Session(rng.choice((one, other)).engine, session_id))
        reader = rng.choice((one, other))
        if rng.random() < 0.3:
            continue
        mine, theirs = seen(reader, session_id), seen(bare, session_id)
        wrong += [f"seed {seed} move {number}: {name}" for name in mine if mine[name] != theirs[name]]
    return wrong


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_done_in_whatever_order_copies_show_what_the_database_holds(
    three: tuple[Driver, ...], seed: int
) -> None:
    assert interleave(three, seed, 40) == []
    assert sum(driver.sessions.cache_stats()["hits"] for driver in three) > 20


def test_this_test_sees_a_copy_that_is_not_checked(three: tuple[Driver, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    checked = sessions.version
    monkeypatch.setattr(
        session_cache.sessions, "version", lambda tx, one: (row := checked(tx, one)) and (0, 0, 0.0, row[-1])
    )
    assert any(interleave(three, seed, 40) for seed in range(3))


def test_readers_never_see_less_than_was_written_before_they_began(three: tuple[Driver, ...]) -> None:
    one, other, _ = three
    session = one.start(step("a", "echo", 1))
    one.run(session)
    written, ended = 0, threading.Event()
    wrong: list[str] = []

    def read() -> None:
        mine = Session(other.engine, session.id)
        while not ended.is_set():
            least = written
            view = mine.to_dict()
            if view["metadata"].get("n", 0) < least:
                wrong.append(f"{view['metadata']} after {least}")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(1, 60):
        session.change(metadata={"n": number})
        written = number
    ended.set()
    for thread in readers:
        thread.join()
    assert not wrong


def test_copies_are_bounded_in_number_bytes_and_age(
    three: tuple[Driver, ...], make_driver: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, bare = three
    few = agents(make_driver(session_cache_entries=3, session_cache_seconds=0.3))
    ids = [one.start(step("a", "echo", n)).id for n in range(8)]
    for session_id in ids:
        one.run(session_id)
        assert seen(few, session_id) == seen(bare, session_id)
    assert few.sessions.cache_stats()["entries"] == 3
    threading.Event().wait(0.35)
    assert few.sessions.cache_stats()["entries"] == 0
    monkeypatch.setattr(session_cache, "MOST_BYTES", 6000)
    small = agents(make_driver())
    for session_id in ids:
        assert seen(small, session_id) == seen(bare, session_id)
        assert small.sessions.cache_stats()["bytes"] <= 6000


def test_a_large_result_is_not_kept_and_the_rest_is(three: tuple[Driver, ...]) -> None:
    one, other, bare = three
    session = one.start(step("a", "echo", "x" * (session_cache.MOST_PART_BYTES + 1)))
    one.run(session)
    for _ in range(2):
        assert seen(other, session.id) == seen(bare, session.id)
    assert other.sessions.cache_stats()["bytes"] < 10_000
    assert other.sessions.cache_stats()["hits"] > 0


def test_what_holds_sealed_fields_is_not_kept_as_new_keys_are_put_on_it_without_an_event(make_driver: Make) -> None:
    one = agents(make_driver())
    session = one.start(step("a", "echo", {"card": {"$sealed": "QUJD"}}), preferences={"k": {"$sealed": "QUJD"}})
    one.run(session)
    for _ in range(2):
        view = session.to_dict()
    kept = one.engine.copies._kept[session.id].parts
    assert view["preferences"] == {"k": {"$sealed": "QUJD"}}
    assert kept["documents"] is None and kept["result"] is None and kept["steps"] is not None


def test_a_session_that_is_gone_is_not_found_with_copies_and_without(three: tuple[Driver, ...]) -> None:
    one, other, bare = three
    session = one.start(step("a", "echo", 1))
    one.run(session)
    assert seen(other, session.id) == seen(bare, session.id)
    one.sessions.delete(session.id)
    for driver in three:
        for name in ("to_dict", "steps", "findings", "saved", "checkpoints"):
            with pytest.raises(SessionNotFound):
                READS[name](Session(driver.engine, session.id))
        assert driver.sessions.cache_stats()["entries"] == 0


def test_a_child_process_begins_without_copies_and_with_a_free_lock(make_driver: Make) -> None:
    cache = agents(make_driver()).engine.copies
    reader, writer = os.pipe()
    with cache._lock:
        cache._hits = 5
        child = os.fork()
        if not child:
            os.write(writer, json.dumps(cache.stats()).encode())
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    found = json.loads(os.read(reader, 1000))
    assert (found["entries"], found["hits"]) == (0, 0)
    assert cache.stats()["hits"] == 5
