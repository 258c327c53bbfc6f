"""Running an agent: permissions, models, time limit, sync or async; and what it may answer with."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import (
    AccessDenied,
    AgentError,
    CallFailed,
    CallMismatch,
    NotSerializable,
    PermissionMissing,
    PlanError,
    QuotaExceeded,
    TooLarge,
)
from ..storage import serial
from .agents import Agent, AgentOutput, Finding, granted
from .context import Context, current
from .engine import Engine, Work
from .rows import as_step
from .sizes import check_requests
from .state.stepstate import HeldFailed

#: Faults that another attempt cannot mend.
FINAL_FAULTS = (
    PermissionMissing,
    PlanError,
    AgentError,
    CallFailed,
    CallMismatch,
    NotSerializable,
    TooLarge,
    QuotaExceeded,
    AccessDenied,
)
#: Why what an agent gave cannot be recorded: another attempt may meet other state than this one did.
UNRECORDABLE = (*FINAL_FAULTS, HeldFailed)

#: Findings of one step, and their values and evidence in bytes of JSON.
MOST_FINDINGS = 10_000
MOST_FINDING_BYTES = 1 << 24

_loops = threading.local()


def prepare(
    engine: Engine,
    work: Work,
    flush: Callable[[], None],
    make: Callable[[Work, Context], None],
    caller: Context | None = None,
) -> tuple[Agent, Context]:
    """The agent of a claimed step and its context. Raises AgentNotFound and PermissionMissing.

    `flush` writes its partial results now; `make(work, context)` makes a durable call within it, and records how it
    ended. `caller` is the context of the step whose durable call this one is.
    """
    agent = engine.registry.get(work.claimed.agent)
    permissions = granted(agent, work.permissions)
    limit = work.claimed.timeout or engine.settings.step_time_limit or None
    return agent, Context(engine, work, permissions, time.monotonic() + limit if limit else None, flush, make, caller)


def run(agent: Agent, context: Context, request: Any) -> AgentOutput:
    """Call the agent; gives its output. Raises what the agent raises, and AgentError for a request or answer that
    its models refuse.
    """
    argument = request
    if agent.request_model is not None:
        argument = _validated(agent.request_model, request, f"request of step {context.step}")
    token = current.set(context)
    try:
        answer = agent.function(argument, context)
        if agent.is_async:
            answer = _run(answer)
    except asyncio.CancelledError:
        if context.is_stopped:
            context.check()
        raise
    finally:
        current.reset(token)
    return _output(agent, context, answer)


def _run(answer: Coroutine[Any, Any, Any]) -> Any:
    """Run an async agent on this thread's event loop: making one for each step costs more than most steps'
    recording.
    """
    runner: asyncio.Runner | None = getattr(_loops, "runner", None)
    if runner is None or _loops.pid != os.getpid():  # a fork inherits the loop, but not what wakes it
        runner, _loops.pid = asyncio.Runner(), os.getpid()
        _loops.runner = runner
    try:
        return runner.run(answer, context=contextvars.copy_context())
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


def _output(agent: Agent, context: Context, answer: Any) -> AgentOutput:
    step = context.step
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
    _check_figures(output, step)
    _check_size(output.findings, step)
    check_requests(map(as_step, output.add_steps), context.max_request_bytes)
    return output


def _check_figures(output: AgentOutput, step: str) -> None:
    largest = sys.float_info.max
    for name, least, most, allowed in (
        ("confidence", 0.0, 1.0, "a number of 0 to 1"),
        ("cost", -largest, largest, "a finite number"),
    ):
        value = getattr(output, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value <= most):
            raise AgentError(f"step {step} answered with {name} {value!r:.60}; it must be {allowed}, or None")


def _check_size(findings: list[Finding], step: str) -> None:
    if len(findings) > MOST_FINDINGS:
        raise TooLarge(f"step {step} answered with {len(findings)} findings; at most {MOST_FINDINGS} are allowed")
    if findings:
        values = [[finding.entity, finding.attribute, finding.value, finding.evidence] for finding in findings]
        serial.encode(values, what=f"findings of {step}", limit=MOST_FINDING_BYTES)


def _is_allowed(finding: Any) -> bool:
    return (
        isinstance(finding, Finding)
        and all(isinstance(text, str) and serial.is_storable(text) for text in (finding.entity, finding.attribute))
        and isinstance(finding.confidence, (int, float))
        and 0 <= finding.confidence <= 1
        and isinstance(finding.evidence, list)
    )
