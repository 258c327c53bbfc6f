"""A session reads those that it has attached, as far as its user may, and writes nothing of them."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Plan, step
from celeriac.errors import AccessDenied, SessionError, SessionNotFound
from celeriac.orchestration.attached import Attached, ReadOnlyHistory
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.guard.grants import Grants, bootstrap
from celeriac.orchestration.sessions import Sessions
from trees.ledger import Ledger


def test_results_and_history_of_an_attached_session_are_read(ledger: Ledger) -> None:
    other = ledger.ended(step("a", "work", 1), query="before")
    other.history.add("user", "remember")
    session = ledger.sessions.create("q")
    assert session.attach(other.id) and not session.attach(other)
    (found,) = session.attached()
    assert (found.id, found.query, found.status, found.result) == (other.id, "before", "completed", other.result)
    assert found.output("a") == other.output("a") and found.steps() == other.steps() and found.findings() == []
    assert (
        [entry["content"] for entry in found.history(last=1)]
        == ["remember"]
        == [entry["content"] for entry in found.history]
    )
    assert len(found.history) == found.history.count() == 1 and found.history.range(1, 1) == list(found.history.all())
    assert session.detach(other) and not session.detach(other.id) and session.attached() == []
    told = [(one.type, one.data) for one in session.stream(follow=False)][1:]
    assert told == [("session.attached", {"session": other.id}), ("session.detached", {"session": other.id})]


def test_nothing_of_an_attached_session_can_be_written() -> None:
    writes = {"add", "append", "pause", "cancel", "change", "attach", "run", "restore", "clear", "extend", "complete"}
    assert not writes & {*dir(Attached), *dir(ReadOnlyHistory)}


def test_agents_read_what_their_session_has_attached(ledger: Ledger) -> None:
    @ledger.agent("recall")
    def recall(request: Any, ctx: Any) -> Any:
        return {one.id: [one.result, one.history(last=1)[0]["content"]] for one in ctx.attached}

    other = ledger.ended(step("a", "work", 1))
    other.history.add("user", "remember")
    session = ledger.sessions.create("q")
    session.attach(other)
    session.run(Plan("p", [step("r", "recall")]))
    assert ledger.run_to_end(session) == "completed" and session.result == {other.id: [other.result, "remember"]}
    fork, branch = session.fork("r"), session.branch("try")
    assert [one.id for one in fork.attached()] == [other.id] == [one.id for one in branch.attached()]
    assert ledger.run_to_end(fork) == "completed" and fork.result == session.result


def test_a_session_that_is_deleted_is_attached_no_longer(ledger: Ledger) -> None:
    session, other = ledger.sessions.create(), ledger.sessions.create()
    session.attach(other)
    other.cancel()
    ledger.sessions.delete(other.id)
    assert session.attached() == []
    with pytest.raises(SessionNotFound):
        session.attach(other.id)
    with pytest.raises(SessionError, match="cannot be attached to itself"):
        session.attach(session.id)


def test_only_who_may_read_a_session_attaches_and_reads_it(make_driver: Any) -> None:
    driver = make_driver(Ledger, access="on")
    engine = driver.engine
    bootstrap(engine.database, "", "root")
    grants = Grants(engine.access, engine.database, Caller("root"))
    for who in ("ana", "bob"):
        grants.add(who, "write", "sessions")

    @driver.agent("recall")
    def recall(request: Any, ctx: Any) -> Any:
        return [one.query for one in ctx.attached]

    ana, bob = (Sessions(engine, caller=Caller(who)) for who in ("ana", "bob"))
    secret = ana.create("secret of ana")
    mine = bob.create("q")
    with pytest.raises(AccessDenied, match=f"'bob' lacks the grant read on session:{secret.id}"):
        mine.attach(secret.id)
    grants.add("bob", "read", f"session:{secret.id}")
    mine.attach(secret.id)
    assert mine.attached()[0].query == "secret of ana"
    grants.remove("bob", "read", f"session:{secret.id}")
    with pytest.raises(AccessDenied):
        assert mine.attached()[0].query
    mine.run(Plan("p", [step("r", "recall")]))
    driver.run_to_end(Sessions(engine, caller=Caller("bob")).get(mine.id))
    assert mine.status == "failed" and "AccessDenied" in mine.error and "secret" not in mine.error


def test_tenants_never_meet(ledger: Ledger) -> None:
    theirs = Sessions(ledger.engine, caller=Caller("root", "acme")).create("theirs")
    with pytest.raises(SessionNotFound):
        ledger.sessions.create().attach(theirs.id)
