"""Following a session: its events in order and without a gap, live from other threads and processes; waiting for its
end.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import elsewhere
import pytest
from driver import Driver

from celeriac.errors import SessionNotFound
from celeriac.orchestration.plans import step
from celeriac.orchestration.session import Session

THREE = (step("a", "echo", 1), step("b", "echo", "${a}"), step("c", "echo", "${b}"))


def test_the_events_of_a_session_tell_its_story(driver: Driver) -> None:
    session = driver.start(*THREE)
    driver.run(session)
    assert driver.events(session) == [
        "session.created",
        *("step.started", "step.done") * 3,
        "session.completed",
    ]
    events = list(session.stream())
    assert [e.seq for e in events] == list(range(1, 9))
    assert {e.correlation_id for e in events} == {session.id}
    assert [e.seq for e in session.stream(from_offset=5)] == [6, 7, 8]
    assert list(session.stream(from_offset=8)) == []


def test_a_stream_is_live_from_another_thread_and_ends_with_the_session(driver: Driver) -> None:
    @driver.agent("talker")
    def talker(request: Any, ctx: Any) -> Any:
        for n in range(30):
            ctx.partial(n)
            time.sleep(0.005)
        return None

    session = driver.start(step("a", "talker"))
    seen: list[tuple[int, str]] = []
    live: list[str] = []

    def follow() -> None:
        for event in session.stream():
            seen.append((event.seq, event.type))
            if session.status == "active":
                live.append(event.type)

    thread = threading.Thread(target=follow)
    thread.start()
    driver.run(session)
    thread.join(5)
    assert not thread.is_alive()
    assert [seq for seq, _ in seen] == list(range(1, len(seen) + 1))
    assert [type_ for _, type_ in seen].count("step.partial") == 30
    assert "step.partial" in live
    assert seen[-1][1] == "session.completed"


def test_broken_streams_put_together_miss_nothing(driver: Driver) -> None:
    session = driver.start(*(step(f"s{n}", "echo", n) for n in range(30)))
    seen: list[int] = []

    def follow() -> None:
        while not seen or session.status == "active" or seen[-1] < 62:
            for event in session.stream(from_offset=seen[-1] if seen else 0):
                seen.append(event.seq)
                if len(seen) % 3 == 0:
                    break

    thread = threading.Thread(target=follow)
    thread.start()
    driver.run(session)
    thread.join(10)
    assert seen == list(range(1, 63))


def test_a_stream_and_a_wait_see_what_another_process_does(driver: Driver, database_url: str, tmp_path: Path) -> None:
    session = driver.start(*THREE)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=elsewhere.run_echo, args=(database_url, str(tmp_path / "data"), session.id))
    process.start()
    waited: list[str] = []
    thread = threading.Thread(target=lambda: waited.append(session.wait(20)))
    thread.start()
    assert [e.seq for e in session.stream()] == list(range(1, 9))
    thread.join(20)
    process.join(20)
    assert waited == ["completed"]


def test_the_last_events_are_seen_even_if_the_session_ends_between_two_looks(driver: Driver) -> None:
    for _ in range(20):
        session = driver.start(step("a", "echo"))
        thread = threading.Thread(target=driver.run, args=(session,))
        stream = session.stream()
        assert next(stream).type == "session.created"
        thread.start()
        assert [e.type for e in stream][-1] == "session.completed"
        thread.join()


def test_a_wait_ends_with_a_pause_and_a_new_one_with_the_end(driver: Driver) -> None:
    session = driver.start(*THREE)
    with pytest.raises(TimeoutError, match=r"is still active after 0\.05 s"):
        session.wait(0.05)
    session.pause()
    assert session.wait(1) == "paused"
    session.resume()
    thread = threading.Thread(target=driver.run, args=(session,))
    thread.start()
    assert session.wait(10) == "completed"
    thread.join()
    assert session.wait() == "completed"
    with pytest.raises(SessionNotFound):
        Session(driver.engine, "0190a000-0000-7000-8000-000000000000").wait(1)


def test_a_hundred_waiting_threads_do_not_use_up_the_connections(driver: Driver) -> None:
    session = driver.start(*THREE)
    ended: list[str] = []
    threads = [threading.Thread(target=lambda: ended.append(session.wait(20))) for _ in range(100)]
    for thread in threads:
        thread.start()
    driver.run(session)
    for thread in threads:
        thread.join(20)
    assert ended == ["completed"] * 100


def test_a_listener_that_fails_disturbs_nothing(driver: Driver, make_driver: Callable[..., Driver]) -> None:
    told: list[tuple[str, int]] = []

    def broken(session_id: str, seq: int) -> None:
        told.append((session_id, seq))
        raise OSError("the listener is away")

    driver.engine.listeners.append(broken)
    session = driver.start(*THREE)
    driver.run(session)
    assert session.status == "completed"
    assert driver.started == ["a", "b", "c"]
    assert [seq for _, seq in told] == [1, 2, 4, 6, 8]
