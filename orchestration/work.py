"""A claimed step on its way through a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CeleriacError, StepCancelled
from ..storage import steps
from ..storage.sessions import Identity

if TYPE_CHECKING:
    from .cache.hit import Hit
    from .cache.sharing import Flight
    from .memory.memory import PersistentAgentState
    from .state.stepstate import Held


@dataclass(slots=True)
class Work:
    """A claimed step with all that its agent needs."""

    claimed: steps.Claimed
    session: Identity
    request: Any
    permissions: list[str] | None
    #: Partial results that are not written yet, as JSON text.
    partials: list[str] = field(default_factory=list)
    progress: float = 0.0
    task: str | None = None
    #: The agent's memory; None: not asked for.
    memory: PersistentAgentState | None = None
    #: Whether this attempt or an earlier one has left something of the memory, to be dropped when the step ends.
    has_left: bool = False
    #: What the step wrote to keyed state, to be recorded with its result.
    held: Held | None = None
    #: Whether the plan lets it be answered from the cache of results.
    may_cache: bool = True
    #: Its session is a fork, whose steps may take over what others gave.
    forked: bool = False
    #: The agent looked at what is its session's own: what it gives is not for others.
    private: bool = False
    #: It is a durable call, which the worker makes within the step that asks for it.
    inline: bool = False
    #: What was recorded of it (JSON), where it is inline: its caller need not read it again.
    recorded: bytes | None = None
    #: Its own thread is giving its claim up: that the claim is gone does not mean that the step has to be stopped.
    leaving: bool = False
    #: The result that was found for it, and its place among those who would compute the same.
    hit: Hit | None = None
    flight: Flight | None = None

    @property
    def session_id(self) -> str:
        return self.claimed.session_id

    @property
    def key(self) -> str:
        """The idempotency key of this step for services outside: the same for each attempt."""
        return f"{self.claimed.session_id}/{self.claimed.number}"


@dataclass(frozen=True, slots=True)
class Next:
    """A claim, with what its agent needs if that could be read at once."""

    claimed: steps.Claimed
    work: Work | None


class PutBack(CeleriacError):
    """The step was put back before its agent was called, and is ready again later. No attempt is counted."""


class Lost(StepCancelled):
    """The claim is no longer this worker's: cancelled, or taken over after its lease ended. Nothing was written."""


def lost(c: steps.Claimed) -> Lost:
    """What to raise when a claim is found to be another's."""
    return Lost(f"step {c.name} of session {c.session_id} was taken away while it ran")
