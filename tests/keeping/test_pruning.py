"""Pruning: each strategy takes what it should, what must stay stays, and a dry run says before what goes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from driver import Driver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import Celeriac, step
from celeriac.errors import CeleriacError
from celeriac.interface.main import celeriac
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.history import reading
from celeriac.orchestration.history.reading import Reads
from celeriac.orchestration.keeping.pruning import Pruned, Pruning
from celeriac.orchestration.keeping.strategies import STRATEGIES, Item, Limits, choose
from celeriac.orchestration.session import Session
from keeping.aged import age, count, sql

Make = Callable[..., Driver]
NONE = {"prune_preserve_research": 0, "prune_preserve_dm": 0, "prune_preserve_group": 0}


def pruning(driver: Driver) -> Pruning:
    return Pruning(driver.engine, driver.engine.caller)


def talk(driver: Driver, entries: int = 10, **options: Any) -> Session:
    session = driver.sessions.create("q", **options)
    for n in range(entries):
        session.history.add("user", f"message {n} of {session.id}")
    return session


def numbers(session: Session) -> list[int]:
    return [entry["number"] for entry in session.history()]


def same(planned: Pruned, found: Pruned) -> bool:
    of_the_file = {"dry_run": 0, "file_bytes": 0, "notes": 0}
    return planned.to_dict() | of_the_file == found.to_dict() | of_the_file


def test_the_longest_unused_messages_go_and_important_ones_and_prompts_stay(make: Make) -> None:
    driver = make(**NONE)
    session = driver.sessions.create("q")
    session.history.add("system", "Be brief.")
    session.history.add("user", "The code is 4711.", metadata={"important": True})
    for n in range(8):
        session.history.add("user", f"words {n}")
    planned = pruning(driver).run("lru", of="messages", keep=4, dry_run=True)
    assert session.history.count() == 10 and planned.tokens > 0 and planned.counted_by.startswith("estimate")
    found = pruning(driver).run("lru", of="messages", keep=4)
    assert same(planned, found) and [one["number"] for one in found.messages] == [3, 4, 5, 6, 7, 8]
    assert numbers(session) == [1, 2, 9, 10] and session.history.count() == 4
    assert session.history.add("user", "on") == 11
    assert pruning(driver).run("lru", of="messages", keep=0).to_dict()["counts"] == {"sessions": 0, "messages": 3}
    assert numbers(session) == [1, 2]
    assert pruning(driver).stats()["pruning"]["messages"] == 9
    session.history.prune(keep=0)
    assert [entry["number"] for entry in session.history.window()] == [1, 2]


def test_the_newest_of_a_session_stay_by_its_type(make: Make) -> None:
    driver = make(prune_preserve_dm=6, prune_preserve_group=3, prune_preserve_research=0)
    by_type = {kind: talk(driver, type=kind) for kind in ("dm", "group", "research")}
    pruning(driver).run("lru", of="messages", keep=0)
    assert {kind: numbers(one) for kind, one in by_type.items()} == {
        "dm": [5, 6, 7, 8, 9, 10], "group": [8, 9, 10], "research": [],
    }  # fmt: skip


def test_pinned_and_working_and_archived_sessions_lose_nothing(make: Make) -> None:
    driver = make(**NONE)
    pinned, archived, plain = (talk(driver) for _ in range(3))
    pinned.change(pinned=True)
    archived.complete()
    archived.archive()
    working = driver.start(step("a", "echo", {}))
    for n in range(10):
        working.history.add("user", f"words {n}")
    for strategy, limits in (("lru", {"keep": 0}), ("size", {"max_bytes": 0}), ("ttl", {"ttl": 0.001})):
        time.sleep(0.01)
        pruning(driver).run(strategy, of="messages", **limits)
    assert [one.history.count() for one in (pinned, working, plain)] == [10, 10, 0]
    in_its_file = Archives(driver.engine, Caller(), driver.sessions).show(archived.id)
    assert len(in_its_file["history"]) == 10
    age(driver, working, 50)
    age(driver, pinned, 50)
    found = pruning(driver).run("lru", of="sessions", keep=0)
    assert {one["id"] for one in found.sessions} == {archived.id, plain.id}
    assert {one.id for one in driver.sessions.list()} == {pinned.id, working.id}
    working.cancel()


def test_a_message_goes_when_its_own_time_or_the_usual_one_is_over(make: Make) -> None:
    driver = make(**NONE, prune_message_ttl=100.0)
    session = driver.sessions.create("q")
    for ttl in (None, 10, 1000):
        session.history.add("user", f"ttl {ttl}", metadata={} if ttl is None else {"ttl": ttl})
    session.history.add("user", "stays", metadata={"important": True, "ttl": 1})
    sql(driver, "UPDATE history SET at = at - 50")
    assert [one["number"] for one in session.prune("ttl").messages] == [2]
    sql(driver, "UPDATE history SET at = at - 100")
    assert [one["number"] for one in pruning(driver).run("ttl", of="messages").messages] == [1]
    assert [one["number"] for one in session.prune("ttl", ttl=20).messages] == []
    assert numbers(session) == [3, 4]


def test_the_largest_go_until_the_rest_fits(make: Make) -> None:
    driver = make(**NONE, inline_result_bytes=500)
    session = driver.sessions.create("q")
    for size in (10, 2000, 50, 900, 20):
        session.history.add("user", "s" * size)
    planned = session.prune("size", max_bytes=500, dry_run=True)
    found = session.prune("size", max_bytes=500)
    assert same(planned, found) and numbers(session) == [1, 3, 5] and count(driver, "blobs") == 0


def test_near_duplicates_go_and_the_newest_of_them_stays(make: Make) -> None:
    driver = make(**NONE)
    session = driver.sessions.create("q")
    text = "The shipment of cocoa from Guayaquil is due on the third of May, by the Andina line, in forty crates"
    for said in (text, "yes", "Something else entirely was said about the weather in Lima today", "yes",
                 f"{text} .", text.replace("forty", "sixty") + " and a half, they say in the harbour"):  # fmt: skip
        session.history.add("user", said)
    session.history.add("assistant", text)
    planned = pruning(driver).run("semantic", of="messages", dry_run=True)
    assert [(one["number"], one["why"]) for one in planned.messages] == [(1, "says what entry 5 says")]
    assert same(planned, session.prune("semantic"))
    assert numbers(session) == [2, 3, 4, 5, 6, 7]
    assert [one["number"] for one in session.prune("semantic", similarity=0.6).messages] == [5]


def test_semantic_without_its_package_says_what_to_install(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    driver = make()
    with pytest.raises(CeleriacError, match=r"pip install 'celeriac\[pruning\]'"):
        pruning(driver).run("semantic")


def test_sessions_go_by_use_size_age_and_likeness(make: Make) -> None:
    driver = make()
    question = "Which companies supply cocoa beans to the factories of the northern coast?"
    ids = [
        driver.sessions.create(f"{question}{'!' * n}" if n < 2 else f"another question {n}", "ana").id for n in range(5)
    ]
    for place, session_id in enumerate(ids):
        age(driver, session_id, 10 - place)
    assert [one["id"] for one in pruning(driver).run("semantic", of="sessions", dry_run=True).sessions] == ids[:1]
    driver.sessions.get(ids[3]).add(role="user", content="x" * 5000)
    assert [one["id"] for one in pruning(driver).run("ttl", of="sessions", ttl=8.5 * 86400).sessions] == ids[:2]
    planned = pruning(driver).run("size", of="sessions", max_bytes=3000, dry_run=True)
    assert [one["id"] for one in planned.sessions] == [ids[3]] and planned.sessions[0]["messages"] == 1
    assert [one["id"] for one in pruning(driver).run("lru", of="sessions", keep=2).sessions] == [ids[2]]
    assert {one.id for one in driver.sessions.list()} == {ids[3], ids[4]}


def test_what_is_read_counts_as_used_where_reads_are_counted(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_EVERY", -1.0)
    driver = make(**NONE, prune_count_reads="on")
    session = talk(driver, 160)
    for _ in range(3):
        session.history.range(10, 20)
    found = session.prune("lfu", keep=111)
    assert found.by == "what is read and written"
    assert [one["number"] for one in found.messages] == list(range(50, 99))
    found = session.prune("lru", keep=50)
    assert [one["number"] for one in found.messages][:3] == [99, 100, 101] and numbers(session)[0] == 1
    other = talk(driver, 1)
    assert [one["id"] for one in pruning(driver).run("lfu", of="sessions", keep=1).sessions] == [other.id]


def test_readers_at_once_are_all_counted(make: Make) -> None:
    driver = make(prune_count_reads="on")
    session = talk(driver, 3)
    counter = reading.reads_of(driver.engine)
    assert isinstance(counter, Reads)
    for _ in range(7):
        session.history.last(1)
    counter.flush()
    assert driver.engine.database.read(lambda tx: tx.value(_sum())) == 7


def _sum() -> Any:
    from sqlalchemy import text

    return text("SELECT sum(reads) FROM history_reads")


def test_on_schedule_the_settings_say_what_goes(make: Make) -> None:
    driver = make(**NONE)
    talk(driver)
    assert pruning(driver).run().to_dict()["counts"] == {"sessions": 0, "messages": 0}
    driver = make(**NONE, prune_strategy="lru", prune_messages=4)
    found = pruning(driver).run()
    assert (found.strategy, len(found.messages), len(found.sessions)) == ("lru", 6, 0)
    json.dumps(found.to_dict())
    driver = make(**NONE, prune_strategy="size")
    assert pruning(driver).run().to_dict()["counts"] == {"sessions": 0, "messages": 0}


@pytest.mark.parametrize("of", ["messages", "sessions"])
def test_the_file_of_the_database_is_smaller_afterwards(make: Make, of: str) -> None:
    driver = make(**NONE)
    session = driver.sessions.create("q")
    session.history.extend({"role": "user", "content": f"{n} " * 200} for n in range(2000))
    found = pruning(driver).run("lru", of=of, keep=0)
    before, after = found.file_bytes
    if driver.engine.database.is_sqlite:
        assert after == driver.engine.database.path.stat().st_size < before / 2
        assert not found.notes
    else:
        assert (before, after) == (0, 0) and "autovacuum" in found.notes[0]


def test_where_histories_live_elsewhere_it_is_said_that_no_messages_were_looked_at(make: Make, tmp_path: Path) -> None:
    driver = make(**NONE, history_url=f"file://{tmp_path}/said")
    talk(driver)
    found = pruning(driver).run("lru", of="messages", keep=1)
    assert not found.messages and "they live in file://" in found.notes[0]


def test_what_is_not_allowed_is_named(make: Make) -> None:
    driver = make()
    for strategy, limits, said in (
        ("mru", {}, "lru, lfu, ttl, size, semantic"),
        ("off", {}, "no strategy"),
        ("lru", {}, "how many may stay"),
        ("size", {"of": "messages"}, "how many bytes"),
        ("lru", {"of": "things"}, "sessions, messages"),
        ("ttl", {"keep": 5}, "ttl does not look at keep; it looks at ttl"),
        ("lru", {"keep": -1}, "a whole number >= 0"),
        ("ttl", {"ttl": float("nan")}, "seconds > 0"),
        ("semantic", {"similarity": 1.5}, "> 0 and <= 1"),
        ("ttl", {"of": "sessions"}, "what is old"),
    ):
        with pytest.raises(CeleriacError, match=said):
            pruning(driver).run(strategy, **limits)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_strategy_takes_more_than_it_needs(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(1, 100)), max_size=30))
    items = [
        Item(("s", n), float(used), uses, size, 10.0, float(used)) for n, (used, uses, size) in enumerate(sizes, 1)
    ]
    staying = data.draw(st.integers(0, 5))
    strategy = data.draw(st.sampled_from([one for one in STRATEGIES if one != "semantic"]))
    limits = Limits(
        len(items) + staying, data.draw(st.integers(0, 40)), sum(i.size for i in items), data.draw(st.integers(0, 900))
    )
    gone = [item for item, _ in choose(strategy, items, limits, 30.0)]
    assert len({item.key for item in gone}) == len(gone)
    left = [item for item in items if item not in gone]
    if strategy in ("lru", "lfu"):
        assert len(gone) == min(max(limits.count - (limits.most or 0), 0), len(items))
        use: Callable[[Item], Any] = (lambda i: i.used) if strategy == "lru" else (lambda i: (i.uses, i.used))
        assert not gone or not left or max(map(use, gone)) <= min(map(use, left))
    elif strategy == "size":
        excess = limits.size - (limits.most_size or 0)
        assert sum(i.size for i in gone) >= min(excess, limits.size)
        assert not gone or sum(i.size for i in gone[:-1]) < excess
    else:
        assert all(i.used + 10 < 30 for i in gone) and all(i.used + 10 >= 30 for i in left)


def test_the_command_line_prunes_and_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERIAC_PRUNE_PRESERVE_RESEARCH", "0")
    c = Celeriac(embed=False)
    session = c.sessions.create("q")
    for n in range(30):
        session.history.add("user", f"words {n}")
    c.close()

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(celeriac, ["prune", *words])
        assert result.exit_code == code, result.output
        return result.stdout + (result.stderr if code else "")

    said = run("messages", "--strategy", "lru", "--keep", "5", "--dry-run")
    assert "25 messages of" in said and "would go" in said and "and 5 more" in said
    found = json.loads(run("messages", "--strategy", "lru", "--keep", "5", "--session", session.id[:20], "--json"))
    assert found["counts"] == {"sessions": 0, "messages": 25} and len(found["messages"]) == 25
    assert json.loads(run("sessions", "--strategy", "lru", "--keep", "0", "--json"))["sessions"][0]["messages"] == 5
    assert json.loads(run("stats", "--json"))["pruning"] | {"bytes": 0, "tokens": 0} == {
        "runs": 2, "sessions": 1, "messages": 30, "bytes": 0, "tokens": 0,
    }  # fmt: skip
    assert "2 runs, 1 session, 30 messages, " in run("stats")
    assert "does not look at keep" in run("messages", "--strategy", "ttl", "--keep", "5", code=2)
    assert "how many may stay" in run("messages", "--strategy", "lru", code=2)
