"""Messages to a session: answered in order by an agent with tools, and kept in the history."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Driver
from guard.doors import everything

from celeriac.errors import SessionError
from celeriac.orchestration.conversations import chat, sending
from celeriac.orchestration.conversations.registering import conversation
from celeriac.orchestration.conversations.sending import MessageResult
from celeriac.orchestration.session import Session
from celeriac.storage.histories import thinning
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

Answer = Callable[[list[ModelMessage], AgentInfo], ModelResponse]


def text(said: str) -> ModelResponse:
    return ModelResponse([TextPart(said)])


def call(tool: str, _id: str = "c1", **arguments: Any) -> ModelResponse:
    return ModelResponse([ToolCallPart(tool, arguments, tool_call_id=_id)])


def said_by(kind: type, messages: list[ModelMessage]) -> list[Any]:
    """The contents of all parts of one kind."""
    return [part.content for message in messages for part in message.parts if isinstance(part, kind)]


def echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return text(f"heard {said_by(UserPromptPart, messages)[-1]}")


def speak(driver: Driver, model: Answer, *tools: Any, name: str = "speaker", **options: Any) -> None:
    """Register a conversation with that model and those tools."""

    @conversation(name, stream=False, registry=driver.registry, **options)
    def make() -> Agent:
        return Agent(FunctionModel(model), name=name, instructions="Be brief.", tools=tools)


def say(driver: Driver, session: Session, words: str, iterations: int = 10, **more: Any) -> MessageResult:
    """Send a message and have it answered here."""
    name = sending.send(driver.engine, session.id, words, iterations, more.get("agent"), more.get("model"))
    deadline = time.monotonic() + 10
    while driver.states(session)[name] in ("ready", "blocked") and session.status == "active":
        if not driver.run(session):
            time.sleep(0.01)
        assert time.monotonic() < deadline
    return sending.answer_to(driver.engine, session.id, name, timeout=5)


def told(session: Session) -> list[tuple[str, Any]]:
    return [(entry.get("role"), entry.get("content")) for entry in session.history()]


@pytest.fixture
def session(driver: Driver) -> Session:
    return driver.sessions.create("talk", agent="speaker")


def test_a_message_is_answered_with_tools_and_all_of_it_is_in_the_history(driver: Driver, session: Session) -> None:
    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        found = said_by(ToolReturnPart, messages)
        return text(f"It is {found[-1]}.") if found else call("weather", city="Oslo")

    def weather(city: str) -> dict[str, Any]:
        return {"city": city, "degrees": 3}

    speak(driver, model, weather)
    result = say(driver, session, "How is ${query} in Oslo?")
    assert result.success and result.result == "It is {'city': 'Oslo', 'degrees': 3}." and result.error is None
    assert [one["call"] for one in result.steps] == ["model", "tool", "model"]
    assert result.steps[1] == {"call": "tool", "name": "weather", "arguments": {"city": "Oslo"}}
    assert told(session) == [
        ("system", "Be brief."),
        ("user", "How is ${query} in Oslo?"),
        ("assistant", None),
        ("tool", {"city": "Oslo", "degrees": 3}),
        ("assistant", result.result),
    ]
    assert session.history()[2]["tool_calls"] == [{"id": "c1", "name": "weather", "args": {"city": "Oslo"}}]
    assert session.status == "active"
    session.complete()
    assert session.status == "completed" and session.result["result"] == result.result


def test_the_whole_history_is_shown_and_the_system_prompt_is_stored_once(driver: Driver, session: Session) -> None:
    seen: list[Any] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append((said_by(UserPromptPart, messages), said_by(TextPart, messages), info.instructions))
        assert not said_by(SystemPromptPart, messages)
        return text(f"answer {len(seen)}")

    speak(driver, model)
    for number in (1, 2, 3):
        assert say(driver, session, f"question {number}").result == f"answer {number}"
    assert seen[-1] == (["question 1", "question 2", "question 3"], ["answer 1", "answer 2"], "Be brief.")
    assert [role for role, _ in told(session)].count("system") == 1 and len(told(session)) == 7
    assert [name for name in driver.states(session) if "/" not in name] == ["message:1", "message:2", "message:3"]


def test_a_branch_goes_on_from_what_was_said_above_it(driver: Driver, session: Session) -> None:
    seen: list[Any] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(said_by(UserPromptPart, messages))
        return text("yes")

    speak(driver, model)
    say(driver, session, "one")
    branch = session.branch("try")
    say(driver, branch, "two")
    say(driver, session, "three")
    assert seen == [["one"], ["one", "two"], ["one", "three"]]
    assert [said for role, said in told(branch) if role == "user"] == ["one", "two"]
    assert [role for role, _ in told(branch)].count("system") == 1


def test_what_was_pruned_does_not_hide_what_was_said_after_it(driver: Driver, session: Session) -> None:
    seen: list[Any] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(said_by(UserPromptPart, messages))
        return text("yes")

    speak(driver, model)
    for words in ("one", "two", "three"):
        say(driver, session, words)
    driver.engine.database.write(lambda tx: thinning.take_out(tx, session.id, [2, 3, 4]))
    say(driver, session, "four")
    assert seen[-1] == ["three", "four"]


def test_what_was_said_elsewhere_is_part_of_it(driver: Driver, session: Session) -> None:
    session.history.add("system", "Answer like a pirate.")
    session.add(user_request="Who sells cocoa?", agent="locator", response={"supplier": "Acme"})
    session.history.add("assistant", None, tool_calls=[{"id": "x", "name": "never", "args": {}}])

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        assert said_by(SystemPromptPart, messages) == ["Answer like a pirate."]
        assert said_by(UserPromptPart, messages) == ["Who sells cocoa?", "And sugar?"]
        assert "was not made" in said_by(ToolReturnPart, messages)[0]
        return text(said_by(TextPart, messages)[0])

    speak(driver, model)
    assert say(driver, session, "And sugar?").result == '{"supplier":"Acme"}'
    assert [role for role, _ in told(session) if role] == ["system", "assistant", "user", "assistant"]


def test_tools_that_are_called_together_are_each_called_once(driver: Driver, session: Session) -> None:
    made: list[int] = []

    def tool(n: int) -> int:
        made.append(n)
        return n * n

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        found = said_by(ToolReturnPart, messages)
        if not found:
            return ModelResponse([ToolCallPart("tool", {"n": n}, tool_call_id=f"c{n}") for n in (3, 4, 5)])
        failed.append(1)
        if len(failed) == 1:
            raise ModelHTTPError(500, "fake", "once")
        return text(str(found))

    failed: list[int] = []
    speak(driver, model, tool, retries=1, backoff=0.01)
    assert say(driver, session, "go").result == "[9, 16, 25]" and sorted(made) == [3, 4, 5]
    assert [content for role, content in told(session) if role == "tool"] == [9, 16, 25]


@pytest.mark.parametrize("place", ["memory:", "file"])
def test_a_history_elsewhere_is_written_too(make_driver: Callable[..., Driver], tmp_path: Path, place: str) -> None:
    driver = make_driver(history_url=place if place != "file" else f"file://{tmp_path}/talks")
    session = driver.sessions.create("talk", agent="speaker")
    speak(driver, echo)
    assert say(driver, session, "one").success and say(driver, session, "two").result == "heard two"
    assert [content for _, content in told(session)] == ["Be brief.", "one", "heard one", "two", "heard two"]


def test_a_message_may_name_another_model(driver: Driver, session: Session) -> None:
    speak(driver, echo)
    assert say(driver, session, "one", model="test").result == "success (no tool calls)"
    assert say(driver, session, "two").result == "heard two"


def test_a_window_of_the_history_is_shown_where_one_is_set(
    make_driver: Callable[..., Driver],
) -> None:
    driver = make_driver(window_entries=3)
    session = driver.sessions.create("talk", agent="speaker")
    seen: list[list[str]] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(said_by(UserPromptPart, messages))
        return text("well")

    speak(driver, model)
    for number in range(4):
        say(driver, session, f"q{number}")
    assert seen[-1] == ["q2", "q3"] and session.history.count() == 9


def test_a_tool_that_raises_is_told_to_the_model_and_not_called_again(driver: Driver, session: Session) -> None:
    tries: list[int] = []

    def broken() -> str:
        tries.append(1)
        raise OSError("the disk is on fire")

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        parts = [part for m in messages for part in m.parts if isinstance(part, ToolReturnPart)]
        return text(f"sorry: {parts[0].content}") if parts else call("broken")

    speak(driver, model, broken)
    result = say(driver, session, "go")
    assert result.success and "OSError: the disk is on fire" in result.result and tries == [1]
    assert "on fire" in result.steps[1]["error"]
    assert [e["failed"] for e in session.history() if e["role"] == "tool"] == [True]


def test_a_tool_that_does_not_exist_is_told_to_the_model(driver: Driver, session: Session) -> None:
    asked: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(1)
        return call("nothing", f"c{len(asked)}") if len(asked) == 1 else text("well then")

    speak(driver, model)
    result = say(driver, session, "go")
    assert result.success, result.error
    assert [role for role, _ in told(session)] == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(("failures", "success"), [(2, True), (3, False)])
def test_a_model_that_fails_is_asked_again_as_retries_say_and_then_the_message_fails_alone(
    driver: Driver, session: Session, failures: int, success: bool
) -> None:
    asked: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if said_by(UserPromptPart, messages)[-1] == "again":
            return text("here again")
        if not said_by(ToolReturnPart, messages):
            return call("tool")
        asked.append(1)
        if len(asked) <= failures:
            raise ModelHTTPError(503, "fake", "on fire")
        return text("well")

    made: list[int] = []
    speak(driver, model, lambda_tool(made), retries=2, backoff=0.01)
    result = say(driver, session, "go")
    assert result.success is success and made == [1] and len(asked) == 3
    assert success or "503" in result.error
    assert session.status == "active" and session.error is None
    assert say(driver, session, "again").result == "here again"


def lambda_tool(made: list[int]) -> Callable[[], str]:
    def tool() -> str:
        made.append(1)
        return "done"

    return tool


def test_a_request_that_the_service_refuses_is_not_made_again(driver: Driver, session: Session) -> None:
    asked: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(1)
        raise ModelHTTPError(401, "fake", "no key")

    speak(driver, model, retries=5, backoff=0.01)
    result = say(driver, session, "go")
    assert not result.success and "401" in result.error and asked == [1]
    assert told(session) == [("system", "Be brief."), ("user", "go")]


def test_the_limit_of_requests_ends_a_message_without_success(driver: Driver, session: Session) -> None:
    numbers = iter(range(100))

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return call("tool", f"c{next(numbers)}")

    made: list[int] = []
    speak(driver, model, lambda_tool(made))
    result = say(driver, session, "go", iterations=3)
    assert not result.success and "after 3 requests" in result.error and result.result is None
    assert len(made) == 3 and len(result.steps) == 6
    assert session.status == "active"


def test_messages_that_are_sent_at_once_are_answered_in_order(driver: Driver, session: Session) -> None:
    speak(driver, echo)
    engine = driver.engine
    names = [sending.send(engine, session.id, f"m{number}", 10, None, None) for number in range(3)]
    assert names == ["message:1", "message:2", "message:3"]
    assert list(driver.states(session).values()) == ["ready", "blocked", "blocked"]
    driver.run(session)
    assert [content for _, content in told(session)[1:]] == ["m0", "heard m0", "m1", "heard m1", "m2", "heard m2"]
    assert [sending.answer_to(engine, session.id, name).result for name in names] == [
        "heard m0",
        "heard m1",
        "heard m2",
    ]


def test_a_message_that_died_does_not_hold_up_the_next(make_driver: Callable[..., Driver]) -> None:
    driver = make_driver(max_attempts=1)
    session = driver.sessions.create("talk", agent="speaker")
    speak(driver, echo)
    engine = driver.engine
    first, second = (sending.send(engine, session.id, f"m{number}", 10, None, None) for number in range(2))
    assert engine.claim(session.id) is not None  # by a worker that says no more
    from celeriac.orchestration import sweeping

    time.sleep(driver.settings.lease_seconds + 0.1)
    assert sweeping.sweep(engine).dead == 1
    driver.run(session)
    lost = sending.answer_to(engine, session.id, first)
    assert not lost.success and "was lost" in lost.error
    assert sending.answer_to(engine, session.id, second).result == "heard m1"
    assert session.status == "active" and session.error is None


def test_a_pause_stops_a_message_between_two_calls_and_resume_goes_on(driver: Driver, session: Session) -> None:
    made: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = said_by(ToolReturnPart, messages)
        asked.append(len(done))
        return text("done") if len(done) == 2 else call("tool", f"c{len(done)}")

    asked: list[int] = []

    def tool() -> str:
        made.append(1)
        if len(made) == 1:
            session.pause()
        return "x"

    speak(driver, model, tool)
    result = say(driver, session, "go")
    assert not result.success and "paused" in result.error and made == [1]
    session.resume()
    driver.run(session)
    assert sending.answer_to(driver.engine, session.id, result.message).success
    assert len(made) == 2 and asked == [0, 1, 2] and session.status == "active"


def test_a_cancelled_session_stops_a_message_between_two_calls(driver: Driver, session: Session) -> None:
    asked: list[int] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(1)
        return call("tool", f"c{len(asked)}")

    def tool() -> str:
        session.cancel()
        return "x"

    speak(driver, model, tool)
    result = say(driver, session, "go")
    assert not result.success and "cancelled" in result.error and asked == [1]
    with pytest.raises(SessionError, match="is cancelled; messages can be sent"):
        say(driver, session, "more")


def test_a_paused_session_takes_messages_and_a_resumed_one_stays_open(driver: Driver, session: Session) -> None:
    speak(driver, echo)
    assert say(driver, session, "one").success
    session.pause()
    waiting = say(driver, session, "two")
    assert not waiting.success and "resumed" in waiting.error
    session.resume()
    driver.run(session)
    assert sending.answer_to(driver.engine, session.id, waiting.message).result == "heard two"
    session.pause()
    session.resume()
    assert session.status == "active"


def test_a_message_beside_a_plan_does_not_keep_its_session_open(driver: Driver) -> None:
    from celeriac.orchestration.plans import step

    driver.agent("work")(lambda request, ctx: "worked")
    speak(driver, echo)
    session = driver.start(step("a", "work"))
    name = sending.send(driver.engine, session.id, "hello", 10, "speaker", None)
    assert driver.run_to_end(session) == "completed"
    assert sending.answer_to(driver.engine, session.id, name).result == "heard hello"
    assert session.result == "worked"


def test_who_sends_waits_for_the_answer(driver: Driver, session: Session) -> None:
    speak(driver, echo)
    events: list[str] = []
    found: list[MessageResult] = []
    sender = threading.Thread(
        target=lambda: found.append(session.send_message("hi", timeout=10, listen=lambda e: events.append(e.type)))
    )
    sender.start()
    while sender.is_alive():
        driver.run(session)
        time.sleep(0.01)
    assert found[0].result == "heard hi" and events[0] == "message.sent" and events[-1] == "step.done"
    with pytest.raises(TimeoutError, match="message:2"):
        session.send_message("hi", timeout=0.05)


def test_what_is_said_goes_through_the_rules_and_under_seal(make_driver: Callable[..., Driver], tmp_path: Path) -> None:
    keyfile.write(tmp_path / "keys.toml", Keys("a", {}).with_key("a", new_key()))
    rules = {"texts": ["api-keys"], "fields": [{"path": "pin", "action": "encrypt"}]}
    driver = make_driver(encrypt="all", keys_file=str(tmp_path / "keys.toml"), guard_rules=rules)
    session = driver.sessions.create("talk", agent="speaker")
    secret, seen = "sk-" + "a1B2" * 8, []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(str(messages))
        found = said_by(ToolReturnPart, messages)
        return text(f"quokka {found[-1]['pin']}") if found else call("tool", pin="pin of ana")

    def tool(pin: str) -> dict[str, str]:
        return {"pin": pin, "note": f"wombat {secret}"}

    speak(driver, model, tool)
    for _ in range(2):
        result = say(driver, session, f"wallaby {secret}")
        assert result.result == "quokka pin of ana", result.error
    assert secret not in "".join(seen) and "pin of ana" in seen[-1]
    written = str(everything(driver.engine.database))
    assert not [word for word in ("wallaby", "quokka", "wombat", "pin of ana", secret) if word in written]
    said = str(session.history())
    assert "wallaby" in said and secret not in said and "'$sealed'" in said


@pytest.mark.parametrize(
    ("words", "iterations", "agent", "said"),
    [
        ("  ", 10, None, "empty"),
        ("x", 0, None, "max_iterations is 0"),
        ("x", True, None, "max_iterations"),
        ("x", 10, "work", "answers no messages; there are: speaker"),
        ("x", 10, "nobody", "answers no messages"),
    ],
)
def test_what_is_no_message_is_refused(
    driver: Driver, session: Session, words: str, iterations: Any, agent: str | None, said: str
) -> None:
    speak(driver, echo)
    driver.agent("work")(lambda request, ctx: None)
    with pytest.raises(SessionError, match=said):
        session.send_message(words, iterations, agent=agent)


@pytest.mark.parametrize(
    "given", [{"timeout": "x"}, {"timeout": True}, {"timeout": float("nan")}, {"listen": "x"}], ids=str
)
def test_who_cannot_wait_for_an_answer_has_sent_nothing(
    driver: Driver, session: Session, given: dict[str, Any]
) -> None:
    speak(driver, echo)
    with pytest.raises(SessionError, match="; allowed: "):
        session.send_message("hello", **given)
    assert session.steps() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "guide.md").write_text("# Guide\n\nThe visibility timeout of a queue is one hour.\n")
    (tmp_path / "secret.md").write_text("The visibility timeout is a secret.\n")
    return docs


def test_without_a_model_the_documents_answer(driver: Driver, folder: Path) -> None:
    chat.register(driver.registry)
    session = driver.sessions.create("talk", file_paths=[str(folder)])
    result = say(driver, session, "What is the visibility timeout?")
    assert result.success and "is one hour" in result.result and "[1] guide.md:3" in result.result
    system, user, answer = told(session)
    assert "No model is set" in system[1] and user[1].startswith("What is") and answer == ("assistant", result.result)
    nothing = driver.sessions.create("talk")
    failed = say(driver, nothing, "hello")
    assert not failed.success and "CELERIAC_MODEL" in failed.error and "--folder" in failed.error


def test_with_a_model_the_chat_reads_the_folder_by_tools(driver: Driver, folder: Path) -> None:
    chat.register(driver.registry)
    session = driver.sessions.create("talk", file_paths=[str(folder)])
    result = say(driver, session, "What is the visibility timeout?", model="test")  # a model that calls all tools once
    assert result.success, result.error
    assert [one["name"] for one in result.steps if one["call"] == "tool"] == ["list_files", "search", "read"]
    assert "Answer from the documents" in session.history()[0]["content"]
    assert "".join(piece["text"] for piece in session.partials()["celeriac.chat"]) == result.result


def test_a_model_that_cannot_be_had_is_one_clear_error(
    driver: Driver, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.register(driver.registry)
    result = say(driver, session, "hello", agent="celeriac.chat", model="no-such-maker:x")
    assert not result.success and "no-such-maker" in result.error
    assert told(session)[-1] == ("user", "hello") and driver.started.count(result.message) == 1
    monkeypatch.setitem(sys.modules, "celeriac.orchestration.conversations.answering", None)
    missing = say(driver, session, "hello", agent="celeriac.chat", model="openai:x")
    assert not missing.success and "celeriac[llm]" in missing.error and session.status == "active"


def test_the_tools_of_the_chat_read_the_folder_and_nothing_else(folder: Path, driver: Driver) -> None:
    from types import SimpleNamespace

    from celeriac.orchestration.conversations.folder import FolderTools

    tools = FolderTools([str(folder)])
    run: Any = SimpleNamespace(deps=SimpleNamespace(check=lambda: None, progress=lambda *_: None))
    assert tools.list_files("*.md") == {"paths": ["guide.md"], "left_out": 0}
    (found,) = tools.search(run, "visibility timeout")
    assert found["path"] == "guide.md" and "one hour" in found["text"]
    assert tools.read("guide.md", 3, 1) == {"text": "3: The visibility timeout of a queue is one hour.", "lines": 3}
    for path in ("../secret.md", str(folder.parent / "secret.md"), "none.md"):
        assert "no document" in tools.read(path)["error"]
