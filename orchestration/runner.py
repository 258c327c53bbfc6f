"""Running an agent: permissions, models, time limit, sync or async; and what it may answer with."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import AgentError, NotSerializable, PermissionMissing, PlanError, TooLarge
from ..storage import serial
from .agents import Agent, AgentOutput, Finding, granted
from .context import Context
from .engine import Engine, Work

#: Faults that another attempt cannot mend.
FINAL_FAULTS = (PermissionMissing, PlanError, AgentError, NotSerializable, TooLarge)

_loops = threading.local()


def prepare(engine: Engine, work: Work, flush: Callable[[], None]) -> tuple[Agent, Context]:
    """The agent of a claimed step and its context. Raises AgentNotFound and PermissionMissing."""
    agent = engine.registry.get(work.claimed.agent)
    permissions = granted(agent, work.permissions)
    limit = work.claimed.timeout or engine.settings.step_time_limit or None
    return agent, Context(engine, work, permissions, time.monotonic() + limit if limit else None, flush)


def run(agent: Agent, context: Context, request: Any) -> AgentOutput:
    """Call the agent; gives its output. Raises what the agent raises, and AgentError for a request or answer that
    its models refuse.
    """
    argument = request
    if agent.request_model is not None:
        argument = _validated(agent.request_model, request, f"request of step {context.step}")
    answer = agent.function(argument, context)
    if agent.is_async:
        answer = _run(answer)
    return _output(agent, context.step, answer)


def _run(answer: Coroutine[Any, Any, Any]) -> Any:
    """Run an async agent on this thread's event loop: making one for each step costs more than most steps'
    recording.
    """
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is None or _loops.pid != os.getpid():  # a fork inherits the loop, but not what wakes it
        runner, _loops.pid = asyncio.Runner(), os.getpid()
        _loops.runner = runner
    try:
        return runner.run(answer)
    except BaseException:
        _loops.runner = None
        runner.close()  # what the agent left behind must not go on during the next step
        raise


def _validated(model: type[BaseModel], value: Any, what: str) -> BaseModel:
    try:
        return model.model_validate(value)
    except ValidationError as fault:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in fault.errors()[:5])
        raise AgentError(f"{what} does not fit {model.__name__}: {problems}") from None


def _output(agent: Agent, step: str, answer: Any) -> AgentOutput:
    output = answer if isinstance(answer, AgentOutput) else AgentOutput(data=answer)
    if isinstance(output.data, BaseModel):
        output.data = output.data.model_dump(mode="json")
    if agent.response_model is not None:
        output.data = _validated(agent.response_model, output.data, f"answer of step {step}").model_dump(mode="json")
    for finding in output.findings:
        if not _is_allowed(finding):
            raise AgentError(
                f"step {step} answered with a finding that is not allowed: {finding!r}; "
                "expected Finding with text, a list of evidence and a confidence of 0 to 1"
            )
    return output


def _is_allowed(finding: Any) -> bool:
    return (
        isinstance(finding, Finding)
        and all(isinstance(text, str) and serial.is_storable(text) for text in (finding.entity, finding.attribute))
        and isinstance(finding.confidence, (int, float))
        and 0 <= finding.confidence <= 1
        and isinstance(finding.evidence, list)
    )
