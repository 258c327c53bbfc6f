"""What an agent is given beside its request: progress, partial results, memory and state, a logger, and a way to be
stopped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import CallFailed, StepCancelled, StepTimeout, TooLarge
from ..storage import serial
from ..storage.database import Transaction
from ..storage.histories.protocol import Item
from ..storage.states.protocol import Origin
from . import attached
from .attached import Attached
from .calls import Calls
from .engine import Engine, Work
from .guard.access import Caller, StateDoor
from .guard.doors import place_of
from .guard.logs import guarded
from .memory.memory import PersistentAgentState
from .pausing import give_way
from .session import Session
from .state.opened import bound
from .state.scopes import Scope
from .state.state import State
from .state.stepstate import Held, StepState

#: A partial result may be this large, as JSON in bytes.
MOST_PARTIAL_BYTES = 256 * 1024
#: So many partial results of one step may wait to be written; `ctx.partial` waits while there are more.
MOST_PARTIALS = 1000


#: The context of the step whose agent runs here.
current: ContextVar[Context | None] = ContextVar("celeriac_context", default=None)


@dataclass(frozen=True, slots=True)
class SessionView:
    """The session that a step belongs to."""

    id: str
    query: str
    user: str


class Context:
    """The second argument of an agent.

    `agent`, `step`, `attempt` (from 1), `session`, `permissions` (what the agent was granted), `key` (an idempotency
    key for services outside: the same in each attempt of this step), `correlation_id`, `logger`.
    """

    def __init__(
        self,
        engine: Engine,
        work: Work,
        permissions: frozenset[str],
        deadline: float | None,
        flush: Callable[[], None],
        make: Callable[[Work, Context], None] | None,
        caller: Context | None = None,
    ) -> None:
        c = work.claimed
        self.agent = c.agent
        self.step = c.name
        self.attempt = c.attempts
        self._session = SessionView(*work.session[:3])
        self.correlation_id = work.session[3]
        self.permissions = permissions
        self.max_request_bytes = engine.settings.max_request_bytes
        self._engine = engine
        self._work = work
        self._deadline = deadline
        self._flush = flush
        self._make = make
        self._caller = caller
        self._calls: Calls | None = None
        self._stopped = threading.Event()
        self._timed_out = False
        self._logger: logging.LoggerAdapter[logging.Logger] | None = None
        self._state: StepState | None = None

    @property
    def session(self) -> SessionView:
        """The session that the step belongs to. What an agent answers that has looked at it is not cached."""
        self._work.private = True
        return self._session

    @property
    def key(self) -> str:
        """An idempotency key for services outside: the same in each attempt of this step. As `session`, not cached."""
        self._work.private = True
        return self._work.key

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry `session`, `step` and `correlation_id`."""
        if self._logger is None:
            extra = {"session": self._session.id, "step": self.step, "correlation_id": self.correlation_id}
            self._logger = logging.LoggerAdapter(guarded(logging.getLogger(f"celeriac.agent.{self.agent}")), extra)
        return self._logger

    def progress(self, part: float, task: str = "") -> None:
        """Say how far the step is (0..1) and what it does. Never fails and never waits; only the newest is kept."""
        part = float(part)
        self._work.progress = min(max(part, 0.0), 1.0) if part == part else 0.0  # NaN: nothing of nothing is done
        self._work.task = serial.storable(self._engine.guard.text(str(task))[:500]) if task else None

    def partial(self, value: Any) -> None:
        """Hand out a partial result (JSON-able, at most 256 KiB). It is recorded in order; listeners get it live."""
        value = self._engine.guard.apply(value, place_of(self._work.session_id))
        text = serial.encode(value, what=f"partial result of {self.step}")
        if len(text) > MOST_PARTIAL_BYTES:
            raise TooLarge(
                f"partial result of {self.step} has {len(text)} bytes; at most {MOST_PARTIAL_BYTES} are allowed"
            )
        self._work.partials.append(text.decode())
        if len(self._work.partials) >= MOST_PARTIALS:
            self._flush()

    @property
    def memory(self) -> PersistentAgentState:
        """What this agent keeps in this session: what one step leaves there, the next step of the agent finds.

        A mapping, with `history`, `config`, `tools` and more beside. Changes are recorded with the step's result, in
        the same transaction, and only if it is recorded.
        """
        self._work.private = True
        return self._engine.agent_state(self._work)

    @property
    def state(self) -> StepState:
        """Keyed state: the scope of this agent in all sessions; `of("workflow:demo")` gives another one.

        Where state lives in the database of the sessions, changes are recorded with the step's result, or not at all.
        """
        self._work.private = True
        if self._state is None:
            state, again = self._keyed_state()
            origin = Origin(correlation_id=self.correlation_id, session_id=self._session.id, step=self.step)
            self._work.held = Held(state, origin, again)
            self._state = StepState(state, Scope.agent(self.agent), self._work.held, origin)
        return self._state

    @property
    def attached(self) -> list[Attached]:
        """The sessions that this one has attached, to be read as its user may. As `session`, not cached."""
        self._work.private = True
        _, _, user, _, tenant = self._work.session
        caller = Caller(user, tenant)
        return [
            Attached(Session(self._engine, one, caller=caller)) for one in attached.ids(self._engine, self._session.id)
        ]

    def call(self, agent: str, request: Any = None, *, name: str | None = None) -> Any:
        """Have another agent answer a request, once: a durable call. Gives its data; in an async agent, await it.

        The call is a step of its own that this worker makes at once. When this agent runs again, after a crash or a
        retry, a call that has ended is not made again, and gives what is recorded. Calls are known by their order, so
        make the same ones in the same order each time. `name` is shown; the agent's name if left out.

        Raises CallFailed when the agent has failed for good, CallMismatch for another call than was recorded,
        PlanError for an agent that nobody knows.
        """
        return self._made().call(agent, request, name)

    def once(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function and record what it returns (JSON-able), once: a durable call. In an async agent, await it.

        When this agent runs again, the recorded value is given, and the function is not called. It may be called again
        if the worker dies before it is recorded. Raises what the function raises, and CallMismatch as `call` does;
        arguments that are JSON count as part of the call.
        """
        return self._made().once(name, function, args, kwargs)

    async def once_told(
        self, name: str, function: Callable[[], Any], told: Callable[[Any], Sequence[Item]] | None
    ) -> Any:
        """As `once` in an async agent; what `told(value)` gives is appended to the session's history where the value is
        recorded, in the same transaction if the place can do that.
        """
        return await self._made().once_told(name, function, told)

    def lane(self, name: str) -> AbstractContextManager[None]:
        """Let durable calls that are made within have an order of their own, beside those of other lanes: for what
        runs at once.
        """
        return self._made().places.lane(name)

    @property
    def lane_name(self) -> str:
        """The name of the lane in which this is asked; empty outside of all."""
        return self._calls.places.lane_name if self._calls is not None else ""

    @property
    def call_key(self) -> str:
        """As `key`, for names within calls, which are recorded and shared with nobody."""
        return self._work.key

    @property
    def may_retry(self) -> bool:
        """Whether there is another attempt if this one raises."""
        return self._work.claimed.failures < self._work.claimed.retries

    @property
    def behind(self) -> tuple[Engine, str]:
        """The engine and the id of the session, for agents of our own."""
        return self._engine, self._work.session_id

    def give_way(self) -> None:
        """Raise as `check` does, and Paused if the session is known to have been paused: the step is ready again then,
        and goes on from its recorded calls when the session is resumed. A call of another step goes on.
        """
        self.check()
        if self._calls is not None and self._calls.held and not self._work.inline:
            give_way(self._engine, self._work)

    def _made(self) -> Calls:
        if self._calls is None:
            make = self._make
            if make is None:
                raise CallFailed("an answer that is made anew in the background cannot make durable calls")
            self._calls = Calls(self._engine, self._work, lambda work: make(work, self), self.check)
        return self._calls

    @property
    def is_stopped(self) -> bool:
        """Whether the step was told to stop, or the one that calls it."""
        return self._stopped.is_set() or (self._caller is not None and self._caller.is_stopped)

    def _keyed_state(self) -> tuple[State, Callable[[Transaction, str], None] | None]:
        """The state of the session's tenant, checked as its user's, and the check of writes that are held."""
        engine, (_, _, user, _, tenant) = self._engine, self._work.session
        if not (engine.access.on or tenant):
            return engine.state, None
        own = (str(Scope.agent(self.agent)), str(Scope.session(self._session.id)))
        door = StateDoor(engine.access, Caller(user, tenant), own)
        return bound(engine.state, door), door.again

    def check(self) -> None:
        """Raise StepCancelled if the step should stop, StepTimeout if its time is up. Call it where stopping is
        safe.
        """
        if self._caller is not None:
            self._caller.check()
        if self._timed_out or (self._deadline is not None and time.monotonic() > self._deadline):
            raise StepTimeout(f"step {self.step} ran past its limit")
        if self._stopped.is_set():
            raise StepCancelled(f"step {self.step} of session {self._session.id} was cancelled")

    def stop(self, why: type[Exception]) -> None:
        """Make the next `check` raise. The heartbeat calls it when the claim is lost, or the time is up."""
        self._timed_out = why is StepTimeout
        self._stopped.set()
