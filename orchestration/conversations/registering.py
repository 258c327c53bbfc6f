"""Registering agents that answer messages."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, cast

from ...errors import AgentError, CeleriacError
from ..agents import AgentOutput, Registry, agent, registry

if TYPE_CHECKING:
    from pydantic_ai import Agent as Speaker

#: The agent that answers where nobody names another one.
CHAT: Final = "celeriac.chat"

Maker = Callable[[], "Speaker[Any, Any]"]


def conversation(
    name: str, *, stream: bool = True, registry: Registry = registry, **options: Any
) -> Callable[[Maker], Maker]:
    """Register a function that makes an `Agent` of pydantic-ai as the agent `name`, which answers messages:
    `session.send_message(text, agent=name)`, or `sessions.create(..., agent=name)`.

    The function is called once in each thread of a worker, when the first message is answered there. The agent's model
    requests and tool calls are durable calls; what its tools raise is told to the model. Its tools get the step's
    context as `deps`. An agent without a model gets that of the setting `model`. With `stream` text is handed out as
    partial results while it comes. `options` are those of `celeriac.agent`, such as `retries`, `timeout`, `queue`.
    """

    def register(make: Maker) -> Maker:
        if not callable(make) or hasattr(make, "run_sync"):
            raise AgentError(f"conversation {name!r} needs a function that gives an Agent, found {make!r:.100}")
        # One for each thread: a model's client of HTTP belongs to the event loop that it was first used on.
        own = threading.local()

        async def answer(request: dict[str, Any], ctx: Any) -> Any:
            def speaker() -> Speaker[Any, Any]:
                if not hasattr(own, "speaker"):
                    own.speaker = make()
                return cast("Speaker[Any, Any]", own.speaker)

            return await answering()(request, ctx, speaker, stream)

        add(name, answer, make, registry, options)
        return make

    return register


def answering() -> Callable[..., Awaitable[AgentOutput]]:
    """What answers a message with an agent of pydantic-ai. Raises CeleriacError where that is not installed."""
    try:
        from .answering import answered
    except ImportError as fault:
        raise CeleriacError(
            f"answers of a model need pydantic-ai >= 2.68: pip install 'celeriac[llm]' ({fault})"
        ) from fault
    return answered


def add(name: str, answer: Callable[..., Any], home: Callable[..., Any], to: Registry, options: dict[str, Any]) -> None:
    """Register what answers messages; `home` tells it from others of that name."""
    answer.__module__, answer.__qualname__ = home.__module__, f"{home.__qualname__}[{name}]"
    answer.answers_messages = True  # type: ignore[attr-defined]
    agent(name, registry=to, **options)(answer)
