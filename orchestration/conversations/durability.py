"""`CeleriacDurability`: agents of pydantic-ai whose model requests and tool calls are durable calls of the step that
they run in. Built on the interface that pydantic-ai offers for this, `pydantic_ai.durable_exec`.

Imported only where it is used, because pydantic-ai takes a second to import.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from weakref import WeakKeyDictionary

from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.capabilities.abstract import WrapRunHandler, WrapToolExecuteHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    CallableOperationBackend,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    JournalOperationNamer,
    ModelCancelSuspendedResponseId,
    ModelCompactMessagesId,
    ModelRequestId,
    RoleBasedOperationConfig,
    ToolsetCallToolId,
    ToolsetValidateToolArgumentsId,
    conversation_id_from_run_id,
    record_durable_unit,
    replay_scope,
)
from pydantic_ai.exceptions import ToolFailed, UserError
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tool_manager import ParallelExecutionMode, ToolManager
from pydantic_ai.tools import AgentDepsT, RunContext, ToolDefinition

from ...errors import StepCancelled, StepTimeout, StorageError
from ...storage.histories.protocol import Item
from ..calls import MOST_CHARACTERS
from ..context import Context, current

#: Text of a model is handed out as partial results at most so often, in seconds.
PIECE_SECONDS = 0.05
#: Characters of a piece: as JSON fewer bytes than a partial result may have, whatever they are.
_PIECE = 20_000
#: Characters of a tool's error that the model is told.
_TOLD = 2000
#: What a tool raises that is not for the model to mend.
_NOT_TOLD = (StepCancelled, StepTimeout, StorageError, UserError)
#: Whether a durable call is being made: within one there are no others.
_within: ContextVar[bool] = ContextVar("celeriac_durable_call", default=False)
#: The number of the model request that is made here, from 1, in the attempt at hand.
_request: ContextVar[int] = ContextVar("celeriac_model_request", default=0)
#: The model requests and runs of each attempt of a step, counted.
_counts: WeakKeyDictionary[Context, dict[str, Iterator[int]]] = WeakKeyDictionary()

Told = Callable[[Any], Sequence[Item]]


def _count(ctx: Context, what: str) -> int:
    return next(_counts.setdefault(ctx, {}).setdefault(what, itertools.count(1)))


class CallNamer(JournalOperationNamer):
    """Names of durable calls, as `celeriac steps` shows them. They are recorded: a change of one breaks what is under
    way.
    """

    def operation_name(self, operation_id: DurableOperationId) -> str:
        match operation_id:
            case ModelRequestId(model_id=model):
                name = self._of_model("model", model)
            case ModelCompactMessagesId(model_id=model):
                name = self._of_model("model compacts", model)
            case ModelCancelSuspendedResponseId(model_id=model):
                name = self._of_model("model withdraws", model)
            case _:
                name = super().operation_name(operation_id)
        return _allowed(name)

    def _of_model(self, name: str, model: str | None) -> str:
        return f"{name}{self._model_suffix(model)}"

    def invocation_name(self, operation_id: DurableOperationId, *, label: str | None) -> Any:
        shown = super().invocation_name(operation_id, label=label)
        match operation_id:
            case ToolsetCallToolId() if label is not None:
                name = f"tool {label}"
            case ToolsetValidateToolArgumentsId() if label is not None:
                name = f"validate {label}"
            case _:
                name = shown.operation_name
        return replace(shown, operation_name=_allowed(name))


def _allowed(name: str) -> str:
    return "".join(c if c.isprintable() and c != "/" else "." for c in name)[:MOST_CHARACTERS]


class CallBackend(CallableOperationBackend[Any]):
    """Runs each operation of pydantic-ai as a durable call of the step at hand."""

    def __init__(self, owner: CeleriacDurability[Any], config: RoleBasedOperationConfig[Any]) -> None:
        namer = CallNamer(owner.name, default_model_id=owner.default_model_id or "default")
        super().__init__(namer=namer, config=config)
        self._owner = owner

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: Any,
    ) -> object:
        ctx = current.get()
        assert ctx is not None  # nothing is executed outside of a step
        ctx.give_way()
        owner, made = self._owner, False
        is_tool = isinstance(operation_id, ToolsetCallToolId)

        async def unit() -> object:
            nonlocal made
            made = True
            token = _within.set(True)
            try:
                return {"gave": await body()} if is_tool else await body()
            except _NOT_TOLD:
                raise
            except Exception as fault:
                if not (is_tool and owner.tool_errors == "tell"):
                    raise
                return {"failed": f"{type(fault).__name__}: {fault}"[:_TOLD]}
            finally:
                _within.reset(token)

        if isinstance(operation_id, ModelRequestId):
            _request.set(_count(ctx, "requests"))
        step = owner.begun(operation_id)
        payload = await ctx.once_told(name, unit, owner.told(operation_id, cache_key))
        record_durable_unit(executed=made)
        owner.made(operation_id, cache_key, payload, step)
        if not is_tool:
            return payload
        if "failed" in payload:
            raise ToolFailed(payload["failed"])
        return payload["gave"]


@dataclass(init=False, kw_only=True)
class CeleriacDurability(BaseDurabilityCapability[AgentDepsT]):
    """A capability for an `Agent` of pydantic-ai: where it runs in a Celeriac agent, each model request and each tool
    call is a durable call (`ctx.once`) of that step. When the step runs again, after a crash or a retry, those that
    were recorded are not made again; when the session is paused, the step stops between two of them. Elsewhere the
    agent runs as it would without.

    Tools that a model calls together run at once, each in a lane of its own (`orchestration/lanes.py`): those that
    ended are not called again, whichever they are. A tool that pydantic-ai is told to be `sequential` runs alone, and
    all do with `parallel_tools=False`, or with `parallel_tool_call_execution_mode("sequential")` around a run. A tool
    with the metadata `{"celeriac": False}` is no durable call: it may make durable calls of its own.

    `name` is shown where the agent has no name. `models` are further models, by names that runs choose them by.
    `event_stream_handler` is given the events of a run, each once. With `partials` model requests are streamed, and
    text is handed out as partial results `{"request", "at", "text"}`: `at` characters of the answer to that request
    came before it. `tool_errors`: what an exception of a tool does: "raise" fails the run, "tell" tells the model.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="Celeriac",
        durable_unit_noun="call",
        durable_container_noun="step",
        codec=JSON_CODEC,
        unsupported_runtime_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        wrapped_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
        journal_discovery=True,
        sequential_tools_in_durable_context=False,
        tool_config_key="celeriac",
    )

    def __init__(
        self,
        *,
        name: str | None = None,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        partials: bool = False,
        tool_errors: Literal["raise", "tell"] = "raise",
        parallel_tools: bool = True,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        if tool_errors not in ("raise", "tell"):
            raise UserError(f"tool_errors is {tool_errors!r}; allowed: 'raise', 'tell'")
        self.partials = partials
        self.tool_errors = tool_errors
        self.parallel_tools = parallel_tools

    @property
    def in_durable_context(self) -> bool:
        """Whether this is the code of a Celeriac agent, and not of a durable call that it makes."""
        return current.get() is not None and not _within.get()

    def get_durable_operation_backend(self) -> DurableOperationBackend[Any]:
        """What runs this agent's operations as durable calls."""

        def of_tool(operation_id: DurableOperationId, tool: Any, tool_name: str) -> Any:
            return self._build_resolve_tool_config({})(tool, tool_name)

        config = RoleBasedOperationConfig[Any](model={}, event={}, capability={}, tool={}, resolve_tool=of_tool)
        return CallBackend(self, config)

    def _normalize_unit_config(self, config: Any) -> Any:
        if config:
            raise UserError(f"the metadata 'celeriac' of a tool is {config!r}; allowed: False, for no durable call")
        return config

    def told(self, operation_id: DurableOperationId, cache_key: tuple[object, ...]) -> Told | None:
        """What an operation leaves in the session's history, in the transaction that records it: nothing."""
        return None

    def begun(self, operation_id: DurableOperationId) -> Any:
        """Told of each operation that begins; what it gives is handed to `made`."""
        return None

    def made(self, operation_id: DurableOperationId, cache_key: tuple[object, ...], payload: Any, step: Any) -> None:
        """Told of each operation that was made or read, and what it gave."""

    # -- a run -------------------------------------------------------------------------------------------------------

    def get_default_run_id(self) -> str | None:
        """An id that a run has again when its step runs again."""
        ctx = current.get()
        if ctx is None or _within.get():
            return None
        lane = ctx.lane_name
        return f"{ctx.call_key}{lane}:{_count(ctx, f'runs{lane}')}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """One that follows from the id of the run."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Run it without telling traces a second time of what is only read."""
        if not self.in_durable_context:
            return await super().wrap_run(ctx, handler=handler)
        # Which sibling's exception is raised must not depend on who was quicker: results are taken in order.
        mode: ParallelExecutionMode = "parallel_ordered_events" if self._runs_tools_at_once() else "sequential"
        with replay_scope(), ToolManager.parallel_execution_mode(mode):
            return await super().wrap_run(ctx, handler=handler)

    def _runs_tools_at_once(self) -> bool:
        said = ToolManager.get_parallel_execution_mode(cast(Any, None))  # it reads what is set around the run
        return self.parallel_tools and said != "sequential"

    async def wrap_tool_execute(
        self,
        ctx: RunContext[AgentDepsT],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        """Run a tool in a lane of its own."""
        step = current.get()
        if step is None or _within.get():
            return await super().wrap_tool_execute(ctx, call=call, tool_def=tool_def, args=args, handler=handler)
        with step.lane(call.tool_call_id):
            return await super().wrap_tool_execute(ctx, call=call, tool_def=tool_def, args=args, handler=handler)

    async def prepare_output_tools(
        self, ctx: RunContext[AgentDepsT], tool_defs: list[ToolDefinition]
    ) -> list[ToolDefinition]:
        """Let each output function run alone: it has no lane, and may make durable calls."""
        found = await super().prepare_output_tools(ctx, tool_defs)
        return [replace(one, sequential=True) for one in found] if self.in_durable_context else found

    # -- partial results ---------------------------------------------------------------------------------------------

    @property
    def has_wrap_run_event_stream(self) -> bool:
        """Whether model requests are streamed."""
        return super().has_wrap_run_event_stream or (self.partials and self.in_durable_context)

    def _model_stream_event_handler(self) -> EventStreamHandler[AgentDepsT] | None:
        handler, ctx = super()._model_stream_event_handler(), current.get()
        if not self.partials or ctx is None:
            return handler
        pieces = _Pieces(ctx, _request.get())

        async def both(run: RunContext[AgentDepsT], events: AsyncIterable[AgentStreamEvent]) -> None:
            told = pieces.passing(events)
            if handler is not None:
                await handler(run, told)
            async for _ in told:
                pass

        return both


class _Pieces:
    """Hands a model's text out as partial results while it comes."""

    def __init__(self, ctx: Context, request: int) -> None:
        self._ctx = ctx
        self._request = request
        self._at = 0
        self._text = ""
        self._next = 0.0

    async def passing(self, events: AsyncIterable[AgentStreamEvent]) -> AsyncIterator[AgentStreamEvent]:
        """The events as they come."""
        async for event in events:
            match event:
                case (
                    PartStartEvent(part=TextPart(content=text))
                    | PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                ):
                    self._take(text)
            yield event
        self._tell()

    def _take(self, text: str) -> None:
        self._text += text
        if self._text and time.monotonic() >= self._next:
            self._tell()

    def _tell(self) -> None:
        while self._text:
            piece, self._text = self._text[:_PIECE], self._text[_PIECE:]
            self._ctx.partial({"request": self._request, "at": self._at, "text": piece})
            self._at += len(piece)
            self._next = time.monotonic() + PIECE_SECONDS
