"""A conversation for the command line, whose model streams, calls a tool, and fails when it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from celeriac.llm import conversation


def shout(text: str) -> str:
    """A tool."""
    return text.upper()


async def model(messages: list[Any], info: Any) -> AsyncIterator[Any]:
    from pydantic_ai.exceptions import ModelHTTPError
    from pydantic_ai.messages import ToolReturnPart, UserPromptPart
    from pydantic_ai.models.function import DeltaToolCall

    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        yield "They shout: "
        yield f"{last.content}\x1b[2J"
        return
    text = [part.content for m in messages for part in m.parts if isinstance(part, UserPromptPart)][-1]
    if text == "fail":
        raise ModelHTTPError(400, "fake", "bad request")
    if text.startswith("shout "):
        yield {0: DeltaToolCall(name="shout", json_args=f'{{"text": "{text[6:]}"}}')}
    else:
        for word in f"you said {text}".split():
            yield f"{word} "


@conversation("talker.cli")
def talker() -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.function import FunctionModel

    return Agent(FunctionModel(stream_function=model), name="talker", instructions="Repeat.", tools=[shout])
