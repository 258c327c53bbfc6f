"""A driver whose agents write down what they are asked."""

from __future__ import annotations

from typing import Any

from driver import Driver

from celeriac.storage import serial


class Ledger(Driver):
    """A driver with the agents `work` and `split`; `runs` is what they were asked since it was last emptied."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.runs: list[tuple[str, Any]] = []
        for name in ("work", "split"):
            self.register(name)

    def register(self, name: str, **options: Any) -> None:
        """Register an agent that notes its request and answers from it alone."""

        @self.agent(name, **options)
        def answer(request: Any, ctx: Any) -> Any:
            self.runs.append((ctx.agent, request))
            return answer_to(ctx.agent, request)

    def ran(self) -> list[Any]:
        """What agents were asked since this was last called, in one order."""
        runs, self.runs = self.runs, []
        return sorted(runs, key=lambda one: serial.canonical(list(one)))

    def ended(self, *steps: Any, **options: Any) -> Any:
        """A session on these steps that has run to its end; the ledger is empty after it."""
        session = self.start(*steps, **options)
        assert self.run_to_end(session) == "completed", session.to_dict()
        self.runs = []
        return session


def answer_to(agent: str, request: Any) -> Any:
    """What the agents of a ledger answer: small numbers, so that other requests often give the same."""
    number = sum(serial.canonical(request))
    return [number % 3, number % 5, number % 2] if agent == "split" else {"v": number % 4}
