"""Without a grant nothing is open, through no door; with one, exactly what it names; taken back, nothing again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from guard.doors import ADMINS, DOORS, FREE, NOTHING, OWN, PLAN, WRITES, everything, handle, public, uses

from celeriac import Celeriac, Plan, step
from celeriac.errors import AccessDenied, AccessError, SessionNotFound, SettingsError
from celeriac.orchestration.agents import Registry, agent
from celeriac.orchestration.guard.access import Access, Caller
from celeriac.orchestration.guard.grants import bootstrap
from celeriac.orchestration.session import Session
from celeriac.storage import access as rows
from celeriac.tasks import own
from celeriac.tasks.acting import Acting

Make = Callable[..., Celeriac]
#: For what is the same on every database.
once = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Celeriac] = []
    registry = Registry()

    @agent("echo", registry=registry)
    def echo(request: Any, ctx: Any) -> Any:
        return request

    @agent("writer", registry=registry)
    def writer(request: Any, ctx: Any) -> Any:
        ctx.state.set("own", 1)
        ctx.state.of(f"session:{ctx.session.id}").set("own", 1)
        ctx.state.of(request["scope"]).set("k", request["value"])
        if "take" in request:
            alone.grants.remove("ana", "write", request["take"])
        return None

    def new(**settings: Any) -> Celeriac:
        known = {"data_dir": str(tmp_path / "data"), "database_url": database_url, "access": "on", "sweep_seconds": 0.1}
        made.append(Celeriac(registry=registry, embed=False, **{**known, **settings}))
        return made[-1]

    alone = new(access="off")
    bootstrap(alone.engine.database, "", "root")
    yield new
    for one in made:
        one.close()


@pytest.fixture
def c(make: Make) -> Celeriac:
    """A Celeriac with access on, whose admin is root; ana may start sessions."""
    c = make()
    c.acting_as("root").grants.add("ana", "write", "sessions")
    return c


# -- every door is checked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DOORS, ids=lambda kind: kind.__name__)
def test_no_door_is_without_a_check_in_this_file(kind: type) -> None:
    assert public(kind) == set(DOORS[kind]) | FREE.get(kind, set())


def fill(c: Celeriac, acting: Acting) -> dict[str, Any]:
    """A session that is over, state, a cached result, a run of a migration; gives what they are called."""
    from celeriac import Schema

    schemas = acting.migrations._schemas
    if "access-profile" not in schemas.names():
        for version in ("1.0.0", "2.0.0"):
            schemas.add(Schema("access-profile", version, {"n": {"type": "number"}}))
    session = acting.sessions.start(PLAN, "a secret question")
    other = acting.sessions.create("another secret")
    session.history.add("user", "a secret remark")
    with c.embedded(1):
        assert session.wait(20) == "completed"
    acting.state.set("custom:x", "k", {"n": 1})
    key = acting.cache.key("echo", 1, permissions=[])
    acting.cache.put(key, "a secret")
    acting.templates.save("weekly", tags=["a secret"])
    run = acting.migrations.run("custom:x", "k", schema="access-profile")
    acting.cache.stats()  # what was counted is written
    return {
        "session": session.id,
        "other": other.id,
        "Sessions": session.id,
        "CallersCache": key,
        "Migrations": run.run,
        "Histories": session.id,
        "Archives": session.id,
    }


def test_who_holds_no_grant_passes_no_door_and_changes_nothing(c: Celeriac) -> None:
    known = fill(c, c.acting_as("root"))
    before = everything(c.engine.database)
    for principal in ("eve", ""):
        for kind, name, use in uses():
            stranger = handle(kind, c.acting_as(principal), known)
            if (kind, name) in NOTHING:
                assert not use(stranger), name
                continue
            with pytest.raises(AccessDenied, match=r"access denied: ('eve' lacks the grant|nobody is named)"):
                use(stranger)
    assert everything(c.engine.database) == before


@pytest.mark.parametrize("held", ["read", "write"])
def test_each_door_needs_the_right_that_it_should(c: Celeriac, held: Any) -> None:
    known = fill(c, c.acting_as("root"))
    c.acting_as("root").grants.add("lea", held, "*")
    before = everything(c.engine.database)
    refused = {}
    for kind, name, use in uses():
        more = name in ADMINS.get(kind, ()) or (held == "read" and name in WRITES.get(kind, ()))
        if held == "write" and not more and name in (*WRITES.get(kind, ()), "cleanup_inactive"):
            continue  # it would do it
        try:
            use(handle(kind, c.acting_as("lea"), known))
        except AccessDenied as fault:
            refused[kind, name] = str(fault)
        except Exception as fault:
            assert not more, (name, fault)
        assert ((kind, name) in refused) == more, (kind, name)
    assert all(any(f"lacks the grant {right} on" in told for right in ("write", "admin")) for told in refused.values())
    after = everything(c.engine.database)
    assert {name for name in before if before[name] != after[name]} <= {"cache_counters", "cached_results"}


def test_an_admin_of_another_tenant_finds_nothing_behind_any_door(c: Celeriac) -> None:
    known = fill(c, c.acting_as("root"))
    bootstrap(c.engine.database, "other", "root")
    before = everything(c.engine.database)
    for kind, name, use in uses():
        if name in OWN.get(kind, ()):
            continue
        try:
            found = use(handle(kind, c.acting_as("root", "other"), known))
        except SessionNotFound as fault:
            assert str(fault) == f"no session {known['session']!r}", name
        except Exception as fault:
            assert "secret" not in str(fault) and known["session"] not in str(fault), name
        else:
            assert "secret" not in repr(found) and known["session"] not in repr(found), name
    after = everything(c.engine.database)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"state_values", "state_events", "grant_marks", "cache_cutoffs", "cache_counters"}
    for name in changed - {"cache_cutoffs", "grant_marks", "cache_counters"}:
        assert set(before[name]) <= set(after[name]), name
    assert Session(c.engine, known["session"], caller=Caller("root")).status == "completed"
    hit = c.acting_as("root").cache.get(known["CallersCache"])
    assert hit is not None and hit.value == "a secret"


@once
def test_messages_of_the_broker_start_nothing_without_a_grant(c: Celeriac) -> None:
    mine = c.acting_as("ana").sessions.create("q")
    c.maintain("sweep")  # notes the jobs that there are
    before = everything(c.engine.database)
    messages: dict[str, tuple[Any, ...]] = {
        "celeriac.step": (mine.id,),
        "celeriac.sweep": (),
        "celeriac.maintain": ("backup",),
        "celeriac.research": ("q", ["/"], "/tmp/nowhere", "documents", "ana"),
    }
    assert set(messages) == set(own.NAMES)
    for name, words in messages.items():
        with pytest.raises(AccessDenied) if name == "celeriac.research" else contextlib.nullcontext():
            c.app.tasks[name].run(*words)
    assert everything(c.engine.database) == before


# -- what grants mean --------------------------------------------------------------------------------------------------


@once
def test_each_right_holds_those_before_it_and_no_more(c: Celeriac) -> None:
    root = c.acting_as("root")
    for right in ("read", "write", "admin"):
        root.grants.add(right, right, "custom:plans")  # type: ignore[arg-type]
    root.state.set("custom:plans", "k", 1)
    for who in ("read", "write", "admin"):
        state = c.acting_as(who).state
        assert state.get("custom:plans", "k") == 1
        with pytest.raises(AccessDenied) if who == "read" else contextlib.nullcontext():
            state.set("custom:plans", "k", 1)
        with pytest.raises(AccessDenied) if who != "admin" else contextlib.nullcontext():
            c.acting_as(who).grants.add("eve", "read", "custom:plans")
        with pytest.raises(AccessDenied, match=f"{who!r} lacks the grant read on custom:other"):
            state.get("custom:other", "k")


STARS: list[tuple[str, list[str], list[str]]] = [
    ("custom:a*", ["custom:a", "custom:ab/c"], ["custom:b", "global", "agent:a"]),
    ("custom:*-x", ["custom:-x", "custom:a-x"], ["custom:a-xy"]),
    ("agent:*", ["agent:reader"], ["custom:reader", "global"]),
    ("*", ["global", "custom:x", "step:a/b", "session:x"], []),
    ("global", ["global"], ["custom:global"]),
    ("step:demo/*", ["step:demo/one"], ["step:other/one", "workflow:demo"]),
]


@once
def test_a_star_stands_for_any_characters_of_a_name(c: Celeriac) -> None:
    state, grants = c.acting_as("team-ana").state, c.acting_as("root").grants
    for pattern, yes, no in STARS:
        grants.add("team-*", "read", pattern)
        for scope in yes:
            assert state.get(scope, "k") is None
        for scope in no:
            with pytest.raises(AccessDenied):
                state.get(scope, "k")
        with pytest.raises(AccessDenied):
            c.acting_as("tea").state.get(yes[0], "k")
        grants.remove("team-*", "read", pattern)


def test_patterns_take_linear_time() -> None:
    from celeriac.orchestration.schemas.registry import Pattern

    began = time.perf_counter()
    assert not Pattern("custom:" + "*a" * 400 + "b").matches("custom:" + "a" * 500)
    assert time.perf_counter() - began < 0.05


def test_whose_session_it_is_may_do_everything_with_it_and_nobody_else(c: Celeriac) -> None:
    mine = c.acting_as("ana").sessions.start(PLAN, "mine", key="k")
    assert mine.user == "ana" and [s.id for s in c.acting_as("ana").sessions.list()] == [mine.id]
    bob = c.acting_as("bob")
    with pytest.raises(AccessDenied, match=f"'bob' lacks the grant read on session:{mine.id}; .*grants add bob read"):
        bob.sessions.get(mine.id)
    with pytest.raises(SessionNotFound):
        bob.sessions.get(mine.id[:20])
    c.acting_as("ana").grants.add("bob", "read", f"session:{mine.id}")
    assert [s.id for s in bob.sessions.list()] == [mine.id] == [bob.sessions.get(mine.id[:30]).id]
    assert bob.sessions.active_count() == 1 and bob.sessions.get(mine.id).query == "mine"
    with pytest.raises(AccessDenied, match="write"):
        bob.sessions.get(mine.id).cancel()
    c.acting_as("ana").state.set(f"session:{mine.id}", "k", 1)
    assert bob.state.get(f"session:{mine.id}", "k") == 1
    mine.cancel()
    c.acting_as("ana").sessions.delete(mine.id)


def test_sessions_are_started_for_oneself_unless_one_is_admin_of_all(c: Celeriac) -> None:
    with pytest.raises(AccessDenied, match=r"'ana' lacks the grant admin on session:\*"):
        c.acting_as("ana").sessions.create("q", user="bob")
    assert c.acting_as("root").sessions.create("q", user="bob").user == "bob"
    with pytest.raises(AccessDenied, match="'bob' lacks the grant write on sessions"):
        c.acting_as("bob").sessions.create("q")


def test_a_key_of_anothers_session_does_not_give_that_session(c: Celeriac) -> None:
    c.acting_as("root").grants.add("bob", "write", "sessions")
    mine = c.acting_as("ana").sessions.start(PLAN, key="k")
    for plan in (PLAN, Plan("p", [step("b", "echo")])):
        with pytest.raises(AccessDenied, match="read on session"):
            c.acting_as("bob").sessions.start(plan, key="k")
    assert c.acting_as("ana").sessions.start(PLAN, key="k").id == mine.id


def test_patterns_of_sessions_are_listed(c: Celeriac) -> None:
    first, second = (c.acting_as("ana").sessions.create(f"q{n}") for n in range(2))
    c.acting_as("root").grants.add("bob", "read", f"session:{first.id[:-2]}*")
    c.acting_as("root").grants.add("bob", "read", "session:%")
    assert [s.id for s in c.acting_as("bob").sessions.list()] == [first.id]
    c.acting_as("root").grants.add("bob", "write", "session:*")
    assert {s.id for s in c.acting_as("bob").sessions.list()} == {first.id, second.id}
    assert set(c.acting_as("bob").sessions.cleanup_inactive(-1)) == {first.id, second.id}


@once
def test_grants_are_given_only_on_what_one_is_admin_of(c: Celeriac) -> None:
    c.acting_as("root").grants.add("lea", "admin", "custom:team-*")
    c.acting_as("root").grants.add("lea", "admin", "custom:x")
    lea = c.acting_as("lea").grants
    assert lea.add("eve", "admin", "custom:team-*") and lea.add("eve", "read", "custom:team-a*b")
    assert not lea.add("eve", "read", "custom:team-a*b")
    for resource in ("custom:team*", "custom:*", "*", "session:*", "custom:tea", "global"):
        with pytest.raises(AccessDenied, match="admin on"):
            lea.add("lea", "read", resource)
    assert {one["resource"] for one in lea.list()} == {"custom:team-*", "custom:team-a*b", "custom:x"}
    assert c.acting_as("eve").grants.remove("lea", "admin", "custom:team-*") is True
    with pytest.raises(AccessDenied):
        lea.add("lea", "read", "custom:team-x")


NONE: list[tuple[Any, Any, Any, str]] = [
    ("", "read", "global", "principal ''"),
    ("a\0", "read", "global", "principal"),
    ("a" * 201, "read", "global", "201 characters"),
    ("a", "own", "global", "right 'own' is not allowed; allowed: read, write, admin"),
    ("a", "read", "customs:x", "allowed: session:ID, sessions"),
    ("a", "read", "custom:", "allowed: session:ID"),
    ("a", "read", "cust*", "allowed: session:ID"),
    ("a", "read", "global:x", "allowed: session:ID"),
    ("a", "read", "step:x", "is no scope"),
    ("a", "read", "custom:" + "x" * 2000, "1024 bytes"),
    ("a", "read", 5, "resource 5"),
]


@once
def test_what_is_no_grant_is_refused(c: Celeriac) -> None:
    for principal, right, resource, told in NONE:
        with pytest.raises(AccessError, match=told):
            c.acting_as("root").grants.add(principal, right, resource)


@once
def test_names_that_cannot_be_are_refused(c: Celeriac) -> None:
    for name in ("a\0", "\ud800", "a" * 201, "\U0001f600" * 150):
        for words in ((name, ""), ("a", name)):
            with pytest.raises(SettingsError):
                c.acting_as(*words)


def test_only_the_first_admin_comes_from_nowhere(c: Celeriac) -> None:
    with pytest.raises(AccessError, match="there is an admin already: root"):
        bootstrap(c.engine.database, "", "eve")
    bootstrap(c.engine.database, "", "root")
    bootstrap(c.engine.database, "acme", "eve")
    assert c.acting_as("eve", "acme").grants.list()[0]["resource"] == "*"
    assert c.acting_as("eve").grants.list() == []


# -- in force at once --------------------------------------------------------------------------------------------------


def test_a_grant_counts_in_another_process_for_the_next_operation(make: Make) -> None:
    giver, user = make(), make()  # each has its own connections and its own grants at hand
    state, grants = user.acting_as("ana").state, giver.acting_as("root").grants
    for _ in range(20):
        with pytest.raises(AccessDenied):
            state.set("custom:x", "k", 1)
        grants.add("ana", "write", "custom:x")
        state.set("custom:x", "k", 1)
        grants.remove("ana", "write", "custom:x")


def test_nothing_is_written_after_a_grant_was_taken_back(make: Make) -> None:
    giver, user = make(), make()
    grants, state, stop = giver.acting_as("root").grants, user.acting_as("ana").state, threading.Event()
    written: list[tuple[float, float]] = []

    def write() -> None:
        while not stop.is_set():
            began = time.monotonic()
            with contextlib.suppress(AccessDenied):
                state.set("custom:x", "k", 1)
                written.append((began, time.monotonic()))

    thread = threading.Thread(target=write)
    thread.start()
    closed: list[tuple[float, float]] = []
    for _ in range(15):
        grants.add("ana", "write", "custom:x")
        time.sleep(0.01)
        grants.remove("ana", "write", "custom:x")
        since = time.monotonic()
        time.sleep(0.02)
        closed.append((since, time.monotonic()))
    stop.set()
    thread.join()
    inside = [one for one in written if any(since < one[0] and one[1] < until for since, until in closed)]
    assert written and not inside


@once
def test_a_child_of_a_fork_asks_for_itself(c: Celeriac) -> None:
    state, grants = c.acting_as("ana").state, c.acting_as("root").grants
    grants.add("ana", "read", "custom:x")
    assert state.get("custom:x", "k") is None
    ready, go = multiprocessing.Event(), multiprocessing.Event()

    def child() -> None:
        state.get("custom:x", "k")
        ready.set()
        go.wait(10)
        try:
            state.get("custom:x", "k")
        except AccessDenied:
            os._exit(7)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert ready.wait(10)
    grants.remove("ana", "read", "custom:x")
    go.set()
    process.join(10)
    assert process.exitcode == 7


def test_who_follows_is_cut_off_when_the_grant_goes(c: Celeriac) -> None:
    mine = c.acting_as("ana").sessions.create("q")
    grants = c.acting_as("ana").grants
    grants.add("bob", "read", f"session:{mine.id}")
    stream = c.acting_as("bob").sessions.get(mine.id).stream()
    assert next(stream).type == "session.created"
    grants.remove("bob", "read", f"session:{mine.id}")
    mine.checkpoint("secret")
    with pytest.raises(AccessDenied):
        next(stream)


# -- steps -------------------------------------------------------------------------------------------------------------


def ended(c: Celeriac, **request: Any) -> Session:
    """A session of ana's whose one step writes to a scope."""
    session = c.acting_as("ana").sessions.start(Plan("w", [step("a", "writer", request)]))
    with c.embedded(1):
        session.wait(20)
    return session


def test_a_step_writes_as_its_sessions_user_and_its_own_scopes_are_free(c: Celeriac) -> None:
    failed = ended(c, scope="custom:x", value=1)
    assert failed.status == "failed" and "AccessDenied: access denied: 'ana' lacks the grant write on" in failed.error
    assert failed.steps()[0]["attempts"] == 1 and c.acting_as("root").state.get("agent:writer", "own") is None
    c.acting_as("root").grants.add("ana", "write", "custom:x")
    done = ended(c, scope="custom:x", value=2)
    state = c.acting_as("root").state
    assert done.status == "completed" and state.get("custom:x", "k") == 2
    assert state.get("agent:writer", "own") == 1 == state.get(f"session:{done.id}", "own")
    assert {(one["principal"], one["right"], one["resource"]) for one in c.acting_as("root").grants.refused()} == {
        ("ana", "write", "custom:x")
    }


def test_what_a_step_holds_is_not_written_once_the_grant_is_gone(c: Celeriac) -> None:
    c.acting_as("root").grants.add("ana", "write", "custom:x")
    session = ended(c, scope="custom:x", value=1, take="custom:x")
    assert session.status == "failed" and "lacks the grant write on custom:x" in session.error
    assert c.acting_as("root").state.get("custom:x", "k") is None


# -- what is noted -----------------------------------------------------------------------------------------------------


def test_refusals_are_noted_once_for_each_kind_and_bounded(c: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_REFUSALS", 5)
    eve = c.acting_as("eve").state
    for n in range(9):
        for _ in range(2):
            with pytest.raises(AccessDenied):
                eve.get(f"custom:{n}", "k")
    found = c.acting_as("root").grants.refused()
    assert len(found) == 5 and "custom:0" not in {one["resource"] for one in found}
    assert {(one["times"], one["principal"], one["right"]) for one in found} == {(2, "eve", "read")}


@once
def test_whose_session_it_is_sees_who_was_refused_there(c: Celeriac) -> None:
    mine = c.acting_as("ana").sessions.create("q")
    for resource in (f"session:{mine.id}", "custom:x"):
        with pytest.raises(AccessDenied):
            c.acting_as("eve").state.get(resource, "k")
    for who, seen in (("ana", {f"session:{mine.id}"}), ("root", {f"session:{mine.id}", "custom:x"}), ("eve", set())):
        assert {one["resource"] for one in c.acting_as(who).grants.refused()} == seen


@once
def test_a_refusal_stands_where_it_cannot_be_noted(c: Celeriac, monkeypatch: pytest.MonkeyPatch) -> None:
    from celeriac.errors import StorageError

    def away(*_: Any) -> None:
        raise StorageError("away")

    monkeypatch.setattr(rows, "refuse", away)
    with pytest.raises(AccessDenied):
        c.acting_as("eve").state.get("global", "k")


# -- off, and bound ----------------------------------------------------------------------------------------------------


@once
def test_switched_off_nothing_is_asked_of_the_database(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    off = make(access="off")
    monkeypatch.setattr(Access, "_held", lambda *_: pytest.fail("grants were looked at"))
    session = off.sessions.create("q", user="ana")
    assert off.sessions.get(session.id).status == "active" and len(off.sessions.list()) == 1
    assert off.state.set("global", "k", 1) and off.acting_as("eve").state.get("global", "k") == 1
    assert off.acting_as("bob").sessions.create("q").user == "bob"


@once
def test_nobody_elses_state_can_be_had_from_a_callers(c: Celeriac) -> None:
    for state in (c.state, c.acting_as("ana").state, c.acting_as("ana", "acme").state):
        for escape in (lambda s=state: s.of_tenant("x"), lambda s=state: s.with_access(None)):
            with pytest.raises(Exception, match="belongs to its caller"):
                escape()


@once
def test_what_is_missing_is_said_as_it_is_typed(c: Celeriac) -> None:
    with pytest.raises(AccessDenied, match=r"celeriac --tenant 'a b' grants add ana read 'custom:x y'$"):
        c.acting_as("ana", "a b").state.get("custom:x y", "k")


def test_the_settings_say_who_the_program_is(make: Make) -> None:
    ana = make(principal="ana", tenant="acme")
    bootstrap(ana.engine.database, "acme", "ana")
    session = ana.sessions.create("q")
    assert session.user == "ana" and ana.cache.stats()["entries"] == 0 and ana.state.set("global", "k", 1)
    assert make(principal="root").state.get("global", "k") is None
    with pytest.raises(SessionNotFound):
        make(principal="root").sessions.get(session.id)
