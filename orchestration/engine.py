"""The engine: claims steps, records how they end, and says what is next. Knows no Celery; a plain loop can drive it.

The trip of a step is `claim` -> (the agent runs, no transaction open) -> `finish` or `fail`. Finishing a step and
claiming the next one of its session are one transaction.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import Settings
from ..errors import CeleriacError, SessionNotFound
from ..storage import checkpoints, events, graph, messages, ready, results, serial, steps
from ..storage.blobs import BlobStore
from ..storage.cache import counters
from ..storage.database import Call, Database, Row, Transaction
from ..storage.faults import point
from ..storage.histories.opening import open_place
from ..storage.keys.codec import Codec
from ..storage.presence import Presence
from . import conflicts, quotas
from .agents import AgentOutput, Registry
from .bell import Bell
from .expansion import ERROR_CHARACTERS, Settling, is_of_plan
from .guard import doors
from .guard.access import Access, Caller, StateDoor
from .hinting import Hints
from .memory import remembering
from .memory.memory import PersistentAgentState
from .outputs import Outputs, Recent
from .references import render
from .reuse import Known, Reuse, made_by
from .session_cache import SessionCache
from .state import stepstate
from .state.opened import OpenedState, bound
from .state.state import State
from .states import AT_REST
from .trees.lines import Trees
from .turn import Turn, once
from .work import Lost, Next, Work, lost

if TYPE_CHECKING:
    from .cache.hit import Hit

logger = logging.getLogger("celeriac.engine")
T = TypeVar("T")

#: A retry never waits longer than this, in seconds.
LONGEST_BACKOFF = 3600.0


class Engine:
    """Everything that decides, over one database, one blob store and one registry of agents."""

    #: Keyed state.
    state = OpenedState()

    def __init__(self, settings: Settings, registry: Registry, database: Database | None = None) -> None:
        self.settings = settings
        self.registry = registry
        self.database = database or Database(settings.database)
        self.keyring, self.guard = doors.open_for(settings)
        self.database.codec = codec = Codec.load(settings, self.keyring)
        self.blobs = BlobStore(settings.data_dir / "blobs", codec=codec)
        self.conversations = open_place(settings.history_url, self.database, self.blobs, settings.inline_result_bytes)
        self.quotas = quotas.Quotas(settings)
        self.access = Access(self.database, settings.access == "on")
        #: Who calls where nobody else is named.
        self.caller = Caller(settings.principal, settings.tenant)
        self.presence = Presence(settings.data_dir / "alive")
        self.bell = Bell()
        #: What reading sessions costs, kept at hand.
        self.copies = SessionCache(settings.session_cache_entries, settings.session_cache_seconds)
        #: Told after each commit that added events: (session id, number of the last event).
        self.listeners: list[Callable[[str, int], None]] = []
        self.hints = Hints()
        self.trees = Trees(self)
        self._known = Known()
        self._recent = Recent()

    def state_for(self, caller: Caller) -> State:
        """Keyed state as a caller has it: that of its tenant, each operation checked."""
        return bound(self.state, StateDoor(self.access, caller))

    # -- turns -------------------------------------------------------------------------------------------------------

    def _changed(self, session_id: str, seq: int, status: str) -> None:
        self.bell.ring(session_id, status in AT_REST)
        for listener in self.listeners:
            try:
                listener(session_id, seq)
            except Exception:  # what it tells of is in the database; a listener must not make it look as if it were not
                logger.exception("a listener failed")

    def turn(self, tx: Transaction, session_id: str, first: Sequence[Call] = ()) -> Turn:
        """Open a turn on a session inside a write transaction."""
        return Turn(tx, session_id, self._changed, first)

    def in_turn(self, session_id: str, work: Callable[[Turn], T], first: Sequence[Call] = (), synced: bool = True) -> T:
        """Run `work` in a turn of its own and give what it gives. It goes in once, whatever happens to the COMMIT.

        A claim need not be `synced`: without power there is no worker either, and the step is ready again.
        The statements of `first` are run before it, behind the lock; `turn.found` holds their rows. Raises
        SessionNotFound.
        """
        return once(self.database, lambda tx, calls: self.turn(tx, session_id, calls), work, first, synced)

    def settling(self, turn: Turn) -> Settling:
        """What carries ends of steps on, inside a turn."""
        lasting = self._known.of(turn.tx, turn.hot.id)
        reuse = Reuse(self, lasting, lasting.fork) if lasting.fork is not None else None
        return Settling(turn, self.registry, self.blobs, lasting.identity, self.settings.queue, self._recent, reuse)

    def note(self, session_id: str, component: str, rows: list[tuple[str, Any]]) -> None:
        """Append events (type, data) to a session. Raises SessionNotFound."""

        def work(turn: Turn) -> None:
            for type_, data in rows:
                turn.event(type_, component=component, data=data)

        self.in_turn(session_id, work)

    # -- claim -------------------------------------------------------------------------------------------------------

    def claim(self, session_id: str, queue: str | None = None) -> Work | None:
        """Claim the best ready step of a session (on one queue, or on any), or None if there is none to be had."""
        if not self.database.read(lambda tx: ready.ready_left(tx, session_id)):
            return None
        return self._claim(session_id, queue)

    def _claim(self, session_id: str, queue: str | None) -> Work | None:
        def work(turn: Turn) -> Next | None:
            return self._claim_in(turn, queue)

        return self._loaded(self.in_turn(session_id, work, synced=False), queue)

    def claim_any(self, queue: str | None = None) -> Work | None:
        """Claim a ready step of whichever session has one (on one queue, or on any), or None.

        Of the oldest sessions that wait, one of the highest priority; which one is left to chance, so that workers
        that look at the same moment do not all want the same.
        """
        found = self.database.read(lambda tx: ready.waiting(tx, queue))
        if not found:
            return None
        highest = max(priority for _, priority in found)
        session_id = random.choice([session for session, priority in found if priority == highest])
        with contextlib.suppress(SessionNotFound):
            return self._claim(session_id, queue)
        return None

    def _claim_in(self, turn: Turn, queue: str | None, just: tuple[str, bytes] | None = None) -> Next | None:
        if turn.held:
            return None
        found = steps.claim(turn.tx, turn.hot.id, self.presence.claim(), self.settings.lease_seconds, queue)
        return self.taken(turn, found, just) if found is not None else None

    def taken(self, turn: Turn, found: steps.Claimed, just: tuple[str, bytes] | None = None) -> Next:
        """Note a claim, and read in the same transaction what its agent needs, unless that is large.

        `just` is the name and the output (JSON) of the step that this turn records.
        """
        turn.hot.phase = found.phase
        turn.event("step.started", step=found.name, data={"agent": found.agent, "attempt": found.attempts})
        try:
            return Next(found, self._load(turn.tx, found, whole=False, just=just))
        except CeleriacError:  # large, or it cannot be rendered: `load` sees which, outside of the transaction
            return Next(found, None)

    def _loaded(self, following: Next | None, queue: str | None) -> Work | None:
        """The work of a claim; if its request cannot be rendered, its step has failed, and the next one is claimed."""
        if following is None:
            return None
        point("after-claim")
        work = following.work or self.load(following.claimed)
        return work if work is not None else self.claim(following.claimed.session_id, queue)

    def load(self, claimed: steps.Claimed) -> Work | None:
        """Read what a claimed step's agent needs. A request that cannot be rendered fails the step, and gives None."""
        try:
            return self.database.read(lambda tx: self._load(tx, claimed))
        except CeleriacError as fault:
            if not is_of_plan(fault):
                raise
            empty = Work(claimed, (claimed.session_id, "", "", claimed.session_id, ""), None, None)
            with contextlib.suppress(Lost):
                self.fail(empty, fault, retry=False)
            return None

    def _load(
        self, tx: Transaction, claimed: steps.Claimed, whole: bool = True, just: tuple[str, bytes] | None = None
    ) -> Work:
        lasting = self._known.of(tx, claimed.session_id)
        body = serial.decode(graph.input_of(tx, claimed.session_id, claimed.number, claimed.input))
        request = body.get("request")
        if not body.get("literal"):
            blobs = self.blobs if whole else None
            lookup = Outputs(tx, blobs, lasting.identity, claimed.name, body.get("item"), self._recent, just)
            request = render(request, lookup)
        request = doors.opened(self.guard, request, claimed.session_id)
        may_cache, forked = body.get("cache") is not False, lasting.fork is not None
        return Work(claimed, lasting.identity, request, lasting.permissions, may_cache=may_cache, forked=forked)

    def agent_state(self, work: Work) -> PersistentAgentState:
        """The memory of the step's agent in this session; changes to it are recorded with the step's result."""
        return remembering.recall(self, work)

    # -- the end of a step -------------------------------------------------------------------------------------------

    def finish(self, work: Work, output: AgentOutput, carry: bool = False, queue: str | None = None) -> Work | None:
        """Record a step's output, once, and with `carry` claim the next step of its session in the same transaction.

        Raises Lost, and writes nothing, if the claim is no longer this worker's; NotSerializable, TooLarge, AgentError,
        PlanError and QuotaExceeded for an output that cannot be recorded.
        """
        c = work.claimed
        doors.guard_output(self.guard, work, output)
        data = serial.encode(output.data, what=f"output of {c.name}", limit=self.settings.max_result_bytes)
        stored = quotas.store(self, c.session_id, data)
        maker, added = made_by(self.registry, work, output)
        self._recent.keep(c.session_id, c.number, c.epoch, data)
        first = [steps.finishing(c, cached=work.hit is not None)]
        # What waits for this step will wait for new ones too; for a call nothing waits.
        if not (output.add_steps or work.inline):
            first.append(graph.counting_down(self.database.dialect.name, c.session_id, c.number))
            if carry and not work.forked:  # in a fork, what is ready is not claimed before it was looked for
                first.append(steps.claiming(c.session_id, self.presence.claim(), self.settings.lease_seconds, queue))

        def record(turn: Turn) -> _Recorded:
            mine, *more = turn.found
            if not mine:
                raise lost(c)
            quotas.count(self, turn, stored)
            figures = (output.confidence, output.cost, maker, added)
            results.record(turn.tx, self.blobs, c.session_id, c.number, c.epoch, stored, *figures)
            if work.hit is not None:
                counters.save(turn.tx, c, work.hit.entry.seconds, work.hit.entry.cost)
            self.write_partials(turn, work)
            conflicts.record(turn, c, output.findings, self.conflict_strategy)
            remembering.keep(turn, work)
            stepstate.keep(turn, work)
            settling = self.settling(turn)
            settling.ended(
                c.number,
                c.name,
                "done",
                result_epoch=c.epoch,
                attempts=c.attempts,
                failures=c.failures,
                data=_summary(output, stored.size, work.hit),
                freed=graph.unblocked(more.pop(0) if more else ()) if not output.add_steps else None,
            )
            if output.add_steps:
                settling.add_steps(c.number, c.name, c.phase, output.add_steps)
            just = (c.name, data)
            return self._conclude(turn, settling, carry, queue, work.inline, just, more.pop() if more else None)

        following = self._next(c, record, queue, first)
        work.recorded = data if work.inline else None
        return following

    def owner_of(self, tx: Transaction, session_id: str) -> tuple[str, str]:
        """Whose session it is: tenant and user."""
        _, _, user, _, tenant = self._known.of(tx, session_id).identity
        return tenant, user

    def fail(
        self, work: Work, error: BaseException, retry: bool = True, carry: bool = False, queue: str | None = None
    ) -> Work | None:
        """Record that an attempt failed: the step is retried after its backoff, or has failed for good.

        Raises Lost, and writes nothing, if the claim is no longer this worker's.
        """
        c = work.claimed
        again = retry and c.failures < c.retries
        text = serial.storable(self.guard.text(f"{type(error).__name__}: {error}")[:ERROR_CHARACTERS])
        delay = (
            random.uniform(0.5, 1.0) * min(c.backoff * 2.0 ** min(c.failures, 64), LONGEST_BACKOFF) if again else 0.0
        )

        def record(turn: Turn) -> _Recorded:
            if not steps.fail(turn.tx, c, "ready" if again else "failed", text, delay, turn.held):
                raise lost(c)
            self.write_partials(turn, work)
            settling = self.settling(turn)
            if again:
                after = {"error": text, "after_seconds": round(delay, 3), "attempt": c.attempts}
                turn.event("step.retry", step=c.name, data=after)
            else:
                settling.failed(c, "failed", text, failures=c.failures + 1)
            return self._conclude(turn, settling, carry, queue, work.inline)

        following = self._next(c, record, queue)
        if again:
            self.hints.later(c, delay)
        return following

    def _conclude(
        self,
        turn: Turn,
        settling: Settling,
        carry: bool,
        queue: str | None,
        inline: bool,
        just: tuple[str, bytes] | None = None,
        claims: list[Row] | None = None,
    ) -> _Recorded:
        """The second half of every end: let others begin, claim the next step, write hints, end the session if it is
        over. `claims` are the rows of a claim that was tried before others were let begin. A worker whose step is
        `inline`, a call of another one, stays.
        """
        settling.run()
        following = None
        if claims:
            following = self.taken(turn, steps.Claimed(*claims[0]), just)
        elif carry and (claims is None or settling.ready):
            following = self._claim_in(turn, queue, just)
        taken = following.claimed if following is not None else None
        hints = self.hints.write(turn, settling, taken, keep=carry or inline)
        if not turn.hot.open_steps:
            self.end_session(turn)
        return _Recorded(following, hints)

    def _next(
        self, c: steps.Claimed, record: Callable[[Turn], _Recorded], queue: str | None, first: Sequence[Call] = ()
    ) -> Work | None:
        try:
            recorded = self.in_turn(c.session_id, record, first)
        except SessionNotFound:  # it was deleted meanwhile
            raise lost(c) from None
        if recorded.hints:
            self.hints.publish(recorded.hints)
        return self._loaded(recorded.following, queue)

    def write_partials(self, turn: Turn, work: Work) -> None:
        """Write the partial results that wait, in order, each as an event too. They stop waiting once that is
        committed.
        """
        if not work.partials:
            return
        c = work.claimed
        bodies = list(work.partials)
        rows = []
        for body in bodies:
            seq = turn.event("step.partial", step=c.name, component="agent", data=serial.decode(body))
            rows.append({"seq": seq, "number": c.number, "agent": c.agent, "body": body})
            turn.hot.stored_bytes += len(body)
        results.add_partials(turn.tx, c.session_id, rows)
        turn.tx.after_commit.append(lambda: _drop(work.partials, len(bodies)))

    # -- the end of a session ----------------------------------------------------------------------------------------

    #: How conflicts between findings are settled: a name of `conflicts.STRATEGIES`.
    conflict_strategy = "highest_confidence"

    def end_session(self, turn: Turn) -> None:
        """All steps have ended: the session is completed, or failed if one failed. A conversation stays open."""
        hot = turn.hot
        if hot.status not in ("active", "paused") or messages.keep_open(turn.tx, hot):
            return
        hot.status = "failed" if hot.failed_steps else "completed"
        hot.phase = hot.status
        hot.completed_at = turn.tx.now()
        turn.event(f"session.{hot.status}", data={"error": hot.error} if hot.error else None)
        turn.kind = "final"
        freed = checkpoints.prune(turn.tx, hot, self.settings.checkpoints_kept)
        results.let_go(turn.tx, self.database, self.blobs, freed)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What one recording transaction led to: the next claim, and hints to be published."""

    following: Next | None
    hints: list[events.Hint]


def _drop(waiting: list[str], count: int) -> None:
    del waiting[:count]


def _summary(output: AgentOutput, size: int, hit: Hit | None) -> dict[str, Any]:
    summary: dict[str, Any] = {"bytes": size}
    if hit is not None:
        summary["cached"] = hit.where
    for key in ("confidence", "cost"):
        if getattr(output, key) is not None:
            summary[key] = getattr(output, key)
    if output.findings:
        summary["findings"] = len(output.findings)
    return summary


__all__ = ["Engine", "Lost", "Work"]
