"""Forks: a new session on the plan of another one, or on a changed one, that takes over what is still right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import CheckpointDamaged, KeyMissing, PlanError, SealBroken, SessionError, SessionNotFound, StepNotFound
from ..storage import agent_parts, attached, bulk, checkpoints, events, results, serial, sessions
from ..storage import reuse as rows
from ..storage.database import Transaction
from ..storage.states.protocol import Origin
from . import control
from .engine import Engine
from .guard import doors
from .outputs import GROUPS, prefix_of, prefixes
from .plans import Plan, Step
from .references import Lookup
from .restoring import checkpoint_number
from .reuse import DOCUMENT, Fork, key_of, moved, request_of
from .sizes import check_plan, mapping, words
from .state import copying
from .state.scopes import Scope
from .trees import states
from .turn import Turn

_NUMBER, _NAME, _KIND, _AGENT, _MEMBER_OF, _POSITION, _STATUS, _EPOCH = (
    bulk.KEPT.index(name)
    for name in ("number", "name", "kind", "agent", "member_of", "position", "status", "result_epoch")
)
_ITEM = re.compile(r"(.+)-\d+")
#: Outputs that are kept at hand while a session is read.
_MOST_KEPT = 1000


@dataclass(frozen=True)
class Changes:
    """What is to be other in a fork than in the session that it is made from; None: as it is there.

    `requests` are whole requests by the name of their step, `inputs` single keys of them.
    """

    from_step: str | Sequence[str] | None = None
    checkpoint: str | int | None = None
    plan: Plan | None = None
    requests: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    permissions: Iterable[str] | None = None
    query: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


#: What a fork can be given beside `Changes`: the same as a session that is started.
_MORE = ("key", "user", "tags", "title", "type", "priority", "notes", "preferences", "metadata", "file_paths")
_TAKEN_ON = ("plan", "permissions", "preferences", "metadata", "notes", "file_paths")


def checked(more: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a fork is given more. Raises SessionError."""
    for name in more:
        if name not in _MORE:
            raise SessionError(f"a fork cannot be given {name!r}; allowed: {', '.join(_MORE)}")
    lists = {name: words(name, more[name], (str, Path)) for name in ("tags", "file_paths") if name in more}
    objects = {name: mapping(name, more[name]) for name in ("preferences", "metadata") if name in more}
    return {**more, **lists, **objects}


def prepared(engine: Engine, session_id: str, changes: Changes, user: str | None) -> tuple[Plan, control.Order]:
    """The plan of a fork, and what it is started with (`user` None: that of the session).

    Raises SessionNotFound, SessionError, CheckpointNotFound, CheckpointDamaged, StepNotFound and PlanError.
    """
    _check(changes)
    states.thaw(engine, session_id)
    number = None if changes.checkpoint is None else checkpoint_number(session_id, changes.checkpoint)
    row, texts, tags, past = engine.database.read(lambda tx: _read(engine, tx, session_id, number))
    place = doors.place_of(session_id)
    said = {name: engine.guard.reveal(serial.decode(texts[name]), place) for name in _TAKEN_ON if name in texts}
    plan = changes.plan or (Plan.from_dict(said["plan"]) if "plan" in said else None)
    if plan is None:
        raise SessionError(f"session {session_id} has no plan, so there is nothing to fork; pass one as plan=")
    plan = changed(plan, changes.requests, changes.inputs)
    named = _steps(changes.from_step)
    anew = list(dict.fromkeys(one for name in named for one in from_there(plan.steps, name)))
    fork = Fork(session_id, number, tuple(past.with_added(anew)))
    held = said.get("permissions")
    if changes.permissions is not None:
        held = sorted(set(words("permissions", changes.permissions)))
    order = control.Order(
        query=row["query"] if changes.query is None else changes.query,
        user=row["user"] if user is None else user,
        permissions=held,
        tags=tags,
        **{name: row[name] for name in ("title", "type", "priority")},
        **{name: said[name] for name in ("preferences", "metadata", "notes", "file_paths") if name in said},
        opened=lambda turn, guarded: _open(engine, turn, guarded, fork, past),
    )
    return plan, replace(order, **changes.more)


def _check(changes: Changes) -> None:
    """Raise SessionError and PlanError for what is of the wrong kind."""
    if changes.plan is not None:
        check_plan(changes.plan)
    mapping("requests", changes.requests)
    for name, keys in mapping("inputs", changes.inputs).items():
        if not isinstance(keys, Mapping):
            raise SessionError(f"inputs of step {name!r:.100} must be an object of keys, found {keys!r:.100}")
        words(f"keys of the request of step {name!r:.100}", keys.keys())
    words("names of steps", [*changes.requests, *changes.inputs])
    _steps(changes.from_step)


def _steps(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else words("from_step", [] if given is None else given)


def _read(
    engine: Engine, tx: Transaction, session_id: str, number: int | None
) -> tuple[dict[str, Any], dict[str, str], list[str], Past]:
    row = sessions.get(tx, session_id)
    hot = sessions.look(tx, session_id)
    identity = sessions.identity(tx, session_id)
    if row is None or hot is None or identity is None:
        raise SessionNotFound(f"no session {session_id!r}")
    if number is not None:
        state = checkpoints.state_at(tx, session_id, number)
    else:
        kept, inputs, links = bulk.rows(tx, session_id)
        state = checkpoints.State([], {one[0]: one for one in kept}, dict(inputs), links, {}, None)
    past = Past(engine, tx, identity, state)
    return row, sessions.documents(tx, session_id), sessions.tags(tx, session_id), past


class Past:
    """The steps of a session as they stand, or stood at a checkpoint: what they were asked, and what they gave."""

    def __init__(self, engine: Engine, tx: Transaction, identity: sessions.Identity, state: checkpoints.State) -> None:
        self._engine = engine
        self._tx = tx
        self._identity = identity
        self.state = state
        self._named = {row[_NAME]: row for row in state.steps.values()}
        self._members: dict[int, list[list[Any]]] = {}
        for row in sorted(state.steps.values(), key=lambda one: one[_POSITION]):
            if row[_MEMBER_OF] is not None:
                self._members.setdefault(row[_MEMBER_OF], []).append(row)
        self._values: dict[int, Any] = {}
        self._made = results.made(tx, identity[0])
        #: (agent, what made it, request, where it is) of each result that can be taken over.
        self.done = list(self._done())
        self._values.clear()

    def ended(self) -> set[int]:
        """Numbers of the steps that an agent has ended."""
        return {number for number, row in self.state.steps.items() if row[_KIND] == "agent" and row[_STATUS] == "done"}

    def _done(self) -> Iterator[tuple[str, str, Any, rows.Reusable]]:
        for number in sorted(self.ended()):
            row = self.state.steps[number]
            maker, _ = self._made.get((number, row[_EPOCH]), (None, None))
            if maker is None:  # an older Celeriac recorded it
                continue
            body = serial.decode(self.state.inputs[number])
            try:
                request = request_of(self._engine.guard, self._identity[0], body, self._lookup(row, body.get("item")))
            except PlanError:  # it was filled in from what has been reopened since
                continue
            yield row[_AGENT], maker, request, rows.Reusable(number, row[_EPOCH], row[_NAME])

    def _lookup(self, row: list[Any], item: Any) -> Lookup:
        _, query, user, *_ = self._identity
        known = {"query": query, "user": user, "item": item}

        def find(name: str) -> Any:
            if name in known:
                return known[name]
            for prefix in prefixes(row[_NAME]):
                if prefix + name in self._named:
                    return self._value(self._named[prefix + name])
            raise PlanError(f"there is no step {name!r} in session {self._identity[0]}")

        return find

    def _value(self, row: list[Any]) -> Any:
        """As `Outputs.of`."""
        number = row[_NUMBER]
        if number not in self._values:
            if len(self._values) >= _MOST_KEPT:
                self._values.clear()
            self._values[number] = self._read_value(row)
        return self._values[number]

    def _read_value(self, row: list[Any]) -> Any:
        if row[_KIND] not in GROUPS:
            return results.load(self._tx, self._engine.blobs, self._identity[0], row[_NUMBER], row[_EPOCH])
        if row[_STATUS] in ("blocked", "skipped"):
            return None
        members = self._members.get(row[_NUMBER], [])
        if row[_KIND] == "each":
            return [self._read_value(one) for one in members]
        return {one[_NAME].rsplit("/", 1)[-1]: self._read_value(one) for one in members}

    def with_added(self, anew: list[str]) -> list[str]:
        """These steps, and those that they have added."""
        fork = Fork("", None, tuple(anew))
        for number in self.ended():
            row = self.state.steps[number]
            _, added = self._made.get((number, row[_EPOCH]), (None, None))
            if added and fork.is_anew(row[_NAME]):
                names = [f"{prefix_of(row[_NAME])}{one['name']}*" for one in serial.decode(added)]
                anew = [*anew, *(name for name in names if name not in anew)]
        return anew if len(anew) == len(fork.anew) else self.with_added(anew)


# -- changed plans -----------------------------------------------------------------------------------------------------


def changed(plan: Plan, requests: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> Plan:
    """The plan with whole requests replaced, and single keys of others set. Raises StepNotFound and PlanError."""
    if not requests and not inputs:
        return plan
    steps: Sequence[Step] = plan.steps
    for name, request in requests.items():
        steps = _with(steps, name.split("/"), name, partial(replace, request=request))
    for name, keys in inputs.items():
        steps = _with(steps, name.split("/"), name, partial(_with_keys, keys))
    return Plan(plan.name, steps, plan.description)


def _with_keys(keys: Mapping[str, Any], one: Step) -> Step:
    request = one.request if one.request is not None else {}
    for path, value in keys.items():
        request = _with_value(one.name, request, path.split("."), value)
    return replace(one, request=request)


def _with_value(name: str, request: Any, path: list[str], value: Any) -> Any:
    if not isinstance(request, dict):
        raise PlanError(f"the request of step {name!r} has no key {path[0]!r}: it is {type(request).__name__}")
    rest = _with_value(name, request.get(path[0], {}), path[1:], value) if path[1:] else value
    return {**request, path[0]: rest}


def _with(steps: Sequence[Step], path: list[str], whole: str, change: Callable[[Step], Step]) -> tuple[Step, ...]:
    """The steps with one of them changed, by its name, within sub-plans `sub/name`."""
    if path[0] not in {one.name for one in steps} or (path[1:] and not _named(steps, path[0]).plan):
        raise _unknown(whole, steps)
    return tuple(
        one
        if one.name != path[0]
        else replace(one, plan=_with(one.plan, path[1:], whole, change))
        if path[1:]
        else change(one)
        for one in steps
    )


def _named(steps: Sequence[Step], name: str) -> Step:
    return next(one for one in steps if one.name == name)


def _unknown(name: str, steps: Sequence[Step]) -> StepNotFound:
    return StepNotFound(f"no step {name!r} in the plan; it has: {', '.join(one.name for one in steps)}")


def from_there(steps: Sequence[Step], name: str, prefix: str = "", whole: str = "") -> Iterator[str]:
    """Names (see `Fork.anew`) of a step and of all that comes after it: `a`, one of a fan-out `a-0`, or one within a
    sub-plan `a/b`. Raises StepNotFound.
    """
    whole = whole or name
    first, _, rest = name.partition("/")
    known, item = {one.name: one for one in steps}, _ITEM.fullmatch(first)
    one = known.get(first) or (known.get(item[1]) if item is not None else None)
    is_item = one is not None and one.name != first
    if one is None or (is_item and not one.each) or (rest and not one.plan):
        raise _unknown(whole, steps)
    if rest:
        yield from from_there(one.plan, rest, f"{prefix}{first}/", whole)
    else:
        yield prefix + first + ("*" if one.each and not is_item else "")
    after = {one.name}
    while more := {other.name for other in steps if other.name not in after and after & set(other.waits_for())}:
        after |= more
    yield from (prefix + other.name + "*" * bool(other.each) for other in steps if other.name in after - {one.name})


# -- in the turn that makes the session --------------------------------------------------------------------------------


def _open(engine: Engine, turn: Turn, plan: Plan | None, fork: Fork, past: Past) -> list[events.Hint]:
    """Note what can be taken over, begin the plan, and bring over what the agents and the session had kept."""
    tx, session_id = turn.tx, turn.hot.id
    assert plan is not None
    sessions.put_document(tx, session_id, DOCUMENT, serial.encode(fork.document).decode())
    rows.offer(tx, session_id, [(key_of(session_id, *one), where) for *one, where in past.done])
    turn.event("session.forked", component="sessions", data=fork.document)
    settling = engine.settling(turn)
    hints = control.begin(engine, turn, Plan(plan.name, _uncached(plan.steps, fork)), settling)
    reuse = settling.reuse
    attached.copy(tx, fork.source, session_id)
    state = _state(engine, tx, fork, past, reuse.taken if reuse is not None else set())
    if state is not None:
        _bring(engine, turn, fork.source, state)
    return hints


def _uncached(steps: Sequence[Step], fork: Fork, prefix: str = "") -> tuple[Step, ...]:
    """What is to be run in any case is not answered from the cache of results either."""
    return tuple(
        replace(
            one,
            cache=False if fork.is_anew(prefix + one.name) else one.cache,
            plan=_uncached(one.plan, fork, f"{prefix}{one.name}/"),
        )
        for one in steps
    )


def _state(engine: Engine, tx: Transaction, fork: Fork, past: Past, taken: set[int]) -> checkpoints.State | None:
    """What was kept beside results: as of the fork's checkpoint; else as of now, if all is taken over, or of the newest
    checkpoint at which nothing had ended that is run again.
    """
    if fork.checkpoint is not None:
        return past.state
    if past.ended() <= taken:
        hot = sessions.look(tx, fork.source)
        return None if hot is None else checkpoints.read_state(tx, hot)
    best = None
    try:
        for _, state in checkpoints.states(tx, fork.source):
            ended = {n for n, row in state.steps.items() if row[_KIND] == "agent" and row[_STATUS] == "done"}
            best = state if ended <= taken else best
    except (CheckpointDamaged, SealBroken, KeyMissing):
        return best
    return best


def _bring(engine: Engine, turn: Turn, source: str, state: checkpoints.State) -> None:
    tx, hot = turn.tx, turn.hot
    memories = {}
    for name, body in state.agents.items():
        part = name.partition("\0")[2]
        if not part.startswith(f"{agent_parts.UNFINISHED}/"):  # of an attempt of a step of that session
            value = moved(engine.guard, serial.decode(body), source, hot.id)
            memories[name] = serial.encode(value).decode()
    if memories:
        agent_parts.replace_all(tx, hot.id, memories)
        turn.change.agents.update(memories)
    if state.values:
        keyed = engine.state.of_tenant(hot.tenant)
        scopes = [str(Scope.session(one)) for one in (source, hot.id)]
        values = copying.opened(keyed, engine.blobs, scopes[0], state.values, tx.now())
        copying.put_in(keyed, tx, scopes[1], values, Origin("fork", hot.correlation_id, hot.id))
        hot.state_changed = hot.state_changed or bool(values)
