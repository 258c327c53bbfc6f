"""Plans: directed acyclic graphs of steps, in Python or as YAML/JSON, checked whole before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CeleriacError, PlanError
from ..storage import serial
from .bounds import fault_in
from .references import RESERVED, check_condition, names_in, split

_NAME = re.compile(r"^[A-Za-z_][\w\-]{0,99}$")
_STEP_KEYS = (
    "name",
    "agent",
    "plan",
    "request",
    "after",
    "each",
    "when",
    "retries",
    "backoff",
    "timeout",
    "queue",
    "priority",
    "cache",
)
_PLAN_KEYS = ("name", "description", "steps")


@dataclass(frozen=True, slots=True)
class Step:
    """One agent call of a plan, or a sub-plan. Made by `step`; times are seconds."""

    name: str
    agent: str = ""
    plan: tuple[Step, ...] = ()
    request: Any = None
    after: tuple[str, ...] = ()
    each: str | None = None
    when: str | None = None
    retries: int | None = None
    backoff: float | None = None
    timeout: float | None = None
    queue: str | None = None
    priority: int | None = None
    cache: bool | None = None

    def waits_for(self) -> list[str]:
        """Names of the steps that it comes after, said or implied by a reference, without repeats."""
        implied = names_in([self.request, self.each, self.when])
        inner = {s.name for s in self.plan}
        from_plan = (n for s in self.plan for n in s.waits_for() if n not in inner)
        return list(dict.fromkeys(n for n in (*self.after, *implied, *from_plan) if n not in RESERVED))

    def to_dict(self) -> dict[str, Any]:
        """The step as JSON-able data, without what is at its default."""
        data = {key: getattr(self, key) for key in _STEP_KEYS}
        data["after"] = list(self.after)
        data["plan"] = [s.to_dict() for s in self.plan]
        return {k: v for k, v in data.items() if v is not None and (k == "request" or v not in ("", []))}


def step(
    name: str,
    agent: str = "",
    request: Any = None,
    *,
    plan: Plan | Sequence[Step] = (),
    after: Sequence[str] = (),
    each: str | None = None,
    when: str | None = None,
    retries: int | None = None,
    backoff: float | None = None,
    timeout: float | None = None,
    queue: str | None = None,
    priority: int | None = None,
    cache: bool | None = None,
) -> Step:
    """One step of a plan.

    `agent` is the name of a registered agent, or `plan` a sub-plan whose steps run in its place. `request` is JSON with
    references such as `${locate.files}`. `after` names steps to wait for, beside those that are referred to. `each` is
    a reference to a list: the step runs once for each `${item}` of it, as `name-0`, `name-1`, ... `when` is a
    condition; if it is false the step is skipped and `${name}` is null. `cache=False` runs the agent in any case. What
    is None here is taken from the agent.
    """
    inner = tuple(plan.steps if isinstance(plan, Plan) else plan)
    after = (after,) if isinstance(after, str) else tuple(after)
    return Step(name, agent, inner, request, after, each, when, retries, backoff, timeout, queue, priority, cache)


@dataclass(frozen=True)
class Plan:
    """A named directed acyclic graph of steps.

    Making one checks its form (names, references, cycles, conditions); whether its agents exist is checked when a
    session is started with it. Raises PlanError naming the step that is wrong.
    """

    name: str
    steps: Sequence[Step] = field(default_factory=tuple)
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not isinstance(self.name, str) or not self.name.strip() or not serial.is_storable(self.name):
            raise PlanError(f"a plan needs a name, found {self.name!r}")
        if not self.steps:
            raise PlanError(f"plan {self.name!r} has no steps")
        check_steps(self.steps, self.name)
        try:
            serial.encode(self.to_dict(), what=f"plan {self.name!r}")
        except CeleriacError as fault:
            raise PlanError(str(fault)) from None

    @property
    def fingerprint(self) -> str:
        """A hash of all that the plan says: kept with a session to tell whether a plan has changed since."""
        return serial.digest(serial.canonical(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-able data; `from_dict` is its inverse."""
        data: dict[str, Any] = {"name": self.name, "steps": [s.to_dict() for s in self.steps]}
        if self.description:
            data["description"] = self.description
        return data

    @classmethod
    def from_dict(cls, data: Any) -> Plan:
        """A plan from the data of a YAML or JSON file. Raises PlanError naming an unknown or missing key."""
        _check_keys(data, _PLAN_KEYS, "plan", required=("name", "steps"))
        if not isinstance(data["steps"], list):
            raise PlanError(f"plan {data['name']!r}: steps must be a list, found {type(data['steps']).__name__}")
        return cls(str(data["name"]), [_step_from(s) for s in data["steps"]], str(data.get("description") or ""))

    @classmethod
    def from_file(cls, path: str | Path) -> Plan:
        """A plan from a .yaml, .yml or .json file. Raises PlanError naming the file."""
        path = Path(path)
        try:
            return cls.from_dict(data_of(path, "plan"))
        except PlanFileError:
            raise
        except PlanError as fault:
            raise PlanError(f"{path}: {fault}") from None


class PlanFileError(PlanError):
    """A file cannot be read, or holds neither YAML nor JSON."""


def data_of(path: Path, what: str) -> Any:
    """What a .yaml, .yml or .json file holds. Raises PlanFileError naming the file."""
    try:
        return _parse(path.read_text(encoding="utf-8"), path.suffix)
    except OSError as fault:
        raise PlanFileError(f"{what} file {path} cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise PlanFileError(f"{what} file {path} is not UTF-8 text: {fault}") from None
    except PlanError as fault:
        raise PlanFileError(f"{path}: {fault}") from None
    except ValueError as fault:  # no file can have that name
        raise PlanFileError(f"{what} file {str(path)!r:.100} cannot be read: {fault}") from None


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        import json

        try:
            return json.loads(text)
        except RecursionError:
            raise PlanError("not a plan: nested too deeply") from None
        except ValueError as fault:
            raise PlanError(f"not JSON: {fault}") from None
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise PlanError("not a plan: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as fault:  # a date that there is not is a ValueError
        raise PlanError(f"not YAML: {' '.join(str(fault).split())}") from None


def _check_keys(data: Any, allowed: Sequence[str], what: str, required: Sequence[str]) -> None:
    if not isinstance(data, dict):
        raise PlanError(f"a {what} must be a mapping with {', '.join(allowed)}; found {type(data).__name__}")
    name = data.get("name", "?")
    for key in data:
        if key not in allowed:
            raise PlanError(f"{what} {name!r}: unknown key {key!r}; allowed: {', '.join(allowed)}")
    for key in required:
        if key not in data:
            raise PlanError(f"{what} {name!r}: missing key {key!r}")


def _step_from(data: Any) -> Step:
    _check_keys(data, _STEP_KEYS, "step", required=("name",))
    known = dict(data)
    inner = known.pop("plan", None) or []
    if not isinstance(inner, list):
        raise PlanError(f"step {data['name']!r}: plan must be a list of steps, found {type(inner).__name__}")
    inner = [_step_from(s) for s in inner]
    after = known.pop("after", None) or []
    if not isinstance(after, (str, list)):
        raise PlanError(f"step {data['name']!r}: after must be a list of names, found {type(after).__name__}")
    for key in ("when", "each"):
        if isinstance(known.get(key), bool):
            known[key] = str(known[key]).lower()
    return step(**known, plan=inner, after=after)


def check_steps(steps: Iterable[Step], where: str, outer: frozenset[str] = frozenset()) -> None:
    """Check names, references, numbers and cycles of a plan's (or sub-plan's) steps. `outer` are names in reach."""
    steps = list(steps)
    names: set[str] = set()
    for one in steps:
        if not isinstance(one, Step):
            raise PlanError(f"plan {where!r}: steps are made by step(...), found {type(one).__name__}")
        _check_form(one, where)
        if one.name in names:
            raise PlanError(f"plan {where!r}: two steps are named {one.name!r}")
        names.add(one.name)
    for one in steps:
        for other in one.waits_for():
            if other not in names and other not in outer:
                raise PlanError(
                    f"step {one.name!r} refers to {other!r}, which is no step of plan {where!r}; "
                    f"it has: {', '.join(sorted(names))}"
                )
        clash = _member_clash(one.name, steps)
        if clash:
            raise PlanError(f"plan {where!r}: {one.name!r} is also what the fan-out {clash!r} calls one of its steps")
        if one.plan:
            check_steps(one.plan, f"{where}/{one.name}", outer | names - {one.name})
    _check_cycles(steps, where)


def _member_clash(name: str, steps: list[Step]) -> str | None:
    """The fan-out among `steps` that gives one of its members that name."""
    member = re.fullmatch(r"(.+)-\d+", name)
    return next((s.name for s in steps if s.each and member is not None and s.name == member[1]), None)


def _check_form(one: Step, where: str) -> None:
    if not isinstance(one.name, str) or not _NAME.match(one.name) or one.name in RESERVED:
        raise PlanError(
            f"plan {where!r}: {one.name!r} cannot name a step: letters, digits, - and _, at most 100, "
            f"not {', '.join(sorted(RESERVED))}"
        )
    if not isinstance(one.agent, str) or not all(isinstance(n, str) for n in one.after):
        raise PlanError(f"step {one.name!r}: agent and what it comes after are given by name")
    try:
        serial.encode(one.request, what="request")
    except CeleriacError as fault:
        raise PlanError(f"step {one.name!r}: {fault}") from None
    if bool(one.agent) == bool(one.plan):
        raise PlanError(f"step {one.name!r} needs either an agent or a plan")
    if one.each is not None:
        if not isinstance(one.each, str) or not (one.each.startswith("${") and one.each.endswith("}")):
            raise PlanError(
                f"step {one.name!r}: each must be a reference to a list such as ${{locate.files}}, found {one.each!r}"
            )
        split(one.each[2:-1])
    if one.when is not None:
        if not isinstance(one.when, str):
            raise PlanError(
                f"step {one.name!r}: when must be a condition such as ${{locate.count}} > 0, found {one.when!r}"
            )
        check_condition(one.when)
    if one.cache is not None and not isinstance(one.cache, bool):
        raise PlanError(f"step {one.name!r}: cache must be true or false, found {one.cache!r}")
    wrong = fault_in(one)
    if wrong is not None:
        raise PlanError(f"step {one.name!r}: {wrong}")


def _check_cycles(steps: list[Step], where: str) -> None:
    own = {one.name for one in steps}
    waits = {one.name: own.intersection(one.waits_for()) for one in steps}
    while waits:
        free = [name for name, names in waits.items() if not names]
        if not free:
            raise PlanError(f"plan {where!r} has a cycle among: {', '.join(sorted(waits))}")
        for name in free:
            del waits[name]
        for names in waits.values():
            names.difference_update(free)
