"""Agents of pydantic-ai inside Celeriac agents: what was asked and done once is not asked and done again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from driver import Driver
from pydantic import BaseModel

from celeriac.orchestration.plans import step

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from celeriac.llm import CeleriacDurability


class Crash(Exception):
    """Ends an attempt."""


def results(messages: list[ModelMessage]) -> list[Any]:
    """What the tools gave so far."""
    return [part.content for m in messages for part in m.parts if isinstance(part, ToolReturnPart)]


class Script:
    """A model that calls the tool `add` so many times, then tells what it gave."""

    def __init__(self, calls: int = 2) -> None:
        self.asked = 0
        self.calls = calls

    def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.asked += 1
        done = results(messages)
        if len(done) < self.calls:
            return ModelResponse([ToolCallPart("add", {"n": len(done)}, tool_call_id=f"c{len(done)}")])
        return ModelResponse([TextPart(f"got {done}")])


def test_no_request_and_no_tool_call_is_made_twice(driver: Driver) -> None:
    script, added = Script(), []
    speaker = Agent(FunctionModel(script), name="adder", capabilities=[CeleriacDurability()])

    @speaker.tool_plain
    def add(n: int) -> int:
        added.append(n)
        return n + 10

    @driver.agent("ask", retries=2, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        result = await speaker.run(request)
        if ctx.attempt < 3:
            raise Crash
        return result.output

    session = driver.start(step("a", "ask", "add"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "got [10, 11]" and (script.asked, added) == (3, [0, 1])
    names = [name for name in driver.states(session) if name != "a"]
    assert names == ["a/0-model", "a/1-tool add", "a/2-model", "a/3-tool add", "a/4-model"]


def test_an_attempt_that_ends_between_two_calls_goes_on_behind_the_last_one(driver: Driver) -> None:
    script, added, fail = Script(), [], {0, 1}
    speaker = Agent(FunctionModel(script), name="adder", capabilities=[CeleriacDurability()])

    @speaker.tool_plain
    def add(n: int) -> int:
        if n in fail:
            fail.discard(n)
            raise Crash(n)
        added.append(n)
        return n

    driver.agent("ask", retries=2, backoff=0.001)(lambda request, ctx: speaker.run_sync(request).output)
    session = driver.start(step("a", "ask", "add"))
    assert driver.run_to_end(session) == "completed", session.error
    assert (script.asked, added) == (3, [0, 1]) and session.steps()[0]["attempts"] == 3


def test_streamed_requests_are_recorded_whole_and_their_text_is_handed_out(driver: Driver) -> None:
    asked = []

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        asked.append(1)
        if not results(messages):
            yield {0: DeltaToolCall(name="add", json_args='{"n": 1}', tool_call_id="c")}
            return
        for word in ("one ", "two ", "three"):
            yield word
            await asyncio.sleep(0.06)

    speaker = Agent(
        FunctionModel(stream_function=stream), name="adder", capabilities=[CeleriacDurability(partials=True)]
    )
    speaker.tool_plain(add_one)

    @driver.agent("ask", retries=1, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        result = await speaker.run(request)
        if ctx.attempt == 1:
            raise Crash
        return result.output

    session = driver.start(step("a", "ask", "add"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "one two three" and len(asked) == 2
    pieces = session.partials()["ask"]
    assert "".join(piece["text"] for piece in pieces) == "one two three" and len(pieces) > 1
    assert [piece["request"] for piece in pieces] == [2] * len(pieces)
    assert [piece["at"] for piece in pieces][1] == len(pieces[0]["text"])


def add_one(n: int) -> int:
    return n + 1


def test_a_streamed_run_of_ones_own_works_too(driver: Driver) -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield "all "
        yield "well"

    speaker = Agent(FunctionModel(stream_function=stream), name="teller", capabilities=[CeleriacDurability()])

    @driver.agent("ask")
    async def ask(request: Any, ctx: Any) -> str:
        async with speaker.run_stream(request) as run:
            return str(await run.get_output())

    session = driver.start(step("a", "ask", "hello"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "all well" and "a/0-model" in driver.states(session)


class Found(BaseModel):
    """What a model finds."""

    name: str
    count: int


def test_outputs_with_a_type_and_retries_that_tools_ask_for_come_back_as_they_were(driver: Driver) -> None:
    asked = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(1)
        if len(asked) < 3:
            return ModelResponse([ToolCallPart("look", {"where": "here" if len(asked) == 1 else "there"})])
        return ModelResponse([ToolCallPart(info.output_tools[0].name, {"name": "x", "count": 3})])

    looked = []

    def look(where: str) -> Found:
        looked.append(where)
        if where == "here":
            raise ModelRetry("look elsewhere")
        return Found(name=where, count=1)

    tools = FunctionToolset([look], id="tools")
    durable = CeleriacDurability(name="finder")
    speaker = Agent(FunctionModel(model), output_type=Found, toolsets=[tools], capabilities=[durable])

    @driver.agent("ask", retries=1, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> dict[str, Any]:
        result = await speaker.run(request)
        if ctx.attempt == 1:
            raise Crash
        return result.output.model_dump()

    session = driver.start(step("a", "ask", "look"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == {"name": "x", "count": 3} and len(asked) == 3 and looked == ["here", "there"]


def test_outside_of_a_step_an_agent_runs_as_it_would_without() -> None:
    script = Script()
    speaker = Agent(FunctionModel(script), name="adder", capabilities=[CeleriacDurability()])
    speaker.tool_plain(name="add")(add_one)
    assert speaker.run_sync("x").output == "got [1, 2]"


def test_an_agent_that_a_tool_runs_is_part_of_the_call(driver: Driver) -> None:
    inner_asked = []

    def inner(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        inner_asked.append(1)
        return ModelResponse([TextPart("inner")])

    helper = Agent(FunctionModel(inner), name="inner", capabilities=[CeleriacDurability()])
    script = Script(1)
    speaker = Agent(FunctionModel(script), name="outer", capabilities=[CeleriacDurability()])

    @speaker.tool_plain
    async def add(n: int) -> str:
        return (await helper.run("go")).output

    @driver.agent("ask", retries=1, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        result = await speaker.run(request)
        if ctx.attempt == 1:
            raise Crash
        return result.output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "got ['inner']" and len(inner_asked) == 1


def test_a_tool_that_is_no_durable_call_may_make_some(driver: Driver) -> None:
    driver.agent("double")(lambda request, ctx: request * 2)
    script = Script(1)
    speaker = Agent(FunctionModel(script), name="caller", deps_type=object, capabilities=[CeleriacDurability()])

    @speaker.tool(metadata={"celeriac": False})
    async def add(run: RunContext[Any], n: int) -> int:
        return int(await run.deps.call("double", n + 21))

    @driver.agent("ask")
    async def ask(request: Any, ctx: Any) -> str:
        return (await speaker.run(request, deps=ctx)).output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "got [42]" and driver.states(session)["a/1-double"] == "done"


def test_a_paused_session_stops_between_two_calls_and_goes_on_there(driver: Driver) -> None:
    script, added = Script(3), []
    speaker = Agent(FunctionModel(script), name="adder", capabilities=[CeleriacDurability()])

    @speaker.tool_plain
    def add(n: int) -> int:
        added.append(n)
        if n == 1:
            session.pause()
        return n

    driver.agent("ask")(lambda request, ctx: speaker.run_sync(request).output)
    session = driver.start(step("a", "ask", "x"))
    driver.run(session)
    assert session.status == "paused" and added == [0, 1] and script.asked == 2
    assert driver.states(session)["a"] == "ready" and "step.paused" in driver.events(session)
    session.resume()
    assert driver.run_to_end(session) == "completed", session.error
    assert added == [0, 1, 2] and script.asked == 4 and session.result == "got [0, 1, 2]"
    assert session.steps()[0]["attempts"] == 1
