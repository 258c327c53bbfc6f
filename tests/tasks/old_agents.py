"""What a worker of an older release knows: of the agents in `edge_agents`, one."""

from __future__ import annotations

from typing import Any

from celeriac import agent


@agent("edge.list")
def numbers(request: dict[str, Any], ctx: Any) -> list[int]:
    return list(range(request["n"]))
