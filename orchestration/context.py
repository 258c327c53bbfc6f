"""What an agent is given beside its request: progress, partial results, memory and state, a logger, and a way to be
stopped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import StepCancelled, StepTimeout, TooLarge
from ..storage import serial
from ..storage.states.protocol import Origin
from .engine import Engine, Work
from .guard.doors import place_of
from .guard.logs import guarded
from .memory.memory import PersistentAgentState
from .state.scopes import Scope
from .state.stepstate import Held, StepState

#: A partial result may be this large, as JSON in bytes.
MOST_PARTIAL_BYTES = 256 * 1024
#: So many partial results of one step may wait to be written; `ctx.partial` waits while there are more.
MOST_PARTIALS = 1000


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
        self, engine: Engine, work: Work, permissions: frozenset[str], deadline: float | None, flush: Callable[[], None]
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
        self._stopped = threading.Event()
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
        self._work.progress = min(max(float(part), 0.0), 1.0)
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
            state = self._engine.state
            origin = Origin(correlation_id=self.correlation_id, session_id=self._session.id, step=self.step)
            self._work.held = Held(state, origin)
            self._state = StepState(state, Scope.agent(self.agent), self._work.held, origin)
        return self._state

    def check(self) -> None:
        """Raise StepCancelled if the step should stop, StepTimeout if its time is up. Call it where stopping is
        safe.
        """
        if self._stopped.is_set():
            raise StepCancelled(f"step {self.step} of session {self._session.id} was cancelled")
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise StepTimeout(f"step {self.step} ran past its limit")

    def stop(self) -> None:
        """Make the next `check` raise. The heartbeat calls it when the claim is lost."""
        self._stopped.set()
