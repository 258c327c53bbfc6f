"""What is done to whole sessions: moves and illegal moves, idempotency keys, finding them, deleting them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from driver import Driver

from celeriac.errors import CeleriacError, PlanError, SessionError, SessionNotFound, StepNotFound
from celeriac.orchestration.agents import AgentOutput
from celeriac.orchestration.engine import Lost
from celeriac.orchestration.plans import Plan, step
from celeriac.orchestration.session import Session
from celeriac.storage.states.protocol import StateError

THREE = (step("a", "echo", 1), step("b", "echo", "${a}"), step("c", "echo", "${b}"))


def test_a_paused_session_lets_running_steps_finish_and_starts_no_other(driver: Driver) -> None:
    session = driver.start(*THREE)
    running = driver.engine.claim(session.id)
    assert running is not None
    session.pause()
    session.pause()
    assert driver.perform(running, carry=True) is None
    assert driver.engine.claim(session.id) is None
    assert driver.states(session) == {"a": "done", "b": "ready", "c": "blocked"}
    assert session.wait(1) == "paused"
    session.resume()
    driver.run(session)
    assert session.status == "completed"
    assert driver.started == ["a", "b", "c"]


def test_a_session_whose_last_step_ends_while_it_is_paused_is_completed(driver: Driver) -> None:
    session = driver.start(step("a", "echo"))
    work = driver.engine.claim(session.id)
    session.pause()
    assert work is not None
    driver.perform(work)
    assert session.status == "completed"


def test_a_retry_that_comes_while_the_session_is_paused_waits(driver: Driver) -> None:
    session = driver.start(step("a", "fail", retries=1, backoff=0), step("b", "echo"))
    work = driver.engine.claim(session.id)
    session.pause()
    assert work is not None
    driver.perform(work)
    assert driver.engine.claim(session.id) is None
    session.resume()
    driver.run_to_end(session)
    assert driver.states(session) == {"a": "failed", "b": "done"}


def test_a_cancelled_session_takes_nothing_more(driver: Driver) -> None:
    session = driver.start(*THREE)
    work = driver.engine.claim(session.id)
    assert work is not None
    session.cancel()
    with pytest.raises(Lost):
        driver.engine.finish(work, AgentOutput(data=1))
    assert driver.engine.claim(session.id) is None
    assert set(driver.states(session).values()) == {"cancelled"}


def test_retry_runs_what_failed_and_what_it_held_up_and_nothing_else(driver: Driver) -> None:
    works = False

    @driver.agent("sometimes")
    def sometimes(request: Any, ctx: Any) -> Any:
        if not works:
            raise ValueError("not yet")
        return request

    session = driver.start(
        step("l", "echo", [1, 2]),
        step("a", "sometimes", "${item}", each="${l}"),
        step("j", "echo", "${a}"),
        step("off", "echo", 1, when="${l} == 0"),
    )
    driver.run(session)
    assert session.status == "failed"
    works = True
    driver.started.clear()
    assert session.retry() == 4
    driver.run(session)
    assert session.status == "completed"
    assert session.error is None
    assert session.output("j") == [1, 2]
    assert sorted(driver.started) == ["a-0", "a-1", "j"]


def test_a_fan_out_that_could_not_be_opened_is_tried_again(driver: Driver) -> None:
    given: list[Any] = [None]

    @driver.agent("giver")
    def giver(request: Any, ctx: Any) -> Any:
        return given[0]

    given[0] = 5
    session = driver.start(step("l", "giver"), step("a", "echo", "${item}", each="${l}"))
    driver.run(session)
    assert session.retry() == 1
    driver.run(session)
    assert driver.states(session) == {"l": "done", "a": "failed"}


def test_a_cancelled_session_can_be_retried(driver: Driver) -> None:
    session = driver.start(*THREE)
    driver.run(session, most=1)
    session.cancel()
    assert session.retry() == 2
    driver.run(session)
    assert session.status == "completed"
    assert driver.started == ["a", "b", "c"]


def test_complete_stores_the_report_and_ends_what_is_open(driver: Driver) -> None:
    session = driver.start(*THREE)
    driver.run(session, most=1)
    session.complete({"found": "all"})
    assert session.status == "completed"
    assert session.report == {"found": "all"}
    assert session.checkpoints()[-1]["kind"] == "final"
    session.archive()
    assert session.status == "archived"


def _prepare(driver: Driver, status: str) -> Session:
    session = driver.start(*(step("x", "fail"),) if status == "failed" else THREE)
    if status in ("completed", "archived", "failed"):
        driver.run(session)
    if status == "archived":
        session.archive()
    if status == "paused":
        session.pause()
    if status == "cancelled":
        session.cancel()
    assert session.status == status
    return session


ALLOWED = {
    "active": {"pause", "resume", "cancel", "complete", "restore", "change", "checkpoint"},
    "paused": {"pause", "resume", "cancel", "complete", "archive", "restore", "change", "checkpoint", "delete"},
    "completed": {"archive", "restore", "change", "checkpoint", "delete"},
    "failed": {"archive", "retry", "restore", "change", "checkpoint", "delete"},
    "cancelled": {"cancel", "archive", "retry", "restore", "change", "checkpoint", "delete"},
    "archived": {"delete"},
}


def _moves(driver: Driver, session: Session) -> dict[str, Callable[[], Any]]:
    return {
        "pause": session.pause,
        "resume": session.resume,
        "cancel": session.cancel,
        "complete": session.complete,
        "archive": session.archive,
        "retry": session.retry,
        "restore": lambda: session.restore(1),
        "change": lambda: session.change(title="other"),
        "checkpoint": session.checkpoint,
        "delete": lambda: driver.sessions.delete(session.id),
        "run": lambda: session.run(Plan("p", THREE)),
    }


@pytest.mark.parametrize("status", ALLOWED)
def test_an_illegal_move_names_the_state_and_changes_nothing(driver: Driver, status: str) -> None:
    for name in _moves(driver, _prepare(driver, status)):
        session = _prepare(driver, status)
        before = (session.to_dict(), driver.events(session))
        move = _moves(driver, session)[name]
        if name in ALLOWED[status]:
            move()
            continue
        with pytest.raises(SessionError, match=rf"\b{status}\b"):
            move()
        assert (session.to_dict(), driver.events(session)) == before, name


def test_an_unknown_session_is_not_found(driver: Driver) -> None:
    ghost = Session(driver.engine, "0190a000-0000-7000-8000-000000000000")
    for call in (ghost.pause, ghost.resume, ghost.cancel, ghost.retry, ghost.to_dict, ghost.steps, ghost.checkpoint):
        with pytest.raises(SessionNotFound):
            call()
    for bad in ("", "nothing", "a\0b", "%", "0190%", "\ud800", ghost.id):
        with pytest.raises(SessionNotFound):
            driver.sessions.get(bad)


def test_a_session_is_found_by_the_start_of_its_id(driver: Driver) -> None:
    session = driver.start(*THREE)
    assert driver.sessions.get(session.id[:20]).id == session.id
    driver.start(*THREE)
    with pytest.raises(SessionNotFound, match="2 ids start so"):
        driver.sessions.get(session.id[:4])


def test_the_same_key_is_the_same_session(driver: Driver) -> None:
    first = driver.start(*THREE, key="order-17")
    assert driver.start(*THREE, key="order-17").id == first.id
    with pytest.raises(SessionError, match="started with another plan"):
        driver.start(step("other", "echo"), key="order-17")
    assert len(driver.sessions.list()) == 1


def test_a_key_that_eight_threads_of_four_processes_race_for_starts_one_session(
    driver: Driver, make_driver: Callable[..., Driver]
) -> None:
    drivers = [make_driver() for _ in range(4)]
    for one in drivers:
        one.agent("echo")(lambda request, ctx: request)
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(5):
            found = set(pool.map(lambda n, r=round_: drivers[n % 4].start(*THREE, key=f"k{r}").id, range(8)))
            assert len(found) == 1
    assert len(driver.sessions.list()) == 5


def test_a_plan_whose_agent_is_missing_writes_nothing(driver: Driver) -> None:
    with pytest.raises(PlanError):
        driver.start(step("a", "nobody"))
    assert driver.sessions.list() == []


@pytest.mark.parametrize("bad", ["a\0b", "half \ud800"])
@pytest.mark.parametrize("where", ["query", "user", "key", "title", "notes", "tags"])
def test_text_that_no_database_takes_is_refused_by_name(driver: Driver, where: str, bad: str) -> None:
    options: dict[str, Any] = {where: (bad,) if where == "tags" else bad}
    with pytest.raises(SessionError, match=where.removesuffix("s") if where == "tags" else where):
        driver.start(*THREE, **options)
    session = driver.start(*THREE)
    if where in ("title", "notes", "tags"):
        with pytest.raises(CeleriacError):
            session.change(**options)
    with pytest.raises(SessionError):
        driver.sessions.list(user=bad)


def test_json_may_hold_nul(driver: Driver) -> None:
    session = driver.start(step("a", "echo", {"t\0": "x\0y"}), preferences={"p": "\0"})
    driver.run(session)
    assert session.result == {"t\0": "x\0y"}
    assert session.to_dict()["preferences"] == {"p": "\0"}


def test_sessions_are_listed_by_what_describes_them(driver: Driver) -> None:
    one = driver.start(*THREE, user="ana", tags=["x", "y"], title="Annual report")
    two = driver.sessions.create("who?", "ben", tags=["x"], type="dm", priority=5)
    two.change(pinned=True)
    driver.run(one)
    ids = {one.id: "one", two.id: "two"}

    def found(**filters: Any) -> list[str]:
        return [ids[s.id] for s in driver.sessions.list(**filters)]

    assert found() == ["two", "one"]
    assert found(ascending=True) == ["one", "two"]
    assert found(user="ana") == ["one"]
    assert found(tag="x") == ["two", "one"]
    assert found(tag="y") == ["one"]
    assert found(type="dm") == ["two"]
    assert found(status="completed") == ["one"]
    assert found(status=["completed", "active"]) == ["two", "one"]
    assert found(pinned=True) == ["two"]
    assert found(order="priority") == ["two", "one"]
    assert found(since=datetime(2020, 1, 1, tzinfo=UTC)) == ["two", "one"]
    assert found(until=datetime(2020, 1, 1, tzinfo=UTC)) == []
    one.archive()
    assert found() == ["two"]
    assert found(status="archived") == ["one"]
    assert driver.sessions.active_count() == 1
    for wrong in (
        {"status": "odd"},
        {"order": "odd"},
        {"limit": 0},
        {"since": datetime(2020, 1, 1)},
        {"cursor": "odd"},
    ):
        with pytest.raises(SessionError):
            driver.sessions.list(**wrong)


@pytest.mark.parametrize("order", ["created", "updated", "priority"])
def test_pages_hold_every_session_once(driver: Driver, order: str) -> None:
    made = [driver.sessions.create(str(n), priority=n % 3).id for n in range(11)]
    seen: list[str] = []
    cursor = None
    while True:
        page = driver.sessions.list(order=order, cursor=cursor, limit=4)
        seen += [s.id for s in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)
    other = "priority" if order != "priority" else "created"
    first = driver.sessions.list(order=order, limit=1).cursor
    with pytest.raises(SessionError, match="is not a cursor"):
        driver.sessions.list(order=other, cursor=first)


def test_sessions_are_found_by_their_words(driver: Driver) -> None:
    one = driver.sessions.create("Who supplies the bolts?", title="Bolts & nuts", notes="ask O'Neil")
    two = driver.sessions.create("Which supplier is late?")

    def found(words: str) -> set[str]:
        return {"one" if s.id == one.id else "two" for s in driver.sessions.search(words)}

    assert found("supplie") == {"one", "two"}
    assert found("bolts") == {"one"}
    assert found("BOLTS who") == {"one"}
    assert found("supplier late") == {"two"}
    assert found("O'Neil") == {"one"}
    two.change(notes="bolts")
    assert found("bolts") == {"one", "two"}


@pytest.mark.parametrize(
    "words",
    [
        "",
        " ",
        '"',
        "'",
        "*",
        "a*",
        "AND",
        "NOT x",
        "(",
        "a OR",
        "\\",
        "a:*b",
        "!!!",
        "é ñ",
        "-",
        "NEAR(a b)",
        "^a",
        "&|",
        "x" * 5000,
    ],
)
def test_odd_words_find_nothing_and_break_nothing(driver: Driver, words: str) -> None:
    driver.sessions.create("plain")
    assert driver.sessions.search(words) == []


def test_a_deleted_session_leaves_nothing(driver: Driver) -> None:
    session = driver.start(*THREE, tags=["x"], notes="words")
    driver.run(session)
    driver.sessions.delete(session.id)
    with pytest.raises(SessionNotFound):
        driver.sessions.get(session.id)
    assert driver.sessions.search("words") == []
    with pytest.raises(SessionNotFound):
        driver.sessions.delete(session.id)


def test_a_step_whose_session_was_deleted_is_lost(driver: Driver) -> None:
    session = driver.start(*THREE)
    work = driver.engine.claim(session.id)
    assert work is not None
    session.pause()
    driver.sessions.delete(session.id)
    with pytest.raises(Lost):
        driver.engine.finish(work, AgentOutput(data=1))


def test_large_results_are_blobs_and_go_with_the_last_session_that_names_them(
    driver: Driver, make_driver: Callable[..., Driver]
) -> None:
    @driver.agent("big")
    def big(request: Any, ctx: Any) -> Any:
        return {"text": "x" * 2_000_000, "n": request}

    one, two = (driver.start(step("a", "big", 1), step("b", "echo", "${a.n}"), step("l", "echo", "${a}")) for _ in "12")
    other = driver.start(step("a", "big", 2))
    for session in (one, two, other):
        driver.run(session)
    assert one.output("b") == 1
    assert len(one.output("l")["text"]) == 2_000_000
    assert len(list(driver.engine.blobs.hashes())) == 2
    driver.sessions.delete(one.id)
    assert len(list(driver.engine.blobs.hashes())) == 2
    driver.sessions.delete(two.id)
    assert len(list(driver.engine.blobs.hashes())) == 1
    assert other.result["n"] == 2


def test_a_blob_is_never_deleted_from_under_a_result_that_is_being_recorded(
    driver: Driver, make_driver: Callable[..., Driver]
) -> None:
    drivers = [make_driver(inline_result_bytes=10) for _ in range(2)]
    for one in drivers:
        one.agent("big")(lambda request, ctx: "x" * 1000)

    def begin_and_delete(one: Driver) -> None:
        for _ in range(15):
            session = one.start(step("a", "big"), step("b", "big"))
            one.run(session)
            assert session.output("a") == session.output("b") == "x" * 1000
            one.sessions.delete(session.id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(begin_and_delete, drivers * 2))
    assert list(driver.engine.blobs.hashes()) == []


def test_a_request_over_the_limit_is_refused_before_anything_is_written(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(max_request_bytes=1000)
    driver.agent("echo")(lambda request, ctx: request)
    with pytest.raises(PlanError, match="request of step 'b' is 1,002 bytes of JSON; the limit is 1,000"):
        driver.start(step("s", plan=[step("b", "echo", "x" * 1000)]))
    session = driver.start(step("a", "echo", "x" * 900), step("b", "echo", "${a}${a}"))
    driver.run(session)
    assert session.result == "x" * 1800


def test_an_unknown_step_is_named_with_those_there_are(driver: Driver) -> None:
    session = driver.start(*THREE)
    for name in ("nope", "a\0"):
        with pytest.raises(StepNotFound, match="it has: a, b, c"):
            session.output(name)


def test_idle_sessions_are_cancelled_unless_pinned(driver: Driver) -> None:
    idle, pinned, done = (driver.start(*THREE) for _ in range(3))
    pinned.change(pinned=True)
    driver.run(done)
    assert driver.sessions.cleanup_inactive(3600) == []
    assert driver.sessions.cleanup_inactive(-1) == [idle.id]
    assert [s.status for s in (idle, pinned, done)] == ["cancelled", "active", "completed"]


def test_a_session_without_a_plan_gets_one_later(driver: Driver) -> None:
    session = driver.sessions.create("q")
    assert (session.status, session.to_dict()["phase"], session.result) == ("active", "initializing", None)
    session.run(Plan("p", THREE))
    with pytest.raises(SessionError, match="with 3 steps"):
        session.run(Plan("p", THREE))
    driver.run(session)
    assert session.result == 1
    assert session.plan == Plan("p", THREE)


@pytest.mark.parametrize(
    "bad",
    [{"permissions": "docs:read"}, {"permissions": [5]}, {"tags": "abc"}, {"metadata": 5}, {"preferences": [1]},
     {"file_paths": "here"}, {"tags": {"a": 1}}, {"permissions": 7}],
)  # fmt: skip
@pytest.mark.parametrize("planned", [True, False])
def test_what_is_no_list_or_no_object_is_refused_when_a_session_is_started(
    driver: Driver, bad: dict[str, Any], planned: bool
) -> None:
    with pytest.raises(SessionError, match=f"{next(iter(bad))} must be an? (list of texts|object), found"):
        driver.start(step("a", "echo"), **bad) if planned else driver.sessions.create(**bad)
    assert driver.sessions.list() == []


def test_numbers_and_ids_that_are_none_are_one_error(driver: Driver) -> None:
    with pytest.raises(SessionNotFound, match="5 is no id"):
        driver.sessions.get(5)  # type: ignore[arg-type]
    with pytest.raises(SessionError, match="limit 'a' is not allowed"):
        driver.sessions.list(limit="a")  # type: ignore[arg-type]
    session = driver.start(step("a", "echo"))
    with pytest.raises(SessionError, match="from_offset"):
        list(session.stream(10**30, follow=False))
    with pytest.raises(StateError, match="limit"):
        driver.engine.state.list_keys("global", limit=10**30)
