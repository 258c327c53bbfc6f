"""A process that answers a message with a model behind a service, and is killed when a call begins, once for each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Mapping
from typing import Any


def begin(call: str) -> None:
    """Die as by kill -9, unless this process's predecessors died at this call already. Then note that it is made."""
    ledger = os.environ["TALK_LEDGER"]
    try:
        os.close(os.open(f"{ledger}.{call}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        with open(ledger, "a") as made:
            made.write(call + "\n")
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def ask_service(messages: list[Any], info: Any) -> Any:
    """A request to the service, as a client of OpenAI's interface makes it."""
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

    sent: list[dict[str, Any]] = []
    for message in messages:
        for part in message.parts:
            role = "assistant" if isinstance(message, ModelResponse) else "user"
            role = "tool" if isinstance(part, ToolReturnPart) else role
            sent.append({"role": role, "content": str(getattr(part, "content", ""))})
    done = sum(isinstance(m, ModelRequest) and isinstance(p, ToolReturnPart) for m in messages for p in m.parts)
    begin(f"model-{done}")
    request = urllib.request.Request(
        os.environ["TALK_SERVICE"], json.dumps({"messages": sent}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer = json.loads(reply.read())["choices"][0]["message"]
    if answer.get("tool_calls"):
        calls = answer["tool_calls"]
        return ModelResponse(
            [ToolCallPart(c["function"]["name"], c["function"]["arguments"], tool_call_id=c["id"]) for c in calls]
        )
    return ModelResponse([TextPart(answer["content"])])


def step_of(number: int) -> str:
    """A tool."""
    begin(f"tool-{number}")
    return f"step {number} taken"


async def side_of(number: int) -> str:
    """A tool: of two that run at once the second dies by kill -9, when the first one has ended."""
    import asyncio

    ledger = os.environ["TALK_LEDGER"]
    with open(ledger, "a") as made:
        made.write(f"side-{number}\n")
    if number == 1:
        await asyncio.sleep(0.5)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(f"{ledger}.side", os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)
    return f"side {number} seen"


def register() -> None:
    from celeriac.llm import conversation

    @conversation("talker", stream=False)
    def talker() -> Any:
        from pydantic_ai import Agent
        from pydantic_ai.models.function import FunctionModel

        return Agent(FunctionModel(ask_service), name="talker", instructions="Walk.", tools=[step_of, side_of])


def run(env: Mapping[str, str], session_id: str) -> None:
    """The process: exits with 0 once the message was answered."""
    log = os.open(env["TALK_LEDGER"] + ".log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(env)
    from celeriac import Celeriac
    from celeriac.orchestration.conversations import sending

    register()
    celeriac = Celeriac()
    with celeriac.embedded(1):
        result = sending.answer_to(celeriac.engine, session_id, "message:1", timeout=20)
    celeriac.close()
    assert result.success, result.error
