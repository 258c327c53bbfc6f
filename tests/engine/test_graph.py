"""Plans as they run: references, conditions, fan-out, fan-in, sub-plans, steps added at run time, failures."""

from __future__ import annotations

from typing import Any

import pytest
from driver import Driver

from celeriac.orchestration.agents import AgentOutput
from celeriac.orchestration.plans import step


def test_a_step_gets_what_earlier_steps_gave_with_its_type(driver: Driver) -> None:
    session = driver.start(
        step("a", "echo", {"files": ["x", "y"], "count": 2, "deep": [{"n": 1}]}),
        step("b", "echo", {"all": "${a}", "n": "${a.count}", "one": "${a.files[1]}", "d": "${a.deep[0].n}"}),
        step("c", "echo", "found ${a.count} of ${query} for ${user}: ${a.files} $${a}"),
        query="files",
        user="ana",
    )
    driver.run(session)
    assert session.output("b") == {"all": session.output("a"), "n": 2, "one": "y", "d": 1}
    assert session.output("c") == 'found 2 of files for ana: ["x","y"] ${a}'


def test_a_reference_to_a_part_that_is_not_there_fails_the_step_and_names_the_part(driver: Driver) -> None:
    session = driver.start(step("a", "echo", {"n": 1}), step("b", "echo", "${a.m}"), step("c", "echo", 1))
    driver.run(session)
    assert driver.states(session) == {"a": "done", "b": "failed", "c": "done"}
    assert session.status == "failed"
    assert "no 'm' in n" in str(session.error)


def test_a_claim_passes_over_steps_whose_request_cannot_be_rendered(driver: Driver) -> None:
    bad = [step(f"bad{i}", "echo", "${a.missing}") for i in range(20)]
    session = driver.start(step("a", "echo", {}), *bad, step("good", "echo", "${a}"))
    driver.run(session, carry=False)
    assert driver.states(session)["good"] == "done"
    assert session.status == "failed"


def test_what_one_agent_does_to_its_request_is_not_seen_by_another(driver: Driver) -> None:
    @driver.agent("spoil")
    def spoil(request: Any, ctx: Any) -> Any:
        request["from"]["list"].append("spoilt")
        return {}

    session = driver.start(
        step("a", "echo", {"list": []}),
        step("b", "spoil", {"from": "${a}"}),
        step("c", "echo", "${a}", after=["b"]),
    )
    driver.run(session)
    assert session.output("c") == {"list": []}


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("${a.n} > 1", True),
        ("${a.n} > 2", False),
        ("${a.tags} == null", False),
        ("'x' in ${a.tags} and not ${a.off}", True),
        ("${query} == 'q' or ${user} == 'nobody'", True),
        ("${a.n} in [1, 3]", False),
        ("1 < ${a.n} <= 2", True),
    ],
)
def test_a_condition_decides_whether_a_step_runs(driver: Driver, condition: str, runs: bool) -> None:
    session = driver.start(
        step("a", "echo", {"n": 2, "tags": ["x"], "off": False}),
        step("b", "echo", 1, when=condition),
        step("c", "echo", {"b": "${b}"}),
        query="q",
    )
    driver.run(session)
    assert driver.states(session)["b"] == ("done" if runs else "skipped")
    assert session.output("c") == {"b": 1 if runs else None}
    assert session.status == "completed"


def test_a_condition_that_cannot_be_decided_fails_its_step_only(driver: Driver) -> None:
    session = driver.start(
        step("a", "echo", {"n": "text"}), step("b", "echo", 1, when="${a.n} > 1"), step("c", "echo", 2, after=["a"])
    )
    driver.run(session)
    assert driver.states(session) == {"a": "done", "b": "failed", "c": "done"}
    assert "cannot compare" in str(session.error)


def test_a_fan_out_runs_once_for_each_item_and_joins_in_order(driver: Driver) -> None:
    session = driver.start(
        step("l", "echo", {"items": [3, 1, 2]}),
        step("a", "echo", {"n": "${item}"}, each="${l.items}"),
        step("j", "echo", "${a}"),
    )
    driver.run(session)
    assert session.result == [{"n": 3}, {"n": 1}, {"n": 2}]
    assert list(driver.states(session)) == ["l", "j", "a-0", "a-1", "a-2"]


@pytest.mark.parametrize("items", [[], None])
def test_a_fan_out_over_nothing_gives_nothing(driver: Driver, items: Any) -> None:
    session = driver.start(
        step("l", "echo", {"items": items}), step("a", "echo", 1, each="${l.items}"), step("j", "echo", {"got": "${a}"})
    )
    driver.run(session)
    assert session.result == {"got": []}
    assert session.status == "completed"


def test_a_fan_out_over_what_is_no_list_fails(driver: Driver) -> None:
    session = driver.start(step("l", "echo", {"n": 1}), step("a", "echo", 1, each="${l.n}"), step("j", "echo", "${a}"))
    driver.run(session)
    assert driver.states(session) == {"l": "done", "a": "failed", "j": "skipped"}
    assert "is int, not a list" in str(session.error)


def test_a_fan_out_over_a_thousand_items_runs_them_all(driver: Driver) -> None:
    session = driver.start(
        step("l", "echo", list(range(1000))), step("a", "echo", "${item}", each="${l}"), step("j", "echo", "${a}")
    )
    assert driver.run(session) == 1002
    assert session.result == list(range(1000))


def test_a_sub_plan_runs_in_the_place_of_its_step(driver: Driver) -> None:
    inner = [step("x", "echo", {"from": "${a}"}), step("y", "echo", {"x": "${x.from}", "q": "${query}"})]
    session = driver.start(step("a", "echo", 7), step("s", plan=inner), step("b", "echo", "${s.y.x}"), query="q")
    driver.run(session)
    assert session.result == 7
    assert session.output("s") == {"x": {"from": 7}, "y": {"x": 7, "q": "q"}}
    assert driver.states(session) == {"a": "done", "b": "done", "s/x": "done", "s/y": "done"}


def test_a_sub_plan_can_run_for_each_item(driver: Driver) -> None:
    inner = [step("x", "echo", {"i": "${item}"}), step("y", "echo", "${x.i}")]
    session = driver.start(step("l", "echo", ["p", "q"]), step("s", plan=inner, each="${l}"), step("j", "echo", "${s}"))
    driver.run(session)
    assert session.result == [{"x": {"i": "p"}, "y": "p"}, {"x": {"i": "q"}, "y": "q"}]


def test_a_fan_out_inside_a_sub_plan_inside_a_fan_out_joins_in_order(driver: Driver) -> None:
    inner = [step("x", "echo", "${item}", each="${item}"), step("y", "echo", "${x}")]
    session = driver.start(step("l", "echo", [[1, 2], [], [3]]), step("s", plan=inner, each="${l}"))
    driver.run(session)
    assert [part["y"] for part in session.result] == [[1, 2], [], [3]]


def test_a_skipped_sub_plan_gives_nothing(driver: Driver) -> None:
    session = driver.start(
        step("a", "echo", 0), step("s", plan=[step("x", "echo", 1)], when="${a} > 0"), step("b", "echo", {"s": "${s}"})
    )
    driver.run(session)
    assert session.result == {"s": None}


def test_an_agent_adds_steps_and_who_waits_for_it_waits_for_them(driver: Driver) -> None:
    @driver.agent("adder")
    def adder(request: Any, ctx: Any) -> Any:
        more = [step("n1", "echo", "${a}"), step("n2", "echo", {"n": "${n1}", "own": "${add}"})]
        return AgentOutput(data=5, add_steps=more)

    session = driver.start(step("a", "echo", 1), step("add", "adder", after=["a"]), step("b", "echo", 2, after=["add"]))
    driver.run(session)
    assert driver.started.index("b") > driver.started.index("n2")
    assert session.output("n2") == {"n": 1, "own": 5}


def test_steps_that_a_member_of_a_fan_out_adds_end_before_the_fan_out(driver: Driver) -> None:
    @driver.agent("adder")
    def adder(request: Any, ctx: Any) -> Any:
        return AgentOutput(data=request, add_steps=[step(f"extra{request}", "echo", request)])

    session = driver.start(
        step("l", "echo", [1, 2]), step("a", "adder", "${item}", each="${l}"), step("j", "echo", "${a}")
    )
    driver.run(session)
    assert driver.started[-1] == "j"
    assert session.output("j") == [1, 2]


@pytest.mark.parametrize(
    ("added", "says"),
    [
        (step("a", "echo"), "clashes with 'a'"),
        (step("f-7", "echo"), "clashes with 'f'"),
        (step("n", "nobody"), "names the agent 'nobody'"),
        (step("n", "echo", "${nowhere}"), "waits for 'nowhere'"),
        (step("n", "echo", "${last}"), "itself waits for the step that adds it"),
        (step("n", "echo", "${bad}"), "which has failed"),
        (step("k", "echo", each="${a}"), "clashes with 'k-1'"),
    ],
)
def test_a_step_that_cannot_be_added_fails_the_step_that_adds_it(driver: Driver, added: Any, says: str) -> None:
    @driver.agent("adder", retries=3)
    def adder(request: Any, ctx: Any) -> Any:
        return AgentOutput(add_steps=[added])

    session = driver.start(
        step("bad", "fail"),
        step("a", "echo", []),
        step("k-1", "echo"),
        step("f", "echo", each="${last}"),
        step("add", "adder", after=["a"]),
        step("last", "echo", [], after=["add"]),
    )
    driver.run(session)
    assert driver.states(session)["add"] == "failed"
    assert says in next(s["error"] for s in session.steps() if s["name"] == "add")


def test_a_failed_step_skips_what_needs_it_and_the_rest_finishes(driver: Driver) -> None:
    session = driver.start(
        step("a", "fail", 1),
        step("b", "echo", "${a}"),
        step("c", "echo", 1, after=["b"]),
        step("x", "echo", 1),
        step("y", "echo", "${x}"),
        step("both", "echo", 1, after=["c", "y"]),
    )
    driver.run(session)
    assert driver.states(session) == {
        "a": "failed", "b": "skipped", "c": "skipped", "x": "done", "y": "done", "both": "skipped",
    }  # fmt: skip
    assert session.status == "failed"
    assert session.error == "step 'a' failed: ValueError: cannot do 1"


def test_a_fan_out_with_a_failed_member_fails_and_keeps_the_rest(driver: Driver) -> None:
    @driver.agent("odd")
    def odd(request: Any, ctx: Any) -> Any:
        if request % 2:
            raise ValueError("odd")
        return request

    session = driver.start(
        step("l", "echo", [0, 1, 2]), step("a", "odd", "${item}", each="${l}"), step("j", "echo", "${a}")
    )
    driver.run(session)
    assert driver.states(session) == {"l": "done", "j": "skipped", "a-0": "done", "a-1": "failed", "a-2": "done"}
    assert session.output("a") == [0, None, 2]
    assert session.result is None


def test_the_phase_is_the_step_of_the_plan_that_is_worked_on(driver: Driver) -> None:
    inner = [step("x-2", "echo", "${item}")]
    session = driver.start(
        step("l-1", "echo", [1]), step("s-3", plan=inner, each="${l-1}"), step("end", "echo", 1, after=["s-3"])
    )
    phases = []
    while (work := driver.engine.claim(session.id)) is not None:
        phases.append(session.to_dict(details=False)["phase"])
        driver.perform(work)
    assert phases == ["l-1", "s-3", "end"]


def test_a_step_of_higher_priority_runs_first(driver: Driver) -> None:
    session = driver.start(step("low", "echo"), step("high", "echo", priority=9), step("mid", "echo", priority=5))
    driver.run(session)
    assert driver.started == ["high", "mid", "low"]


def test_a_worker_of_one_queue_takes_only_its_steps(driver: Driver) -> None:
    session = driver.start(step("cpu", "echo"), step("gpu", "echo", queue="gpu"))
    work = driver.engine.claim(session.id, "gpu")
    assert work is not None and work.claimed.name == "gpu"
    assert driver.engine.finish(work, AgentOutput(data=1), carry=True, queue="gpu") is None
    assert driver.engine.claim(session.id, "gpu") is None
    driver.run(session)
    assert session.status == "completed"
