"""The plans that are run under fire."""

from __future__ import annotations

from pathlib import Path

from celeriac import Plan, step


def one(ms: float = 0, agent: str = "chaos.work", **request: float) -> Plan:
    """A single step."""
    return Plan("one", [step("only", agent, {"ms": ms, **request})])


def fan(width: int, ms: float) -> Plan:
    """So many steps at once."""
    return Plan("fan", [step(f"s{n}", "chaos.work", {"ms": ms}) for n in range(width)])


def chain(steps: int) -> Plan:
    """`steps` steps one after another."""
    later = [step(f"s{n}", "chaos.work", {"after": f"${{s{n - 1}}}"}) for n in range(1, steps)]
    return Plan("chain", [step("s0", "chaos.work", {}), *later])


def diamond(width: int = 8, ms: float = 0) -> Plan:
    """One step, `width` that follow it at once, and one that waits for all of them."""
    middle = [step(f"m{n}", "chaos.work", {"ms": ms}, after=["first"]) for n in range(width)]
    return Plan(
        "diamond",
        [
            step("first", "chaos.work", {"ms": 0}),
            *middle,
            step("last", "chaos.work", {"all": [f"${{m{n}.attempt}}" for n in range(width)]}),
        ],
    )


def eight_steps(ms: float) -> Plan:
    """A graph of eight steps: two chains of two that meet twice; where they meet, an agent makes three calls."""
    request = {"ms": ms}
    return Plan(
        "eight",
        [
            step("a", "chaos.work", request),
            step("b1", "chaos.work", request, after=["a"]),
            step("b2", "chaos.work", request, after=["b1"]),
            step("c1", "chaos.work", request, after=["a"]),
            step("c2", "chaos.work", request, after=["c1"]),
            step("d", "chaos.caller", {**request, "of": ["${b2.attempt}", "${c2.attempt}"]}),
            step("e", "chaos.work", request, after=["c1"]),
            step("f", "chaos.work", request, after=["d", "e"]),
        ],
    )


def six_steps(folder: str | Path) -> Plan:
    """A graph of six steps that passes every crash point: one leaves a blob, one makes calls, one writes a report."""
    return Plan(
        "six",
        [
            step("a", "chaos.work", {"ms": 0}),
            step("b", "chaos.work", {"ms": 0}, after=["a"]),
            step("c", "chaos.big", after=["a"]),
            step("d", "chaos.caller", {"ms": 0}, after=["a"]),
            step("e", "chaos.work", {"size": "${c.attempt}"}, after=["b", "d"]),
            step("f", "chaos.report", {"path": str(Path(folder, "report.md"))}, after=["e"]),
        ],
    )
