"""Forks: a step of a session that was made from another takes over what an equal step of that one gave.

Equal are steps of the same agent in the same version, with the same request when it is filled in, and the same
permissions granted. Each step is looked for when it becomes ready, in the turn that makes it so: so a step that comes
after one that was run again, and gave what it gave before, is not run.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..errors import CeleriacError, SessionNotFound
from ..storage import findings, graph, results, serial, sessions
from ..storage import reuse as rows
from ..storage.database import Transaction
from ..storage.sessions import Identity
from . import conflicts, quotas
from .agents import AgentOutput, Finding, Registry, maker_of
from .expansion import Settling, is_of_plan
from .guard import doors
from .guard.policy import Policy
from .outputs import Outputs
from .references import Lookup, render
from .rows import as_step
from .turn import Turn
from .work import Work

if TYPE_CHECKING:
    from .engine import Engine

#: The document of a fork that says what it was made from.
DOCUMENT: Final = "fork"
_MOST_KNOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class Fork:
    """What a fork was made from: `source` is a session's id, `checkpoint` the number of one, `anew` names steps that
    are run in any case, and all that is within them; those of fan-outs end with a star.
    """

    source: str
    checkpoint: int | None
    anew: tuple[str, ...]

    @property
    def document(self) -> dict[str, Any]:
        """As it is kept."""
        return {"source": self.source, "checkpoint": self.checkpoint, "anew": list(self.anew)}

    def is_anew(self, name: str) -> bool:
        """Whether the step of that name is to be run in any case."""
        return any(_within(one).fullmatch(name) for one in self.anew)


def _within(name: str) -> re.Pattern[str]:
    """The names of a step and of those within it: `a`, `a/b`; of a fan-out also `a-0`, `a-0/b`."""
    return re.compile(re.escape(name.removesuffix("*")) + (r"(-\d+)?" if name.endswith("*") else "") + "(/.*)?")


@dataclass(frozen=True, slots=True)
class Lasting:
    """What never changes of a session."""

    identity: Identity
    permissions: list[str] | None
    fork: Fork | None


class Known:
    """What never changes of sessions, kept at hand."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Lasting] = OrderedDict()

    def of(self, tx: Transaction, session_id: str) -> Lasting:
        """Of a session. Raises SessionNotFound."""
        known = self._kept.get(session_id)
        if known is None:
            identity = sessions.identity(tx, session_id)
            if identity is None:
                raise SessionNotFound(f"no session {session_id!r}")
            found = sessions.documents_named(tx, session_id, "permissions", DOCUMENT)
            texts = {name: serial.decode(text) for name, text in found.items()}
            fork = texts.get(DOCUMENT)
            known = Lasting(
                identity,
                texts.get("permissions"),
                Fork(fork["source"], fork["checkpoint"], tuple(fork["anew"])) if fork else None,
            )
            self._kept[session_id] = known
            if len(self._kept) > _MOST_KNOWN:
                self._kept.popitem(last=False)
        return known


def made_by(registry: Registry, work: Work, output: AgentOutput) -> tuple[str | None, str | None]:
    """What is recorded with a result so that a fork can take it over: what made it, and the steps that it added."""
    agent = registry.find(work.claimed.agent)
    added = [as_step(one).to_dict() for one in output.add_steps] if output.add_steps else None
    return (
        None if agent is None else maker_of(agent, work.permissions),
        None if added is None else serial.encode(added, what="added steps").decode(),
    )


def request_of(policy: Policy, session_id: str, body: Mapping[str, Any], lookup: Lookup) -> Any:
    """A request as its agent gets it, from the input of its step."""
    asked = body.get("request")
    return doors.opened(policy, asked if body.get("literal") else render(asked, lookup), session_id)


def key_of(session_id: str, agent: str, maker: str, request: Any) -> str:
    """A hash over all that decides what a step gives, keyed so that those of two forks do not show as equal."""
    key = hashlib.blake2b(session_id.encode(), digest_size=16).digest()
    return hashlib.blake2b(serial.canonical([agent, maker, request]), key=key, digest_size=16).hexdigest()


def moved(policy: Policy, value: Any, source: str, target: str) -> Any:
    """A value of one session as another one is to have it: fields that a rule sealed are sealed for that one."""
    if not policy.seals:
        return value
    return policy.apply(policy.reveal(value, doors.place_of(source)), doors.place_of(target))


@dataclass(frozen=True, slots=True)
class _Claim:
    """A step that takes a result over, as if it had been claimed."""

    number: int
    name: str
    agent: str
    epoch: int


class Reuse:
    """What the steps of one fork may take over, in one turn."""

    def __init__(self, engine: Engine, lasting: Lasting, fork: Fork) -> None:
        self._engine = engine
        self._lasting = lasting
        self._fork = fork
        #: Numbers of the steps whose results were taken over, in the session that the fork was made from.
        self.taken: set[int] = set()

    def take(self, settling: Settling, turn: Turn, number: int) -> bool:
        """Let a ready step take over what an equal one gave; False if it has to be run."""
        tx, session_id, source = turn.tx, turn.hot.id, self._fork.source
        ready = rows.ready(tx, session_id, number)
        if ready is None or ready.kind != "agent" or self._fork.is_anew(ready.name):
            return False
        before = turn.hot.stored_bytes, turn.hot.stored_blobs
        try:
            key = self._key(tx, ready)
            found = rows.find(tx, session_id, key, ready.name) if key is not None else None
            past = results.past(tx, source, found.number, found.epoch) if found is not None else None
            if found is None or past is None:
                return False
            stored, added = self._moved(past, session_id)
            quotas.count(self._engine, turn, stored)
            if added:
                settling.add_steps(number, ready.name, ready.phase, added)
        except CeleriacError as fault:
            if not is_of_plan(fault):
                raise
            turn.hot.stored_bytes, turn.hot.stored_blobs = before
            return False  # why it cannot be taken over is told when it is run
        epoch = rows.finish(tx, session_id, number)
        text = serial.encode(added).decode() if added else None
        figures = (past.confidence, past.cost, past.maker, text)
        results.record(tx, self._engine.blobs, session_id, number, epoch, stored, *figures)
        self._tell(turn, _Claim(number, ready.name, ready.agent, epoch), found)
        told = {"bytes": past.size, "reused": f"{source}/{found.number}"}
        settling.ended(number, ready.name, "done", result_epoch=epoch, data=told)
        self.taken.add(found.number)
        return True

    def _key(self, tx: Transaction, ready: rows.Ready) -> str | None:
        """None where this process does not know the agent. Raises what tells that the step cannot be run."""
        engine, identity = self._engine, self._lasting.identity
        agent = engine.registry.find(ready.agent)
        if agent is None:
            return None
        body = serial.decode(graph.input_of(tx, identity[0], ready.number))
        lookup = Outputs(tx, engine.blobs, identity, ready.name, body.get("item"))
        request = request_of(engine.guard, identity[0], body, lookup)
        return key_of(identity[0], ready.agent, maker_of(agent, self._lasting.permissions), request)

    def _moved(self, past: results.Past, session_id: str) -> tuple[results.Stored, Sequence[Any]]:
        engine, source = self._engine, self._fork.source
        added = serial.decode(past.added) if past.added else []
        if engine.guard.seals:
            value = moved(engine.guard, serial.decode(past.data(engine.blobs)), source, session_id)
            stored = results.store(serial.encode(value), engine.blobs, engine.settings.inline_result_bytes)
            return stored, moved(engine.guard, added, source, session_id)
        if past.blob is not None and not engine.blobs.exists(past.blob):
            past.data(engine.blobs)  # which says what is wrong with it
        return results.Stored(past.body or b"", past.blob, past.size), added

    def _tell(self, turn: Turn, claim: _Claim, found: rows.Reusable) -> None:
        """Its findings too, and what conflicts they raise in this session."""
        source, names = self._fork.source, ("entity", "attribute", "value", "confidence", "evidence", "exclusive")
        known = findings.of_result(turn.tx, source, found.number, found.epoch)
        plain = [moved(self._engine.guard, {name: one[name] for name in names}, source, turn.hot.id) for one in known]
        conflicts.record(turn, claim, [Finding(**one) for one in plain], self._engine.conflict_strategy)
