"""Sending a message to a session, and waiting for its answer. Each message is a step; those of a session run one after
the other, whoever sends them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import SessionError, SessionNotFound
from ...storage import events, graph, messages, results, serial, sessions
from ...storage.database import Transaction
from ...storage.messages import MESSAGE, PHASE
from ...storage.steps import FINAL
from ..agents import Agent
from ..engine import Engine
from ..guard import doors
from ..plans import Step
from ..rows import Rows
from ..sizes import check_requests, check_text
from ..states import SESSION_ENDED
from ..streams import Follower, Waker
from ..turn import Turn
from .registering import CHAT

#: Model requests for one message, at most.
MOST_ITERATIONS: Final = 1000
_MOST_CHARACTERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class MessageResult:
    """What became of a message.

    `success`: whether it was answered. `result`: the answer (text, or what the agent's output type is), None without
    one. `error`: why there is none. `steps`: the model requests and tool calls that were made, in order, as
    `{"call": "model" or "tool", "name", ...}`. `message`: the name of its step in the session.
    """

    success: bool
    result: Any
    steps: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    message: str = ""


def is_conversation(agent: Agent) -> bool:
    """Whether an agent answers messages: those that `conversation` registers do."""
    return bool(getattr(agent.function, "answers_messages", False))


def check_message(text: str) -> None:
    """Raise SessionError for what is no message."""
    check_text("message", text, _MOST_CHARACTERS)
    if not text.strip():
        raise SessionError("a message is empty; allowed: text")


def check_waiting(timeout: float | None, listen: Callable[[events.Event], None] | None) -> None:
    """Raise SessionError for what nobody can wait with, before a message is sent."""
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout == timeout  # no NaN
    if timeout is not None and not is_number:
        raise SessionError(f"timeout is {timeout!r:.60}; allowed: seconds, or None to wait for ever")
    if listen is not None and not callable(listen):
        raise SessionError(f"listen is {listen!r:.60}; allowed: a function of an event")


def check_answers(engine: Engine, name: str) -> None:
    """Raise SessionError for an agent that answers no messages."""
    found = engine.registry.find(name) if isinstance(name, str) else None
    if found is None or not is_conversation(found):
        known = [one for one in engine.registry.names() if is_conversation(engine.registry.get(one))]
        raise SessionError(f"agent {name!r:.100} answers no messages; there are: {', '.join(known) or 'none'}")


def send(engine: Engine, session_id: str, text: str, iterations: int, agent: str | None, model: str | None) -> str:
    """Add a message to a session, behind those that were not answered yet; gives the name of its step.

    Raises SessionError for what is no message, and for a session that has ended.
    """
    check_message(text)
    if not isinstance(iterations, int) or isinstance(iterations, bool) or not 1 <= iterations <= MOST_ITERATIONS:
        raise SessionError(f"max_iterations is {iterations!r:.60}; allowed: 1 to {MOST_ITERATIONS:,}")
    request = {"text": text, "max_iterations": iterations}
    if model:
        check_text("model", model, 500)
        request["model"] = model
    name = agent or engine.database.read(lambda tx: _agent_of(tx, session_id))
    check_answers(engine, name)
    return _sent(engine, session_id, Step(name=MESSAGE, agent=name, request=request))


def _agent_of(tx: Transaction, session_id: str) -> str:
    row = sessions.get(tx, session_id)
    if row is None:
        raise SessionNotFound(f"no session {session_id!r}")
    return str(row["agent"] or CHAT)


def _sent(engine: Engine, session_id: str, one: Step) -> str:
    check_requests([one], engine.settings.max_request_bytes)
    guarded = engine.guard.apply(one.request, doors.place_of(session_id))
    body = serial.encode({"request": guarded, "literal": True}, what="message").decode()

    def work(turn: Turn) -> tuple[str, list[events.Hint]]:
        hot = turn.hot
        if hot.status not in ("active", "paused"):
            raise SessionError(
                f"session {session_id} is {hot.status}; messages can be sent to one that is active or paused"
            )
        before = messages.last(turn.tx, session_id)
        number = int(before.name.rpartition(":")[2]) + 1 if before else 1
        rows = Rows(
            engine.registry,
            engine.settings.queue,
            hot.total_steps,
            epoch=hot.epoch_floor,
            held=turn.held,
            phase=PHASE,
        )
        # No step of a plan can have a name with a colon.
        name = f"{MESSAGE}:{number}"
        rows.add([Step(name=name, agent=one.agent)])
        rows.steps[0]["kind"] = MESSAGE
        rows.inputs = [(rows.steps[0]["number"], body)]
        if before is not None and before.status not in FINAL:
            rows.wait_for(before.number, name)
        elif before is not None:
            rows.edges.append((before.number, rows.steps[0]["number"]))
        turn.event("message.sent", step=name, component="conversation", data={"agent": one.agent})
        settling = engine.settling(turn)
        settling.insert(rows)
        return name, engine.hints.write(turn, settling)

    name, hints = engine.in_turn(session_id, work)
    engine.hints.publish(hints)
    return name


def answer_to(
    engine: Engine,
    session_id: str,
    name: str,
    *,
    timeout: float | None = None,
    listen: Callable[[events.Event], None] | None = None,
    waker: Waker | None = None,
    check: Callable[[], None] = lambda: None,
    beyond: int = 0,
) -> MessageResult:
    """Wait until a message was answered, or its session was paused or has ended; gives what became of it.

    `listen` is given each event of the message's step and its calls, live, after number `beyond`. Raises TimeoutError
    after `timeout` seconds (the message is answered all the same), and what `check` raises, which is called before each
    look.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with Follower(engine, session_id, waker) as follower:
        while True:
            check()
            status, step, found = engine.database.read(lambda tx: _look(tx, session_id, name, beyond))  # noqa: B023
            for event in found:
                beyond = event.seq
                if listen is not None and event.step and (event.step == name or event.step.startswith(f"{name}/")):
                    listen(event)
            if found:
                continue
            if step.status in FINAL or status in SESSION_ENDED or (status == "paused" and step.status != "running"):
                return engine.database.read(lambda tx: _outcome(tx, engine, session_id, step, status))  # noqa: B023
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{name} of session {session_id} is not answered after {timeout:g} s")
            follower.wait(beyond, left)


def _look(tx: Transaction, session_id: str, name: str, beyond: int) -> tuple[str, graph.Found, list[events.Event]]:
    """How the session and the message stand, and what happened since; in this order, so that no event slips between."""
    found, step = sessions.status(tx, session_id), graph.find(tx, session_id, name)
    if found is None or step is None:
        raise SessionNotFound(f"session {session_id} was deleted or restored while {name} was answered")
    return found[0], step, events.since(tx, session_id, beyond)


def _outcome(tx: Transaction, engine: Engine, session_id: str, step: graph.Found, status: str) -> MessageResult:
    if step.status == "done":
        data = results.load(tx, engine.blobs, session_id, step.number, step.result_epoch)
        return MessageResult(**doors.opened(engine.guard, data, session_id), message=step.name)
    if step.status in FINAL:
        why = next((one["error"] for one in graph.overview(tx, session_id) if one["number"] == step.number), None)
        return MessageResult(False, None, error=why or f"{step.name} is {step.status}", message=step.name)
    going = "; it goes on when the session is resumed" if status == "paused" else ""
    return MessageResult(False, None, error=f"the session is {status}{going}", message=step.name)
