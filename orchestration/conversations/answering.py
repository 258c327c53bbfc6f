"""Answering a message with an agent of pydantic-ai: the loop of reasoning and acting, each part a durable call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic_ai import Agent as Speaker
from pydantic_ai.durable_exec import JSON_CODEC, DurableOperationId, ModelRequestId, ToolsetCallToolId
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError, UsageLimitExceeded, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import UsageLimits
from pydantic_core import to_jsonable_python

from ...errors import CeleriacError
from ..agents import AgentOutput
from ..context import Context
from ..research.model import PASSING
from .durability import CeleriacDurability, Told
from .keeping import Keeping
from .translating import entry_of, messages_of, results_in

logger = logging.getLogger("celeriac.conversation")

#: Characters of an error that are passed on.
_MESSAGE: Final = 400


class ModelFailed(Exception):
    """A model's service failed in a way that may pass: the step is tried again, as after no CeleriacError."""


@dataclass(init=False, kw_only=True)
class Conversing(CeleriacDurability[Any]):
    """The durable calls of one message: what is said in them goes into the history, and `steps` lists them."""

    def __init__(self, name: str, keeping: Keeping, stream: bool) -> None:
        super().__init__(name=name, partials=stream, tool_errors="tell")
        self.keeping = keeping
        self.steps: list[dict[str, Any]] = []

    async def before_model_request(
        self, ctx: RunContext[Any], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Write the system prompt and the user's message before the first request of a history."""
        request_context = await super().before_model_request(ctx, request_context)
        parts = request_context.model_request_parameters.instruction_parts or []
        await self.keeping.prompt("\n\n".join(part.content for part in parts))
        return request_context

    def told(self, operation_id: DurableOperationId, cache_key: tuple[object, ...]) -> Told | None:
        """With an answer of the model, the results of tools that it was told, and the answer."""
        if not isinstance(operation_id, ModelRequestId):
            return None
        messages: Any = cache_key[1]
        results = results_in(messages) if self.steps else []  # before the first request they are the history's
        return lambda payload: self.keeping.items([*results, entry_of(_response(payload))])

    def begun(self, operation_id: DurableOperationId) -> Any:
        """Keep a place for a call of a tool: of several at once the first may end last."""
        step: dict[str, Any] = {}
        if isinstance(operation_id, ToolsetCallToolId):
            self.steps.append(step)
        return step

    def made(self, operation_id: DurableOperationId, cache_key: tuple[object, ...], payload: Any, step: Any) -> None:
        """Note what was done."""
        if isinstance(operation_id, ModelRequestId):
            response = _response(payload)
            step |= {"call": "model", "name": response.model_name}
            if response.text:
                step["text"] = response.text
            self.steps.append(step)
        elif isinstance(operation_id, ToolsetCallToolId):
            arguments = to_jsonable_python(cache_key[1], fallback=str)
            failed = {"error": payload["failed"]} if "failed" in payload else {}
            step |= {"call": "tool", "name": cache_key[0], "arguments": arguments, **failed}

    @property
    def done(self) -> list[dict[str, Any]]:
        """What was made, in order."""
        return [step for step in self.steps if step]


def _response(payload: Any) -> ModelResponse:
    found: ModelResponse = JSON_CODEC.load(ModelResponse, payload)
    return found


async def answered(
    request: dict[str, Any], ctx: Context, make: Callable[[], Speaker[Any, Any]], stream: bool
) -> AgentOutput:
    """Answer a message (`text`, `max_iterations`, perhaps `model`) in the light of the session's history, by the agent
    that `make` gives.

    The output is `{"success", "result", "steps", "error"}`. A failure of the model's service raises while the step has
    attempts left, and is an answer without success then; so are all others.
    """
    engine, session_id = ctx.behind
    keeping = Keeping(engine, session_id, ctx, request["text"])
    await keeping.begin()
    conversing = Conversing(ctx.agent, keeping, stream)
    model = request.get("model") or ""
    try:
        speaker = make()
        model = model or speaker.model or engine.settings.model
        if not model:
            return await _failed(conversing, f"agent {ctx.agent!r} has no model: give it one, or set `model`")
        if speaker.model is None:
            speaker.model = model
        return await _run(request, ctx, speaker, conversing, messages_of(keeping.window()), model)
    except CeleriacError:
        raise
    except Exception as fault:
        return await _failed(conversing, _reason(fault, request, model, ctx))


async def _run(
    request: dict[str, Any],
    ctx: Context,
    speaker: Speaker[Any, Any],
    conversing: Conversing,
    history: list[ModelMessage],
    model: Any,
) -> AgentOutput:
    result = await speaker.run(
        request["text"],
        message_history=history,
        model=model,
        deps=ctx,
        usage_limits=UsageLimits(request_limit=request["max_iterations"]),
        capabilities=[conversing],
    )
    output = to_jsonable_python(result.output, fallback=str)
    cost = getattr(result.usage, "cost", None)
    data = {"success": True, "result": output, "steps": conversing.done, "error": None}
    return AgentOutput(data=data, cost=None if cost is None else float(cost))


async def _failed(conversing: Conversing, error: str) -> AgentOutput:
    await conversing.keeping.prompt(None)  # the message itself is kept, though no model was asked
    return AgentOutput(data={"success": False, "result": None, "steps": conversing.done, "error": error})


def _reason(fault: Exception, request: dict[str, Any], model: Any, ctx: Context) -> str:
    """Why there is no answer. Raises ModelFailed, or the fault itself, if the step is to be tried again."""
    text = str(fault)[:_MESSAGE]
    if isinstance(fault, UsageLimitExceeded):
        return f"no answer after {request['max_iterations']} requests to the model (max_iterations)"
    if isinstance(fault, ModelAPIError):
        named = model if isinstance(model, str) else model.model_name
        reason = f"model {named!r} failed: {text}"
        status = fault.status_code if isinstance(fault, ModelHTTPError) else 0
        if ctx.may_retry and not (400 <= status < 500 and status not in PASSING):
            raise ModelFailed(reason) from fault
        return reason
    if isinstance(fault, AgentRunError | UserError | ImportError | ValueError):
        return f"the agent failed: {text}"
    if ctx.may_retry:
        raise fault
    logger.exception("message of session %s was not answered", ctx.behind[1])
    return f"{type(fault).__name__}: {text}"
