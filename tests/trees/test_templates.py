"""A template gives a session its plan, preferences, tags and what its state begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from celeriac import Plan, step
from celeriac.errors import NotSerializable, PlanError, SessionError, TemplateNotFound
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.templates import Template, Templates
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


def test_a_template_goes_to_a_file_and_back(ledger: Ledger, templates: Templates, tmp_path: Path) -> None:
    templates.save("wöchentlich", plan=PLAN, preferences={"a": [1]}, tags=["t"], state={"k": None}, description="d")
    found = templates.get("wöchentlich")
    file = tmp_path / "weekly.yaml"
    file.write_text(found.to_yaml(), encoding="utf-8")
    templates.delete("wöchentlich")
    read = Template.from_file(file)
    templates.save(read)
    again = templates.get("wöchentlich")
    assert replace(again, updated_at=None) == replace(found, updated_at=None) == replace(read, tags=["t"])
    (tmp_path / "plan.yaml").write_text("name: p\nsteps: [{name: a, agent: work, request: {n: 1}}]\n")
    file.write_text("plan: plan.yaml\n")
    assert Template.from_file(file) == Template("weekly", plan=Plan("p", [step("a", "work", {"n": 1})]))


def test_what_is_no_template_in_a_file_is_one_clear_error(ledger: Ledger, templates: Templates, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    for text, says in (
        ("- a", r"bad\.yaml: a template is a mapping with name, description, plan"),
        ("plans: {}", r"bad\.yaml: unknown key 'plans' of a template; allowed: name"),
        ("plan: [1]", r"bad\.yaml: a plan must be a mapping"),
        ("plan: {name: p}", r"bad\.yaml: plan 'p': missing key 'steps'"),
        ("plan: none.yaml", r"plan file .*none\.yaml cannot be read"),
        ("a: [", r"bad\.yaml: not YAML"),
        ("state: [1]", "state must be an object"),
        ("tags: x", "tags must be a list of texts"),
        ("description: {}", "description of a template must be text"),
        ("name: 1", "name of a template must be text"),
        ("preferences: {when: 2024-01-01}", "date is not JSON"),
    ):
        file.write_text(text)
        with pytest.raises((PlanError, SessionError, NotSerializable), match=says):
            templates.save(Template.from_file(file))
    with pytest.raises(PlanError, match="template file .*nowhere cannot be read"):
        Template.from_file(tmp_path / "nowhere")
    assert templates.list() == []


def test_templates_of_tenants_are_apart(ledger: Ledger, templates: Templates) -> None:
    theirs = Templates(ledger.engine, Caller("root", "acme"))
    theirs.save("weekly", tags=["theirs"])
    assert templates.list() == []
    with pytest.raises(TemplateNotFound):
        templates.get("weekly")
