"""The research job as agents and a plan: registers what the plan's steps call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ...errors import PlanError
from ..agents import AgentOutput, agent
from ..plans import Plan, step
from . import Kind, plan_for

#: Kinds of job, with the title of their sessions.
KINDS = {"documents": "Answer from documents", "licences": "Licence review of installed packages"}


def plan(kind: str, folders: list[str], out: str, model: str = "") -> Plan:
    """The plan of a research job. Raises PlanError for an unknown kind."""
    if kind not in ("documents", "licences"):
        raise PlanError(f"no research job {kind!r}; allowed: {', '.join(KINDS)}")
    steps = [step(**one) for one in plan_for(cast(Kind, kind), folders, out, model)]
    return Plan(f"research-{kind}", steps, KINDS[kind])


def _agent(name: str, home: str, *, retries: int = 0) -> None:
    """Register a function of this package; its module is imported when the agent first runs, not with every worker."""

    def run(request: dict[str, Any], ctx: Any) -> AgentOutput:
        return _function(home)(request, ctx)

    run.__qualname__ = f"run[{name}]"
    agent(name, version="1", retries=retries, backoff=0.5)(run)


def _function(home: str) -> Callable[..., AgentOutput]:
    from importlib import import_module

    module, _, name = home.partition(":")
    found: Callable[..., AgentOutput] = getattr(import_module(f".{module}", __package__), name)
    return found


for _name, _home in (
    ("research.locate", "documents:locate"),
    ("research.analyze", "documents:analyze"),
    ("research.crosscheck", "documents:crosscheck"),
    ("research.synthesise", "documents:synthesise"),
    ("research.publish", "publishing:publish"),
    ("licences.locate", "licences.agents:locate"),
    ("licences.analyze", "licences.agents:analyze"),
    ("licences.crosscheck", "licences.agents:crosscheck"),
    ("licences.synthesise", "licences.report:synthesise"),
):
    _agent(_name, _home, retries=1)
