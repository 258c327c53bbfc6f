"""What the rules seal is written sealed, and open to agents of its session only; what they redact reaches nobody."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver

from celeriac.errors import KeyMissing, PlanError, SealBroken
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.plans import Plan, step
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.tasks.timeline import Timeline

RULES = {
    "texts": ["api-keys"],
    "fields": [{"path": "password"}, {"path": "pin", "action": "encrypt"}, {"path": "id", "action": "hash"}],
}
KEY = "sk-" + "a1B2" * 8


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    keyfile.write(tmp_path / "keys.toml", Keys("a", {}).with_key("a", new_key()))
    made: list[Driver] = []

    def one(**settings: Any) -> Driver:
        known = {"guard_rules": RULES, "keys_file": str(tmp_path / "keys.toml"), **settings}
        made.append(Driver(database_url, tmp_path / "data", **known))
        driver = made[-1]

        @driver.agent("echo")
        def echo(request: Any, ctx: Any) -> Any:
            seen.append(request)
            return request

        seen: list[Any] = []
        driver.seen = seen  # type: ignore[attr-defined]
        return driver

    yield one
    for driver in made:
        driver.close()


def test_a_sealed_field_travels_sealed_from_step_to_step_and_each_agent_has_it_open(make: Any) -> None:
    driver = make()
    session = driver.start(
        step("a", agent="echo", request={"pin": "pin of ana", "deep": [{"pin": 5}]}),
        step("b", agent="echo", request={"from": "${a}", "pin": "${a.pin}", "one": "${a.deep}"}),
    )
    driver.run_to_end(session)
    assert driver.seen[0] == {"pin": "pin of ana", "deep": [{"pin": 5}]}
    assert driver.seen[1] == {"from": driver.seen[0], "pin": "pin of ana", "one": [{"pin": 5}]}
    assert set(session.output("a")["pin"]) == {"$sealed"} and session.reveal(session.output("b")) == driver.seen[1]
    assert "pin of ana" not in json.dumps(
        [session.to_dict(), session.plan.to_dict(), list(map(str, session.stream(follow=False)))]
    )
    other = driver.start(step("a", agent="echo", request={"x": session.output("a")}))
    assert driver.run_to_end(other) == "failed" and "SealBroken" in other.error


def test_what_is_redacted_reaches_no_agent_and_references_still_do(make: Any) -> None:
    driver = make()
    session = driver.start(
        step("a", agent="echo", request={"password": "x", "note": f"use {KEY}", "id": 7}),
        step("b", agent="echo", request={"password": "${a.note}", "id": "${a.id}"}),
    )
    driver.run_to_end(session)
    assert driver.seen[0]["password"] == "[redacted]" and driver.seen[0]["note"] == "use [redacted]"
    assert driver.seen[1] == {"password": "use [redacted]", "id": driver.seen[0]["id"]}
    assert driver.seen[0]["id"].startswith("[hash:")


def test_the_same_key_finds_the_same_session_though_its_plan_is_sealed_anew(make: Any) -> None:
    driver = make()
    plan = [step("a", agent="echo", request={"pin": "pin of ana"})]
    first = driver.sessions.start(Plan("p", plan), key="k")
    assert driver.sessions.start(Plan("p", plan), key="k").id == first.id
    with pytest.raises(Exception, match="another plan"):
        driver.sessions.start(Plan("p", [step("a", agent="echo", request={"pin": "9"})]), key="k")
    empty = driver.sessions.create()
    empty.run(Plan("p", plan))
    driver.run_to_end(empty)
    assert driver.seen == [{"pin": "pin of ana"}]


def test_findings_partials_progress_and_added_steps_are_guarded(make: Any) -> None:
    driver = make()

    @driver.agent("tell")
    def tell(request: Any, ctx: Any) -> Any:
        ctx.progress(0.5, f"with {KEY}")
        ctx.partial({"password": "x", "pin": 1})
        return AgentOutput(
            None,
            [Finding("ana", "password", "x", evidence=[{"text": KEY}]), Finding(f"b {KEY}", "pin", 3)],
            add_steps=[step("c", agent="echo", request={"password": "x", "pin": 4}).to_dict()],
        )

    session = driver.start(step("a", agent="tell"))
    driver.run_to_end(session)
    told = json.dumps([session.findings(), session.partials(), session.steps(), session.plan.to_dict()])
    assert KEY not in told and '"x"' not in told
    assert session.findings()[0]["value"] == "[redacted]" and session.findings()[1]["entity"] == "b [redacted]"
    assert driver.seen == [{"password": "[redacted]", "pin": 4}]
    assert session.reveal(session.partials())["tell"] == [{"password": "[redacted]", "pin": 1}]


def test_an_added_step_with_a_request_that_is_too_large_fails_the_step_that_adds_it(make: Any) -> None:
    driver = make(max_request_bytes=100)

    @driver.agent("adds")
    def adds(request: Any, ctx: Any) -> Any:
        return AgentOutput(None, add_steps=[step("c", plan=[step("d", agent="echo", request="x" * 200)])])

    session = driver.start(step("a", agent="adds"))
    assert driver.run_to_end(session) == "failed"
    assert "PlanError: request of step 'd' is 202 bytes" in session.steps()[0]["error"] and len(session.steps()) == 1


def test_errors_show_no_secrets_with_or_without_rules(make: Any) -> None:
    for rules in (RULES, ""):
        driver = make(guard_rules=rules)

        @driver.agent("fail")
        def fail(request: Any, ctx: Any) -> Any:
            raise ValueError(f"{'x' * 3990} {KEY} and password=hunter2 of postgresql://me:hunter2@h/d")

        session = driver.start(step("a", agent="fail"))
        driver.run_to_end(session)
        assert "hunter2" not in json.dumps(session.to_dict()) and "a1B2" not in json.dumps(session.to_dict())


def test_errors_of_ordinary_tasks_come_clean_to_the_timeline(make: Any) -> None:
    driver = make()
    session = driver.sessions.create("q")
    timeline = Timeline(driver.engine)
    timeline.note(session.id, "task.failed", {"error": repr(ValueError(f"{'x' * 470} password=hunter2 {KEY}"))})
    timeline.flush(10)
    told = [event.data for event in session.stream(follow=False) if event.type == "task.failed"]
    assert len(told) == 1 and "hunter2" not in str(told) and "a1B2" not in str(told) and len(told[0]["error"]) <= 500


def test_what_describes_a_session_is_guarded_and_sealed_notes_are_not_found(make: Any) -> None:
    driver = make(guard_rules={**RULES, "fields": [{"path": "notes", "action": "encrypt"}, {"path": "password"}]})
    session = driver.sessions.create(f"who has {KEY}", notes="hidden word", metadata={"password": "x"}, title=KEY)
    assert session.query == "who has [redacted]" and session.to_dict()["title"] == "[redacted]"
    assert session.to_dict()["metadata"] == {"password": "[redacted]"}
    assert driver.sessions.search("hidden") == [] and len(driver.sessions.search("who")) == 1
    session.change(notes="another secret", tags=[f"t {KEY}"], title=f"new {KEY}", pinned=True)
    shown = session.to_dict()
    assert shown["tags"] == ["t [redacted]"] and shown["title"] == "new [redacted]" and shown["pinned"] is True
    assert session.reveal(shown["notes"]) == "another secret" and driver.sessions.search("another") == []
    session.complete({"password": "x", "text": KEY})
    assert session.report == {"password": "[redacted]", "text": "[redacted]"}


def test_without_its_key_a_step_fails_and_says_which_key_it_needs(make: Any, tmp_path: Path) -> None:
    driver = make()
    session = driver.start(step("a", agent="echo", request={"pin": "pin of ana"}))
    keyfile.write(tmp_path / "other.toml", Keys("a", {}).with_key("b", new_key()))
    without = make(keys_file=str(tmp_path / "other.toml"))
    assert without.run_to_end(without.sessions.get(session.id)) == "failed"
    assert "was sealed with the key 'a', which is not in the key ring; it has: b" in session.error
    with pytest.raises(KeyMissing):
        without.sessions.get(session.id).reveal(session.plan.steps[0].request)
    session.retry()
    assert driver.run_to_end(session) == "completed" and driver.seen == [{"pin": "pin of ana"}]


def test_sealed_fields_of_two_sessions_cannot_be_swapped(make: Any) -> None:
    driver = make()
    first, second = (driver.sessions.create("q", preferences={"pin": n}) for n in (1, 2))
    with pytest.raises(SealBroken):
        first.reveal(second.to_dict()["preferences"])


def test_a_plan_stays_a_plan_whatever_the_rules_name(make: Any) -> None:
    driver = make(guard_rules={"fields": [{"path": name} for name in ("name", "agent", "request", "after", "steps")]})
    session = driver.start(step("a", agent="echo", request={"name": "x"}), step("b", agent="echo", after=["a"]))
    assert driver.run_to_end(session) == "completed" and driver.seen[0] == {"name": "[redacted]"}
    with pytest.raises(PlanError):
        driver.start(step("a", agent="unknown"))
