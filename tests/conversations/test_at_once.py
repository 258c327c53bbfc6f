"""Tools that a model calls together run at once, and are durable all the same: what ended is not called again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from driver import Driver

from celeriac.errors import CallMismatch
from celeriac.orchestration.lanes import Places
from celeriac.orchestration.plans import step
from celeriac.storage.calls import ONCE, Begun

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from celeriac.llm import CeleriacDurability


class Crash(Exception):
    """Ends an attempt."""


class Together:
    """A model that calls tools together, in rounds, then tells what they gave."""

    def __init__(self, *rounds: list[ToolCallPart]) -> None:
        self.rounds = rounds
        self.asked = 0

    def __call__(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.asked += 1
        at = sum(isinstance(message, ModelResponse) for message in messages)
        if at < len(self.rounds):
            return ModelResponse([*self.rounds[at]])
        gave = [p.content for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
        return ModelResponse([TextPart(f"got {gave}")])


def call(name: str, id_: str, **arguments: Any) -> ToolCallPart:
    return ToolCallPart(name, arguments, tool_call_id=id_)


def speaker_of(model: Together, **options: Any) -> Agent[None, str]:
    return Agent(FunctionModel(model), name="speaker", capabilities=[CeleriacDurability(**options)])


@pytest.mark.parametrize(
    ("options", "at_once"), [({}, True), ({"parallel_tools": False}, False), ({"outer": "sequential"}, False)]
)
def test_tools_that_are_called_together_run_at_once_unless_that_is_not_wanted(
    driver: Driver, options: dict[str, Any], at_once: bool
) -> None:
    outer = options.get("outer", "parallel")
    known = {name: value for name, value in options.items() if name != "outer"}
    speaker = speaker_of(Together([call("wait", "c0", n=0), call("wait", "c1", n=1)]), **known)
    began: list[float] = []

    @speaker.tool_plain
    async def wait(n: int) -> int:
        began.append(time.monotonic())
        await asyncio.sleep(0.5)
        return n

    @driver.agent("ask")
    async def ask(request: Any, ctx: Any) -> str:
        start = time.monotonic()
        with speaker.parallel_tool_call_execution_mode(outer):
            output = (await speaker.run(request)).output
        began.append(time.monotonic() - start)
        return output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "got [0, 1]" and (began[-1] < 0.9) is at_once
    names = [name for name in driver.states(session) if name != "a"]
    assert names == ["a/0-model", "a/1-tool wait", "a/2-tool wait", "a/3-model"]


@pytest.mark.parametrize("quick", [0, 1])
def test_of_tools_at_once_those_that_ended_are_not_called_again(driver: Driver, quick: int) -> None:
    model = Together([call("take", "c0", n=0), call("take", "c1", n=1)], [call("take", "c0", n=2)])
    speaker, called, fail = speaker_of(model), [], {1 - quick}

    @speaker.tool_plain
    async def take(n: int) -> int:
        called.append(n)
        if n in fail:
            fail.discard(n)
            await asyncio.sleep(0.05)
            raise Crash
        return n + 10

    @driver.agent("ask", retries=3, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        output = (await speaker.run(request)).output
        if ctx.attempt < 4:
            raise Crash
        return output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    # The model gives an id twice: the second call is another one.
    assert session.result == "got [10, 11, 12]" and model.asked == 3
    assert called == [0, 1, 1 - quick, 2]


def test_calls_inside_of_tools_at_once_are_known_again_whoever_is_quicker(driver: Driver) -> None:
    model = Together([call("walk", "c0", n=0), call("walk", "c1", n=1), call("plain", "c2")])
    speaker, made = speaker_of(model), []
    inner = Agent(FunctionModel(Together([call("own", "c0")])), name="inner", capabilities=[CeleriacDurability()])
    inner.tool_plain(lambda: 7, name="own")
    contexts: list[Any] = []
    runs: list[set[str]] = [set(), set()]
    driver.agent("other")(lambda request, ctx: ctx.once("below", lambda: request * 2))

    def go(n: int, place: int) -> list[int]:
        made.append((n, place))
        return [n, place]

    @speaker.tool_plain(metadata={"celeriac": False})
    async def walk(n: int) -> list[Any]:
        ctx, gave = contexts[-1], []
        for place in range(3):
            await asyncio.sleep(0.02 * ((n + ctx.attempt + place) % 2))  # another order in each attempt
            gave.append(await ctx.once("go", go, n, place))
        gave.append(await ctx.call("other", n))
        ran = await inner.run("x")
        runs[n].add(ran.run_id)
        gave.append(ran.output)
        if ctx.attempt == 1 and n == 0:
            raise Crash
        return gave

    speaker.tool_plain(lambda: "plain", name="plain")

    @driver.agent("ask", retries=3, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        contexts.append(ctx)
        output = (await speaker.run(request)).output
        if ctx.attempt < 4:
            raise Crash
        return output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    walked = [[[n, 0], [n, 1], [n, 2], 2 * n, "got [7]"] for n in range(2)]
    assert session.result == f"got {[*walked, 'plain']}"
    assert sorted(made) == [(n, place) for n in range(2) for place in range(3)]
    assert model.asked == 2
    assert [len(ids) for ids in runs] == [1, 1] and runs[0] != runs[1]


def begun(position: int, mark: str, lane: str) -> Begun:
    return Begun(position, position, "n", ONCE, "", json.dumps({"call": mark, "lane": lane}))


def test_calls_in_lanes_share_positions_whoever_comes_first() -> None:
    before = [begun(0, "b", "/b#0/0"), begun(2, "a", "/a#0/1")]
    places = Places("s", lambda first: [one for one in before if one.position >= first], "{}/{}".format)
    other = Places("t", lambda first: [], "{}/{}".format)
    with places.lane("a"):
        one = places.next(ONCE, "n", "new")
        assert (one.position, one.lane, one.known) == (1, "/a#0/0", None)
        assert places.next(ONCE, "n", "a") == (2, "/a#0/1", before[1])
        assert other.next(ONCE, "n", "x").lane is None  # calls of another agent that is called there
        with places.lane("c"):
            assert places.next(ONCE, "n", "c") == (3, "/a#0/c#0/0", None)
    with places.lane("b"), pytest.raises(CallMismatch):
        places.next(ONCE, "n", "another one")
    assert places.next(ONCE, "n", "m") == (4, None, None)


def test_a_retry_that_one_of_them_asks_for_is_recorded_with_the_others(driver: Driver) -> None:
    model = Together([call("try_", "c0", n=0), call("try_", "c1", n=1)], [call("try_", "c2", n=2)])
    speaker, called = speaker_of(model), []

    @speaker.tool_plain
    async def try_(n: int) -> int:
        called.append(n)
        await asyncio.sleep(0.02 * n)
        if n == 0:
            raise ModelRetry("another one")
        return n

    @driver.agent("ask", retries=2, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        output = (await speaker.run(request)).output
        if ctx.attempt < 3:
            raise Crash
        return output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    assert "1, 2]" in session.result and called == [0, 1, 2] and model.asked == 3


def test_a_run_that_was_recorded_before_tools_ran_at_once_goes_on(driver: Driver) -> None:
    model = Together([call("take", "c0", n=0), call("take", "c1", n=1)])
    speakers = [speaker_of(model, parallel_tools=False), speaker_of(model)]
    called: list[int] = []

    async def take(n: int) -> int:
        called.append(n)
        if len(called) == 2:
            raise Crash
        return n

    for one in speakers:
        one.tool_plain(take)

    @driver.agent("ask", retries=3, backoff=0.001)
    async def ask(request: Any, ctx: Any) -> str:
        with pytest.MonkeyPatch.context() as patch:
            if ctx.attempt == 1:
                patch.setattr(CeleriacDurability, "wrap_tool_execute", without_a_lane)
            return (await speakers[ctx.attempt > 1].run(request)).output

    session = driver.start(step("a", "ask", "x"))
    assert driver.run_to_end(session) == "completed", session.error
    assert session.result == "got [0, 1]" and called == [0, 1, 1]


async def without_a_lane(self: Any, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
    return await handler(args)
