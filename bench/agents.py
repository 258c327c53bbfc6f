"""The same work as agents."""

from __future__ import annotations

from typing import Any

from celeriac import Plan, agent, step

PAD = "x" * 1000


@agent("bench.grow")
def grow(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    return {"n": (request.get("n") or 0) + 1, "pad": PAD}


@agent("bench.list")
def items(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    return {"items": [0] * request["width"]}


@agent("bench.total")
def total(request: dict[str, Any], ctx: Any) -> int:
    return sum(value["n"] for value in request["values"])


def sequence(steps: int) -> Plan:
    """A chain of `steps` steps of about 1 KB each."""
    more = [step(f"s{i}", "bench.grow", {"n": f"${{s{i - 1}.n}}"}) for i in range(1, steps)]
    return Plan(f"sequence-{steps}", [step("s0", "bench.grow", {}), *more])


def fan(width: int, joined: bool = True) -> Plan:
    """A fan-out of `width` steps and, where it is `joined`, the step that adds their outputs up."""
    total = [step("total", "bench.total", {"values": "${grow}"})] if joined else []
    return Plan(
        f"fan-{width}",
        [
            step("list", "bench.list", {"width": width}),
            step("grow", "bench.grow", {"n": "${item}"}, each="${list.items}"),
            *total,
        ],
    )
