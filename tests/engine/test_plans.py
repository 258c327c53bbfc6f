"""Plans are checked whole before anything is written: each fault is one PlanError that names the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import AgentError, PlanError
from celeriac.orchestration.agents import Registry, agent
from celeriac.orchestration.plans import Plan, step
from celeriac.orchestration.rows import check_agents

ok = step("ok", "echo")


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([], "has no steps"),
        ([ok, ok], "two steps are named 'ok'"),
        ([step("a b", "echo")], "'a b' cannot name a step"),
        ([step("item", "echo")], "'item' cannot name a step"),
        ([step("", "echo")], "'' cannot name a step"),
        ([step("a")], "'a' needs either an agent or a plan"),
        ([step("a", "echo", plan=[ok])], "'a' needs either an agent or a plan"),
        ([step("a", 5)], "step 'a': agent"),  # type: ignore[arg-type]
        ([step("a", "echo", after=["b"])], "'a' refers to 'b', which is no step"),
        ([step("a", "echo", "${b.c}")], "'a' refers to 'b', which is no step"),
        ([step("a", "echo", after=["a"])], "cycle among: a"),
        ([step("a", "echo", "${b}"), step("b", "echo", after=["a"])], "cycle among: a, b"),
        ([step("s", plan=[step("a", "echo", after=["b"]), step("b", "echo", "${a}")])], "cycle among: a, b"),
        ([step("a", "echo", "${}")], "bad reference"),
        ([step("a", "echo", {"x": ["${ok..b}"]}), ok], "bad reference"),
        ([step("a", "echo", each="ok"), ok], "'a': each must be a reference"),
        ([step("a", "echo", when="${ok} >"), ok], "bad condition"),
        ([step("a", "echo", when="__import__('os')")], "a condition may not hold"),
        ([step("a", "echo", when="_reference_7 > 1")], "bad condition"),
        ([step("a", "echo", when="'\0'")], "bad condition"),
        ([step("a", "echo", when=5)], "'a': when must be a condition"),  # type: ignore[arg-type]
        ([step("a", "echo", retries=-1)], "'a': retries must be a whole number of 0 to 1000000"),
        ([step("a", "echo", retries=10**30)], "'a': retries must be a whole number of 0 to 1000000"),
        ([step("a", "echo", backoff=10**400)], "'a': backoff must be a number of 0 to"),
        ([step("a", "echo", timeout=float("inf"))], "'a': timeout must be a number of 0.001 to"),
        ([step("a", "echo", priority=10)], "'a': priority must be a whole number of 0 to 9 (9 first)"),
        ([step("a", "echo", retries=True)], "'a': retries"),
        ([step("a", "echo", timeout=0)], "'a': timeout"),
        ([step("a", "echo", timeout=float("nan"))], "'a': timeout"),
        ([step("a", "echo", priority=10)], "'a': priority"),
        ([step("a", "echo", queue="")], "'a': queue"),
        ([step("a", "echo", queue="a\0b")], "'a': queue"),
        ([step("a", "echo", {"x": {1, 2}})], "step 'a': request.x: set is not JSON"),
        ([step("a", "echo", each="${ok}"), ok, step("a-0", "echo")], "'a-0' is also what the fan-out 'a' calls"),
        (["a"], "steps are made by step"),
    ],
)
def test_a_fault_in_a_plan_is_one_error_that_names_the_step(steps: list[Any], says: str) -> None:
    with pytest.raises(PlanError) as caught:
        Plan("p", steps)
    assert says in str(caught.value)


def test_a_request_too_deep_to_walk_is_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(PlanError, match="step 'a'"):
        Plan("p", [step("a", "echo", deep)])


@pytest.mark.parametrize("name", ["", " ", "a\0", None])
def test_a_plan_needs_a_name(name: Any) -> None:
    with pytest.raises(PlanError, match="a plan needs a name"):
        Plan(name, [ok])


def test_a_step_may_not_name_an_agent_that_is_not_there() -> None:
    registry = Registry()
    agent("echo", registry=registry)(lambda request, ctx: request)
    with pytest.raises(PlanError, match="step 'x' names the agent 'nobody'; known: echo"):
        check_agents([ok, step("s", plan=[step("x", "nobody")])], registry)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "a plan must be a mapping"),
        ("name: p", "missing key 'steps'"),
        ("name: p\nsteps: {}", "steps must be a list"),
        ("name: p\nsteps: [{agent: echo}]", "missing key 'name'"),
        ("name: p\nsteps: [{name: a, agent: echo, retry: 3}]", "unknown key 'retry'"),
        ("name: p\nsteps: [{name: a, plan: 7}]", "plan must be a list"),
        ("name: p\nsteps: [{name: a, agent: echo, after: 7}]", "after must be a list"),
        ("name: p\nsteps: [{name: a, agent: echo, request: 2020-01-01}]", "step 'a': request: date is not JSON"),
        ("name: [", "not YAML"),
    ],
)
def test_a_fault_in_a_plan_file_names_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError) as caught:
        Plan.from_file(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_plan_reads_back_from_its_data_the_same() -> None:
    inner = [step("x", "echo", "${ok}", when="${ok} > 1"), step("y", "echo", after=["x"], retries=2, timeout=1.5)]
    plan = Plan("p", [ok, step("s", plan=inner, each="${ok}", priority=3, queue="q")], "what it does")
    again = Plan.from_dict(plan.to_dict())
    assert again == plan
    assert again.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": float("nan")}, "timeout must be a number of 0.001 to"),
        ({"backoff": float("inf")}, "backoff must be a number of 0 to"),
        ({"retries": 2.5}, "retries must be a whole number"),
        ({"retries": 10**30}, "retries must be a whole number"),
        ({"priority": 10}, "priority must be a whole number of 0 to 9 (9 first), found 10"),
        ({"queue": ""}, "queue must be a name"),
        ({"queue": "a\0"}, "queue must be a name"),
        ({"permissions": "docs:read"}, "permissions must be a list of names, found 'docs:read'"),
        ({"optional_permissions": [5]}, "optional_permissions must be a list of names"),
    ],
)
def test_an_agent_that_could_not_be_run_is_refused_when_it_is_registered(options: dict[str, Any], says: str) -> None:
    registry = Registry()
    with pytest.raises(AgentError) as caught:
        agent("a", registry=registry, **options)(lambda request, ctx: 1)
    assert says in str(caught.value) and registry.names() == []
