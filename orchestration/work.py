"""A claimed step on its way through a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import StepCancelled
from ..storage import steps


@dataclass(slots=True)
class Work:
    """A claimed step with all that its agent needs."""

    claimed: steps.Claimed
    session: tuple[str, str, str, str]
    request: Any
    permissions: list[str] | None
    #: Partial results that are not written yet, as JSON text.
    partials: list[str] = field(default_factory=list)
    progress: float = 0.0
    task: str | None = None
    #: The agent's state as it was read, and as it is now; None: not asked for.
    state_before: bytes | None = None
    state: dict[str, Any] | None = None

    @property
    def session_id(self) -> str:
        return self.claimed.session_id

    @property
    def key(self) -> str:
        """The idempotency key of this step for services outside: the same for each attempt."""
        return f"{self.claimed.session_id}/{self.claimed.number}"


class Lost(StepCancelled):
    """The claim is no longer this worker's: cancelled, or taken over after its lease ended. Nothing was written."""
