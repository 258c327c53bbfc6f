"""Agents: named functions that turn a request into an `AgentOutput`, and the registry they are found in."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from ..errors import AgentError, AgentNotFound, PermissionMissing
from ..storage import serial
from .bounds import fault_in

Severity = Literal["low", "medium", "high"]

#: No result is kept in the cache for longer than this, in seconds: 30 days.
LONGEST_CACHED = 30 * 86_400.0
#: A rate limit lets steps begin at least so often, in seconds.
LONGEST_INTERVAL = 86_400.0
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/([smh]))?")
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(slots=True)
class Finding:
    """What an agent found out: `entity`'s `attribute` is `value`.

    `confidence` is 0..1. `evidence` is a list of JSON objects, by custom `{"path", "line", "text"}`. Two findings of
    one entity and attribute with different values are a conflict, unless more than one value can hold (`exclusive`
    False).
    """

    entity: str
    attribute: str
    value: Any
    confidence: float = 1.0
    evidence: list[dict[str, Any]] = field(default_factory=list)
    exclusive: bool = True


@dataclass(slots=True)
class AgentOutput:
    """What an agent gives back.

    `data` is JSON-able and is what `${step.path}` reads. `confidence` is 0..1, `cost` in the unit of your choice (by
    custom US dollars).
    `add_steps` are steps (see `celeriac.step`) that join the running plan when this output is recorded; whatever
    waits for the step that adds them waits for them too.
    """

    data: Any = None
    findings: list[Finding] = field(default_factory=list)
    confidence: float | None = None
    cost: float | None = None
    add_steps: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered agent: its function and how it is to be run. Times are seconds."""

    name: str
    function: Callable[..., Any]
    permissions: frozenset[str] = frozenset()
    optional_permissions: frozenset[str] = frozenset()
    version: str = "1"
    timeout: float | None = None
    retries: int = 0
    backoff: float = 1.0
    queue: str | None = None
    priority: int = 0
    request_model: type[BaseModel] | None = None
    response_model: type[BaseModel] | None = None
    is_async: bool = False
    cache_ttl: float | None = None
    cache_stale: float = 0.0
    cache_tags: tuple[str, ...] = ()
    #: Seconds between the beginnings of two of its steps, on all workers together; None: no limit.
    interval: float | None = None


class Registry:
    """Agents by name. One registry is shared by all who import the same agents module; tests may make their own."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def add(self, agent: Agent) -> None:
        """Register an agent; the same name again is an error unless it is the same function loaded anew."""
        known = self._agents.get(agent.name)
        if known is not None and _home(known.function) != _home(agent.function):
            raise AgentError(
                f"two agents are named {agent.name!r}: {_home(known.function)} and {_home(agent.function)}"
            )
        self._agents[agent.name] = agent

    def get(self, name: str) -> Agent:
        """The agent of that name. Raises AgentNotFound that lists those that there are."""
        found = self._agents.get(name)
        if found is None:
            raise self.lacks(name)
        return found

    def find(self, name: str) -> Agent | None:
        """The agent of that name, if it is known here."""
        return self._agents.get(name)

    def lacks(self, name: str) -> AgentNotFound:
        """The error that says which agents are known instead."""
        return AgentNotFound(f"no agent {name!r}; known: {', '.join(self.names()) or 'none'}")

    def __contains__(self, name: str) -> bool:
        return name in self._agents

    def names(self) -> list[str]:
        """Names of all registered agents, in order."""
        return sorted(self._agents)


def _home(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


#: Where the decorator `agent` registers.
registry = Registry()


def agent(
    name: str,
    *,
    permissions: Iterable[str] = (),
    optional_permissions: Iterable[str] = (),
    version: str = "1",
    timeout: float | None = None,
    retries: int = 0,
    backoff: float = 1.0,
    queue: str | None = None,
    priority: int = 0,
    rate_limit: str | float | None = None,
    cache_ttl: float | None = None,
    cache_stale: float = 0.0,
    cache_tags: Iterable[str] = (),
    registry: Registry = registry,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function `(request, ctx) -> AgentOutput or JSON` as the agent `name`. Sync or async.

    `request` is the JSON object of the step, or the pydantic model that the first parameter is annotated with; a
    returned pydantic model (or the annotated one) is checked too. `permissions` are needed, `optional_permissions` used
    where the session holds them. `timeout` (seconds, none: no limit) ends an attempt; an attempt that raises is made
    again up to `retries` times after about `backoff`, 2 x `backoff`, 4 x `backoff` ... seconds (full jitter). `queue`
    and `priority` (0 to 9, 9 first) say where and how soon its steps run. The decorated function stays what it was.

    `rate_limit` (`"10/s"`, `"5/m"`, `"100/h"`, or a number a second) is for all workers together: its steps begin at
    equal distances, and those that come too early wait without a worker. What the cache answers does not count.

    With `cache_ttl` (seconds) its answers are shared: the same request to the same `version` under the same granted
    permissions is answered from the cache for so long, and for `cache_stale` seconds more while a new answer is made in
    the background. `cache_tags` are words to invalidate by. So it must answer from its request alone.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _check_cache(name, cache_ttl, cache_stale, cache_tags)
        interval = _interval(name, rate_limit)
        request_model, response_model = _models(function)
        made = Agent(
            name=name,
            function=function,
            permissions=_words(name, "permissions", permissions),
            optional_permissions=_words(name, "optional_permissions", optional_permissions),
            version=str(version),
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            queue=queue,
            priority=priority,
            request_model=request_model,
            response_model=response_model,
            is_async=inspect.iscoroutinefunction(function),
            cache_ttl=cache_ttl,
            cache_stale=cache_stale,
            cache_tags=tuple(cache_tags),
            interval=interval,
        )
        _check(made)
        registry.add(made)
        return function

    return register


def _check(made: Agent) -> None:
    name = made.name
    if not isinstance(name, str) or not name.strip() or not serial.is_storable(name):
        raise AgentError(f"an agent needs a name, found {name!r}")
    fault = fault_in(made)
    if fault is not None:
        raise AgentError(f"agent {name!r}: {fault}")


def _words(name: str, what: str, words: Iterable[str]) -> frozenset[str]:
    found = [words] if isinstance(words, str) else list(words)
    if isinstance(words, str) or not all(isinstance(word, str) and word and serial.is_storable(word) for word in found):
        raise AgentError(f"agent {name!r}: {what} must be a list of names, found {words!r:.60}")
    return frozenset(found)


def _check_cache(name: str, ttl: float | None, stale: float, tags: Iterable[str]) -> None:
    for what, value, least in (("cache_ttl", ttl, 0.001), ("cache_stale", stale, 0)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value <= LONGEST_CACHED):
            raise AgentError(
                f"agent {name!r}: {what} must be {least} to {LONGEST_CACHED:g} seconds (30 days), found {value!r}"
            )
    if ttl is None and (stale or tags):
        raise AgentError(f"agent {name!r}: cache_stale and cache_tags need a cache_ttl; found none")
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag and serial.is_storable(tag) for tag in tags):
        raise AgentError(f"agent {name!r}: cache_tags must be a list of words, found {tags!r}")


def _interval(name: str, rate: str | float | None) -> float | None:
    """Seconds between two steps at that rate."""
    if rate is None:
        return None
    found = _RATE.fullmatch(rate) if isinstance(rate, str) else None
    if found:
        count, seconds = float(found[1]), _UNITS[found[2] or "s"]
    else:
        count, seconds = rate if isinstance(rate, int | float) and not isinstance(rate, bool) else 0.0, 1
    if not (0 < count < math.inf and seconds / count <= LONGEST_INTERVAL):
        raise AgentError(
            f"agent {name!r}: rate_limit must be a number over 0 a second, or such as '10/s', '5/m', '100/h'; at least "
            f"one a day; found {rate!r}"
        )
    return seconds / count


def _models(function: Callable[..., Any]) -> tuple[type[BaseModel] | None, type[BaseModel] | None]:
    """The pydantic models that the first parameter and the return value are annotated with, if they are."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that only the type checker knows
        return None, None
    parameters = list(signature.parameters.values())
    if len(parameters) < 2:
        raise AgentError(f"{_home(function)} must take two parameters: (request, ctx)")

    def model(annotation: Any) -> type[BaseModel] | None:
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None

    return model(parameters[0].annotation), model(signature.return_annotation)


def granted(agent: Agent, held: Iterable[str] | None) -> frozenset[str]:
    """What of its declared permissions an agent is granted; `held` None grants all. Raises PermissionMissing by
    name.
    """
    declared = agent.permissions | agent.optional_permissions
    if held is None:
        return declared
    has = frozenset(held)
    missing = sorted(agent.permissions - has)
    if missing:
        raise PermissionMissing(
            f"agent {agent.name!r} needs {', '.join(missing)}, which the session does not hold; "
            f"it holds: {', '.join(sorted(has)) or 'none'}"
        )
    return declared & has


def maker_of(agent: Agent, held: Iterable[str] | None) -> str:
    """A hash over what decides, beside its request, what an agent answers: its version and what it is granted.

    Raises PermissionMissing.
    """
    return _maker(agent.version, granted(agent, held))


@functools.lru_cache(maxsize=4096)
def _maker(version: str, permissions: frozenset[str]) -> str:
    return hashlib.blake2b(serial.canonical([version, sorted(permissions)]), digest_size=12).hexdigest()
