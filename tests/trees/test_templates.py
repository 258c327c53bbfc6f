"""A template gives a session its plan, preferences, tags and what its state begins with."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Plan, step
from celeriac.errors import PlanError, SessionError, TemplateNotFound
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.templates import Templates
from trees.ledger import Ledger

PLAN = Plan("report", [step("a", "work", {"n": 1}), step("b", "work", {"from": "${a.v}"})])


@pytest.fixture
def templates(ledger: Ledger) -> Templates:
    return Templates(ledger.engine, Caller())


def test_a_session_is_started_from_a_template(ledger: Ledger, templates: Templates) -> None:
    @ledger.agent("look")
    def look(request: Any, ctx: Any) -> Any:
        return ctx.state.of(f"session:{ctx.session.id}").get("limit")

    plan = Plan("p", [step("l", "look")])
    templates.save("weekly", plan=plan, preferences={"a": 1, "b": 1}, tags=["x"], state={"limit": 5}, description="d")
    session = ledger.sessions.start(template="weekly", preferences={"b": 2}, tags=["y", "x"], query="q")
    assert ledger.run_to_end(session) == "completed" and session.result == 5
    shown = session.to_dict()
    assert shown["preferences"] == {"a": 1, "b": 2} and shown["tags"] == ["x", "y"] and shown["query"] == "q"
    other = ledger.sessions.start(PLAN, template="weekly")
    assert other.plan == PLAN and ledger.engine.state.get(f"session:{other.id}", "limit") == 5
    ledger.run_to_end(other)
    bare = ledger.sessions.create("talk", template="weekly")
    assert bare.plan is None and bare.to_dict()["tags"] == ["x"]
    assert ledger.engine.state.get(f"session:{bare.id}", "limit") == 5
    bare.cancel()


def test_templates_are_saved_shown_listed_replaced_and_deleted(ledger: Ledger, templates: Templates) -> None:
    templates.save("b", plan=PLAN)
    templates.save("a", tags=["t"])
    templates.save("b", state={"k": [1]})
    assert [one.name for one in templates.list()] == ["a", "b"]
    found = templates.get("b")
    assert found.plan is None and found.state == {"k": [1]} and found.updated_at is not None
    templates.delete("b")
    for use in (templates.get, templates.delete):
        with pytest.raises(TemplateNotFound, match="no template 'b'; there are: a"):
            use("b")
    with pytest.raises(TemplateNotFound):
        ledger.sessions.start(template="b")


def test_what_is_no_template_is_refused(ledger: Ledger, templates: Templates) -> None:
    for given, kind, says in (
        ({"plan": Plan("p", [step("a", "nobody")])}, PlanError, "names the agent 'nobody'"),
        ({"plan": {"steps": []}}, PlanError, "a plan must be a Plan, found dict"),
        ({"tags": "x"}, SessionError, "tags must be a list"),
        ({"state": [1]}, SessionError, "state must be an object"),
    ):
        with pytest.raises(kind, match=says):
            templates.save("x", **given)
    with pytest.raises(SessionError, match="name of a template is empty"):
        templates.save(" ")
    templates.save("bare")
    with pytest.raises(SessionError, match="template 'bare' has no plan"):
        ledger.sessions.start(template="bare")
    with pytest.raises(SessionError, match="needs a plan"):
        ledger.sessions.start()
    assert [one.name for one in templates.list()] == ["bare"] and ledger.sessions.list() == []


def test_templates_of_tenants_are_apart(ledger: Ledger, templates: Templates) -> None:
    theirs = Templates(ledger.engine, Caller("root", "acme"))
    theirs.save("weekly", tags=["theirs"])
    assert templates.list() == []
    with pytest.raises(TemplateNotFound):
        templates.get("weekly")
