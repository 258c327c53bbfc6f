"""A conversation whose model requests and tool calls are durable: kill it in between, and nothing is paid for twice.

python examples/conversation.py "Where is order 17?"      # a scripted model; SHOP_MODEL=openai:gpt-5 asks a real one

Talk to it in the terminal: CELERIAC_AGENTS=conversation PYTHONPATH=examples celeriac chat --agent shop
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from celeriac import Celeriac
from celeriac.llm import conversation

ORDERS = {17: "left Antwerp on Monday", 18: "waits for its cocoa"}


def where_is(order: int) -> str:
    """Where an order is."""
    return ORDERS[order]  # an order that is not there raises: the model is told, and the conversation goes on


@conversation("shop", retries=2)
def shop() -> Agent:
    """Made once in each thread of a worker, when the first message is answered there."""
    model = os.environ.get("SHOP_MODEL") or FunctionModel(stream_function=scripted)
    return Agent(model, name="shop", instructions="You help customers of a chocolate shop.", tools=[where_is])


async def scripted(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
    """In place of a model: asks for the order that the user names, and says what the tool gave."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        yield "It " if last.outcome == "success" else "I do not find that order: "
        yield f"{last.content}."
        return
    said = [part.content for m in messages for part in m.parts if isinstance(part, UserPromptPart)]
    number = re.search(r"\d+", str(said[-1]))
    if number:
        yield {0: DeltaToolCall(name="where_is", json_args=f'{{"order": {number[0]}}}')}
    else:
        yield f"Which order? You have said {len(said)} things so far."


def main() -> None:
    """Say each argument in turn."""
    celeriac = Celeriac()
    with celeriac.embedded():
        session = celeriac.sessions.create("orders", user="ana", agent="shop")
        for text in sys.argv[1:] or ["Hello!", "Where is order 17?"]:
            answer = session.send_message(text)
            print(answer.result if answer.success else f"no answer: {answer.error}")
        print("said:", ", ".join(entry["role"] for entry in session.history()))


if __name__ == "__main__":
    main()
