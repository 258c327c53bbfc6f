"""A fork takes over what is still right, and runs the rest: by what steps are asked, not by where they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driver import Driver
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import AgentOutput, Plan, step
from celeriac.errors import CheckpointNotFound, PlanError, SessionError, StepNotFound
from celeriac.orchestration.agents import Finding
from celeriac.orchestration.references import render
from celeriac.storage import serial
from trees.ledger import Ledger, answer_to

CHAIN = [
    step("a", "work", {"n": 1}),
    step("b", "work", {"n": 2}),
    step("c", "work", {"from": "${a.v}"}),
    step("d", "work", {"from": "${c.v}", "and": "${b.v}"}),
]


def test_a_fork_of_a_session_that_has_ended_runs_nothing(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN, query="q", user="ana", tags=["x"], title="t", preferences={"p": 1})
    fork = session.fork()
    assert fork.status == "completed" and ledger.ran() == [] and fork.result == session.result
    shown, before = fork.to_dict(), session.to_dict()
    same = ("query", "user", "tags", "title", "preferences", "permissions", "result", "plan")
    assert {name: shown[name] for name in same} == {name: before[name] for name in same}
    assert all(one["cached"] for one in fork.steps()) and fork.id != session.id


def test_a_changed_request_runs_its_step_and_what_its_value_reaches(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN)
    fork = session.fork(inputs={"b": {"n": 3}})
    assert [one["name"] for one in fork.steps() if one["cached"]] == ["a", "c"]
    assert ledger.run_to_end(fork) == "completed"
    runs = ledger.ran()
    assert ("work", {"n": 3}) in runs and len(runs) == 2
    assert session.output("b") == answer_to("work", {"n": 2}) and fork.output("b") == answer_to("work", {"n": 3})


def test_where_the_value_stays_what_it_was_nothing_after_it_runs(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN)
    other = next(n for n in range(2, 99) if answer_to("work", {"n": n}) == answer_to("work", {"n": 1}))
    fork = session.fork(requests={"a": {"n": other}})
    assert ledger.run_to_end(fork) == "completed"
    assert ledger.ran() == [("work", {"n": other})]


def test_from_a_step_on_all_runs_anew_though_nothing_has_changed(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN, step("e", "work", {"n": 9}, after=["d"]), step("f", "work", {"n": 10}))
    fork = session.fork("c")
    assert ledger.run_to_end(fork) == "completed"
    assert sorted(one["name"] for one in fork.steps() if not one["cached"]) == ["c", "d", "e"]
    assert len(ledger.ran()) == 3


def test_items_of_a_fan_out_are_taken_over_one_by_one(ledger: Ledger) -> None:
    @ledger.agent("give")
    def give(request: Any, ctx: Any) -> Any:
        return request["items"]

    plan = [
        step("list", "give", {"items": ["x", "y", "z"]}),
        step("each", "work", {"item": "${item}"}, each="${list}"),
        step("join", "work", {"parts": "${each}"}),
    ]
    session = ledger.ended(*plan)
    fork = session.fork(inputs={"list": {"items": ["new", "z", "x", "y", "x"]}})
    assert ledger.run_to_end(fork) == "completed"
    asked = [request for _, request in ledger.ran()]
    assert {"item": "new"} in asked and len(asked) == 2  # and the join, which has other parts
    assert fork.output("each")[1:4] == [session.output("each")[2], *session.output("each")[:2]]
    again = fork.fork("each-1")
    assert ledger.run_to_end(again) == "completed"
    assert [one["name"] for one in again.steps() if not one["cached"]] == ["join", "each-1"]


def test_steps_of_sub_plans_are_found_by_their_path(ledger: Ledger) -> None:
    inner = [step("x", "work", {"n": "${a.v}"}), step("y", "work", {"m": "${x.v}"})]
    session = ledger.ended(step("a", "work", {"n": 1}), step("sub", plan=inner), step("z", "work", {"s": "${sub}"}))
    fork = session.fork(from_step="sub/y")
    ledger.run_to_end(fork)
    assert sorted(one["name"] for one in fork.steps() if not one["cached"]) == ["sub/y", "z"]
    ledger.ran()
    fork = session.fork(inputs={"sub/x": {"more.deep": True}})
    ledger.run_to_end(fork)
    assert ("work", {"n": 1 and session.output("a")["v"], "more": {"deep": True}}) in ledger.ran()


def test_another_version_of_an_agent_runs_its_steps_again(ledger: Ledger, make_driver: Callable[..., Driver]) -> None:
    session = ledger.ended(step("a", "work", 1), step("b", "split", 1))
    newer = make_driver(Ledger)
    assert isinstance(newer, Ledger)
    newer.registry._agents.clear()
    newer.register("work", version="2")
    newer.register("split")
    fork = newer.sessions.get(session.id).fork()
    assert newer.run_to_end(fork) == "completed" and newer.ran() == [("work", 1)]
    assert newer.sessions.get(fork.id).fork().status == "completed"


def test_other_permissions_run_again_the_steps_that_they_touch(ledger: Ledger) -> None:
    ledger.registry._agents.clear()
    ledger.register("work")
    ledger.register("split", optional_permissions={"docs:read", "docs:write"})
    session = ledger.ended(step("a", "work", 1), step("b", "split", 1), permissions={"docs:read", "unused"})
    fork = session.fork(permissions={"docs:read"})
    assert fork.status == "completed" and ledger.ran() == []
    fork = session.fork(permissions={"docs:write"})
    assert ledger.run_to_end(fork) == "completed" and ledger.ran() == [("split", 1)]


def test_another_plan_takes_over_what_it_has_in_common_wherever_it_stands(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN)
    plan = Plan("other", [step("first", "work", {"n": 2}), step("second", "work", {"x": "${first.v}"})])
    fork = session.fork(plan=plan)
    assert ledger.run_to_end(fork) == "completed"
    assert [one["cached"] for one in fork.steps()] == [True, False] and fork.plan == plan


def test_another_query_runs_again_only_what_names_it(ledger: Ledger) -> None:
    session = ledger.ended(step("a", "work", "${query}"), step("b", "work", "fixed"), query="one")
    fork = session.fork(query="two")
    assert ledger.run_to_end(fork) == "completed" and ledger.ran() == [("work", "two")]


def test_steps_that_an_agent_added_come_with_its_result(ledger: Ledger) -> None:
    @ledger.agent("grow")
    def grow(request: Any, ctx: Any) -> Any:
        ledger.runs.append(("grow", request))
        return AgentOutput("grown", add_steps=[step("leaf", "work", {"n": 5}), step("tip", "work", "${leaf.v}")])

    session = ledger.ended(step("g", "grow", 1), step("end", "work", {"n": 6}, after=["g"]))
    fork = session.fork()
    assert fork.status == "completed" and ledger.ran() == []
    assert {one["name"] for one in fork.steps()} == {"g", "leaf", "tip", "end"}
    fork = session.fork("g")
    assert ledger.run_to_end(fork) == "completed" and len(ledger.ran()) == 4


def test_findings_and_their_conflicts_come_along(ledger: Ledger) -> None:
    @ledger.agent("find")
    def find(request: Any, ctx: Any) -> Any:
        ledger.runs.append(("find", request))
        return AgentOutput(
            None,
            [Finding("x", "colour", request, 0.9), Finding("x", "tag", request, exclusive=False)],
            confidence=0.5,
            cost=2.0,
        )

    session = ledger.ended(step("a", "find", "red"), step("b", "find", "blue"))
    fork = session.fork()
    assert ledger.ran() == [] and len(fork.findings()) == 4
    assert [(one["attribute"], one["severity"]) for one in fork.conflicts()] == [("colour", "high")]
    assert len(session.conflicts()) == 1


def test_a_fork_as_of_a_checkpoint_has_the_results_memories_and_state_of_then(ledger: Ledger) -> None:
    @ledger.agent("count")
    def count(request: Any, ctx: Any) -> Any:
        ledger.runs.append(("count", request))
        ctx.memory["n"] = ctx.memory.get("n", 0) + 1
        ctx.state.of(f"session:{ctx.session.id}").set("n", ctx.memory["n"])
        return ctx.memory["n"]

    session = ledger.start(step("a", "count", {"n": 0}), step("b", "count", "${a}"), step("c", "count", {"b": "${b}"}))
    ledger.run(session, most=1)
    then = session.checkpoint("one")
    ledger.run_to_end(session)
    ledger.ran()
    state = ledger.engine.state
    whole = session.fork()
    assert whole.status == "completed" and state.get(f"session:{whole.id}", "n") == 3
    assert whole.agent_states()["count"]["state"] == {"n": 3}
    fork = session.fork(checkpoint=then)
    assert state.get(f"session:{fork.id}", "n") == 1
    assert ledger.run_to_end(fork) == "completed" and len(ledger.ran()) == 2 and fork.result == 3
    late = session.fork("b")  # as of the checkpoint before b had ended
    assert state.get(f"session:{late.id}", "n") == 1
    assert ledger.run_to_end(late) == "completed" and late.result == 3
    assert state.get(f"session:{session.id}", "n") == 3


def test_either_session_can_be_deleted(ledger: Ledger, make_driver: Callable[..., Driver]) -> None:
    small = make_driver(Ledger, inline_result_bytes=50)
    assert isinstance(small, Ledger)

    @small.agent("large")
    def large(request: Any, ctx: Any) -> Any:
        return "x" * 1000 + str(request)

    plan = [step("a", "large", 1), step("b", "large", 2), step("c", "work", "${a}")]
    session = small.ended(*plan)
    fork, other = session.fork(), session.fork()
    small.sessions.delete(session.id)
    assert fork.output("a") == "x" * 1000 + "1"
    small.sessions.delete(other.id)
    assert fork.fork().output("b") == "x" * 1000 + "2"
    changed = fork.fork("c")
    small.sessions.delete(fork.id)
    small.run_to_end(changed)
    assert changed.status == "completed"


def test_what_its_source_lost_meanwhile_is_run(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN)
    fork = session.fork(inputs={"a": {"n": 77}})
    ledger.sessions.delete(session.id)
    assert ledger.run_to_end(fork) == "completed"


def test_a_session_that_runs_can_be_forked(ledger: Ledger) -> None:
    session = ledger.start(*CHAIN)
    ledger.run(session, most=2)
    done = [one["name"] for one in session.steps() if one["status"] == "done"]
    fork = session.fork()
    assert [one["name"] for one in fork.steps() if one["cached"]] == done
    ledger.ran()
    assert ledger.run_to_end(fork) == "completed" and len(ledger.ran()) == 2
    assert ledger.run_to_end(session) == "completed"


def test_a_failed_step_runs_again_in_a_fork(ledger: Ledger) -> None:
    broken = True

    @ledger.agent("flaky")
    def flaky(request: Any, ctx: Any) -> Any:
        if broken:
            raise ValueError("not yet")
        return 1

    session = ledger.start(step("a", "work", 1), step("b", "flaky", "${a}"))
    assert ledger.run_to_end(session) == "failed"
    broken = False
    ledger.ran()
    fork = session.fork()
    assert ledger.run_to_end(fork) == "completed" and ledger.ran() == []


def test_a_key_makes_one_fork(ledger: Ledger) -> None:
    session = ledger.ended(*CHAIN)
    assert session.fork(key="k").id == session.fork(key="k").id


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        ({"from_step": "x"}, StepNotFound, "no step 'x' in the plan; it has: a, b, c, d"),
        ({"from_step": "a/b"}, StepNotFound, "no step 'a/b'"),
        ({"inputs": {"x": {"n": 1}}}, StepNotFound, "no step 'x'"),
        ({"inputs": {"a": {"n.deep": 1}}}, PlanError, "the request of step 'a' has no key 'deep': it is int"),
        ({"requests": {"a": "${nobody}"}}, PlanError, "nobody"),
        ({"checkpoint": 99}, CheckpointNotFound, "has no checkpoint 99"),
        ({"colour": "red"}, SessionError, "a fork cannot be given 'colour'; allowed: key, user"),
    ],
)
def test_what_cannot_be_is_refused_and_writes_nothing(ledger: Ledger, given: Any, kind: Any, says: str) -> None:
    session = ledger.ended(*CHAIN)
    with pytest.raises(kind, match=says):
        session.fork(**given)
    assert len(ledger.sessions.list()) == 1


def test_a_session_without_a_plan_has_nothing_to_fork(ledger: Ledger) -> None:
    with pytest.raises(SessionError, match="has no plan"):
        ledger.sessions.create("q").fork()


# -- any plan, any change ----------------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> list[Any]:
    """Steps that take what others gave, some of them fan-outs."""
    steps: list[Any] = []
    for number in range(draw(st.integers(1, 7))):
        request: dict[str, Any] = {"n": draw(st.integers(0, 5))}
        lists = [one.name for one in steps if one.agent == "split" and not one.each]
        names = [one.name for one in steps] or [None]
        for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
            request |= {name: f"${{{name}}}"} if name else {}
        if lists and draw(st.booleans()):
            request["item"] = "${item}"
            steps.append(step(f"s{number}", "work", request, each=f"${{{draw(st.sampled_from(lists))}}}"))
        else:
            steps.append(step(f"s{number}", draw(st.sampled_from(["work", "work", "split"])), request))
    return steps


@st.composite
def changed(draw: st.DrawFn) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    steps = draw(plans())
    names = draw(st.lists(st.sampled_from([one.name for one in steps]), max_size=3, unique=True))
    return steps, {name: {"n": draw(st.integers(0, 8))} for name in names}


def asked(steps: list[Any]) -> list[tuple[str, Any]]:
    """What a run of these steps asks its agents."""
    values: dict[str, Any] = {}
    found: list[tuple[str, Any]] = []

    def ask(one: Any, item: Any = None) -> Any:
        request = render(one.request, {**values, "item": item}.__getitem__)
        found.append((one.agent, request))
        return answer_to(one.agent, request)

    for one in steps:
        values[one.name] = [ask(one, item) for item in values[one.each[2:-1]]] if one.each else ask(one)
    return found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=changed())
def test_exactly_what_a_change_reaches_by_value_runs_again(ledger: Ledger, case: Any) -> None:
    steps, inputs = case
    session = ledger.ended(*steps)
    before = {serial.canonical(list(one)) for one in asked(steps)}
    after = [step(one.name, one.agent, {**one.request, **inputs.get(one.name, {})}, each=one.each) for one in steps]
    fork = session.fork(inputs=inputs)
    assert ledger.run_to_end(fork) == "completed"
    expected = sorted(one for one in (serial.canonical(list(two)) for two in asked(after)) if one not in before)
    assert [serial.canonical(list(one)) for one in ledger.ran()] == expected
    whole = ledger.ended(*after)
    assert fork.result == whole.result


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"from_step": 1}, "from_step must be a list of texts"),
        ({"from_step": b"a"}, "from_step must be a list of texts"),
        ({"inputs": "a"}, "inputs must be an object"),
        ({"inputs": {"a": None}}, "inputs of step 'a' must be an object of keys, found None"),
        ({"inputs": {"a": {1: 2}}}, "keys of the request of step 'a' must be a list of texts"),
        ({"inputs": {1: {}}}, "names of steps must be a list of texts"),
        ({"requests": ["a"]}, "requests must be an object"),
        ({"plan": "plan.yaml"}, "a plan must be a Plan, found str"),
        ({"permissions": "docs:read"}, "permissions must be a list of texts"),
        ({"checkpoint": 1.5}, "has no checkpoint 1.5"),
    ],
    ids=str,
)
def test_what_cannot_be_changed_is_one_clear_error(ledger: Ledger, given: dict[str, Any], says: str) -> None:
    session = ledger.ended(*CHAIN)
    with pytest.raises((SessionError, PlanError, CheckpointNotFound), match=says):
        session.fork(**given)
    assert len(ledger.sessions.list()) == 1
