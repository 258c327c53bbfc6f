"""How steps of a plan become rows: numbers, names, edges, inputs, and what the agent decides where the plan is
silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..errors import PlanError
from ..storage import bulk, serial
from .agents import Registry
from .plans import Step, step

#: What the rows of all steps begin with.
_FRESH = {"doomed": 0, "attempts": 0, "failures": 0, "cached": 0, "error": None, "result_epoch": None}
_FRESH |= {"started_at": None, "finished_at": None}
#: What a step takes from its agent.
_AGENT_SAYS = ("queue", "priority", "retries", "backoff", "timeout")


class Rows:
    """Rows of new steps, ready for `storage.graph.add`: numbered on from `last`, their names under `prefix`.

    `epoch` is where their epochs begin, `held` whether the session is paused, `phase` the outermost step of the plan
    that they belong to; none: each is its own.
    """

    def __init__(
        self,
        registry: Registry,
        queue: str,
        last: int,
        *,
        epoch: int = 0,
        prefix: str = "",
        held: bool = False,
        phase: str = "",
    ) -> None:
        self.steps: list[dict[str, Any]] = []
        self.inputs: list[tuple[int, str]] = []
        self.edges: list[tuple[int, int]] = []
        self._registry = registry
        self._queue = queue
        self._last = last
        self._epoch = epoch
        self._prefix = prefix
        self._held = held
        self._phase = phase

    def add(self, plan: Iterable[Step], member_of: int | None = None, item: Any = None) -> None:
        """Add steps, all with that `${item}`; waits among them become edges, as does the wait of the group for each."""
        plan = list(plan)
        numbers = {one.name: self._last + 1 + i for i, one in enumerate(plan)}
        self._last += len(plan)
        for position, one in enumerate(plan):
            number = numbers[one.name]
            sources = [numbers[name] for name in one.waits_for() if name in numbers]
            self.edges += [(source, number) for source in sources]
            if member_of is not None:
                self.edges.append((number, member_of))
            self.steps.append(self._row(one, number, len(sources), member_of, position))
            self.inputs.append((number, _input(self._decided(one) if one.each or one.plan else one, item)))

    def add_call(self, one: Step, body: str) -> dict[str, Any]:
        """Add a step that waits for nothing, and that no other one waits for, with its input; gives its row."""
        self._last += 1
        self.steps.append(self._row(one, self._last, 0, None, 0))
        self.inputs.append((self._last, body))
        return self.steps[-1]

    def add_each(self, template: Step, member_of: int, items: Sequence[Any]) -> None:
        """Add one step for each item of a fan-out: `analyze` becomes `analyze-0`, `analyze-1` ..."""
        one = replace(template, each=None, when=None, after=())
        pattern = self._row(one, 0, 0, member_of, 0)
        for position, item in enumerate(items):
            self._last += 1
            name = f"{pattern['name']}-{position}"
            self.steps.append({**pattern, "number": self._last, "name": name, "position": position})
            self.inputs.append((self._last, _input(one, item)))
            self.edges.append((self._last, member_of))

    def _decided(self, one: Step) -> Step:
        """A group with what the agents of its members say where the plan is silent: the worker that opens it may not
        know them.
        """
        known = self._registry.find(one.agent)
        said = {key: getattr(known, key) for key in _AGENT_SAYS if getattr(one, key) is None} if known else {}
        return replace(one, plan=tuple(map(self._decided, one.plan)), **said)

    def wait_for(self, source: int, name: str) -> None:
        """Let the added step of that name also wait for an existing step."""
        row = next(r for r in self.steps if r["name"] == self._prefix + name)
        row["pending"] += 1
        row["status"] = "blocked"
        self.edges.append((source, row["number"]))

    def _row(self, one: Step, number: int, pending: int, member_of: int | None, position: int) -> dict[str, Any]:
        kind = "each" if one.each else "plan" if one.plan else "agent"
        known = self._registry.find(one.agent)
        guarded = bool(one.when) or kind != "agent"
        name = self._prefix + one.name

        def pick(key: str, default: Any) -> Any:
            said = getattr(one, key)
            if said is None and known is not None:
                said = getattr(known, key)
            return default if said is None else said

        return {
            "number": number,
            "name": name,
            "kind": kind,
            "agent": one.agent,
            "phase": self._phase or name,
            "member_of": member_of,
            "position": position,
            "status": "blocked" if pending or guarded else "ready",
            "epoch": self._epoch,
            "held": int(self._held),
            "guarded": int(guarded),
            "queue": pick("queue", self._queue),
            "priority": pick("priority", 0),
            "pending": pending,
            "retries": pick("retries", 0),
            "backoff": float(pick("backoff", 1.0)),
            "timeout": pick("timeout", None),
        }

    def kept(self) -> list[list[list[Any]]]:
        """The same rows as a checkpoint keeps them."""
        rows = [[row[c] if c in row else _FRESH[c] for c in bulk.KEPT] for row in self.steps]
        return [rows, [list(i) for i in self.inputs], [list(e) for e in self.edges]]


def _input(one: Step, item: Any) -> str:
    body: dict[str, Any] = {"request": one.request}
    if item is not None:
        body["item"] = item
    for key in ("when", "each"):
        if getattr(one, key):
            body[key] = getattr(one, key)
    if one.cache is False:
        body["cache"] = False
    if one.each or one.plan:
        body["step"] = one.to_dict()
    return serial.encode(body, what=f"request of step {one.name!r}").decode()


def step_from(data: dict[str, Any]) -> Step:
    """A step from what `Step.to_dict` gave (already checked, so without checking)."""
    known = dict(data)
    inner = [step_from(s) for s in known.pop("plan", ())]
    return step(**known, plan=inner)


def as_step(one: Any) -> Step:
    """A step that an agent added, as it is or as what `Step.to_dict` gives."""
    return one if isinstance(one, Step) else step_from(one)


def check_agents(plan: Iterable[Step], registry: Registry) -> None:
    """Raise PlanError naming the first step whose agent is not registered."""
    for one in plan:
        if one.plan:
            check_agents(one.plan, registry)
        elif one.agent not in registry:
            known = ", ".join(registry.names()) or "none"
            raise PlanError(f"step {one.name!r} names the agent {one.agent!r}; known: {known}")
