"""How the end of one step lets others begin: waits, conditions, fan-out, fan-in, and steps that agents add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BlobDamaged, BlobNotFound, CeleriacError, PlanError, StorageError
from ..storage import calls, graph, serial, steps
from ..storage.blobs import BlobStore
from ..storage.messages import MESSAGE
from ..storage.sessions import Identity
from .agents import Registry
from .outputs import GROUPS, Outputs, Recent, prefix_of, prefixes
from .plans import Step, check_steps
from .references import Lookup, holds, resolve
from .rows import Rows, as_step, check_agents, step_from
from .turn import Turn

if TYPE_CHECKING:
    from .reuse import Reuse

#: A fan-out over more items than this is refused: it would be one transaction of as many rows.
MOST_ITEMS = 100_000
#: Error texts are kept up to this many characters.
ERROR_CHARACTERS = 4000
_HAS = {"failed": "failed", "dead": "is dead"}
_MEMBER = re.compile(r"(.+)-\d+")


def is_of_plan(fault: CeleriacError) -> bool:
    """Whether a fault lies in what a step refers to, so that another try would meet it again; else the database is
    away.
    """
    return not isinstance(fault, StorageError) or isinstance(fault, (BlobDamaged, BlobNotFound))


class Settling:
    """Carries the end of steps through the graph, inside one turn, until nothing more follows from it."""

    def __init__(
        self,
        turn: Turn,
        registry: Registry,
        blobs: BlobStore,
        session: Identity,
        queue: str,
        recent: Recent | None = None,
        reuse: Reuse | None = None,
    ) -> None:
        self._turn = turn
        self._registry = registry
        self._blobs = blobs
        self._session = session
        self._queue = queue
        self._recent = recent
        self._ended: list[tuple[int, bool, list[graph.Unblocked] | None]] = []
        #: In a fork: what steps may take over instead of being run, and those that became ready and were not asked yet.
        self.reuse = reuse
        self._fresh: list[tuple[int, str, int]] = []
        #: How many steps became ready, by queue: (count, highest priority).
        self.ready: dict[str, tuple[int, int]] = {}

    def ended(
        self,
        number: int,
        name: str,
        status: str,
        *,
        result_epoch: int | None = None,
        attempts: int = 0,
        failures: int = 0,
        error: str | None = None,
        doomed: bool = False,
        data: Any = None,
        alone: bool = False,
        freed: list[graph.Unblocked] | None = None,
    ) -> None:
        """Note that a step has ended, how, and for what `doomed` step others are doomed too; `data` goes with the
        event. If it is `alone`, its failure dooms nobody. `freed` are the steps that wait for nothing more, if those
        that wait for this one were counted down.
        """
        turn = self._turn
        turn.change.ended[number] = [status, result_epoch, attempts, failures, error, int(doomed)]
        turn.hot.open_steps -= 1
        failed = status in ("failed", "dead")
        turn.hot.failed_steps += failed
        turn.event(f"step.{status}", step=name, data={"error": error} if error and data is None else data)
        self._ended.append((number, (failed and not alone) or doomed, freed))

    def failed(self, c: steps.Claimed, status: str, error: str, failures: int) -> None:
        """Note that a claimed step has failed or is dead. That of a call is for its caller to bear, and that of a
        message for who sent it: the session goes on, and so do the messages behind it.
        """
        on_its_own = c.kind in (calls.CALL, MESSAGE)
        self.ended(c.number, c.name, status, attempts=c.attempts, failures=failures, error=error, alone=on_its_own)
        hot = self._turn.hot
        if on_its_own:
            hot.failed_steps -= 1
        else:
            hot.error = hot.error or f"step {c.name!r} {_HAS[status]}: {error}"[:ERROR_CHARACTERS]
        self._cancel_calls(c.number)

    def _cancel_calls(self, number: int) -> None:
        """Calls that a step has left when it failed for good are of no use to anybody."""
        turn, why = self._turn, "the step that called has failed"
        for call, name in calls.cancel(turn.tx, turn.hot.id, number, why):
            turn.change.ended[call] = ["cancelled", None, 0, 0, why, 0]
            turn.hot.open_steps -= 1
            turn.event("step.cancelled", step=name)
            self._cancel_calls(call)

    def run(self) -> None:
        """Follow all that has ended to its end."""
        self._follow()
        while self._fresh and self.reuse is not None:
            fresh, self._fresh = self._fresh, []
            for number, queue, priority in fresh:
                if not self.reuse.take(self, self._turn, number):
                    self._count(queue, priority)
            self._follow()

    def _follow(self) -> None:
        while self._ended:
            number, failed, freed = self._ended.pop()
            if freed is None:
                freed = graph.count_down(self._turn.tx, self._turn.hot.id, number, failed, self._turn.held)
            for one in freed:
                self.consider(one)

    def consider(self, one: graph.Unblocked) -> None:
        """Decide what becomes of a step that waits for nothing more."""
        turn, tx, session_id = self._turn, self._turn.tx, self._turn.hot.id
        if one.status == "ready":
            self._is_ready(one.number, one.queue, one.priority)
        elif one.status == "waiting":
            if one.doomed:
                self._end(one, "failed", f"a member of {one.name} failed")
            elif graph.group_done(tx, session_id, one.number):
                self.ended(one.number, one.name, "done")
        elif one.doomed:
            self._end(one, "skipped", "a step that it needs failed")
        elif one.guarded:
            try:
                self._open(one)
            except CeleriacError as fault:
                if not is_of_plan(fault):
                    raise
                self._end(one, "failed", f"{type(fault).__name__}: {fault}")
        elif graph.make_ready(tx, session_id, one.number, turn.held):
            self._is_ready(one.number, one.queue, one.priority)

    def _is_ready(self, number: int, queue: str, priority: int) -> None:
        if self.reuse is not None:
            self._fresh.append((number, queue, priority))
        else:
            self._count(queue, priority)

    def _count(self, queue: str, priority: int) -> None:
        count, highest = self.ready.get(queue, (0, 0))
        self.ready[queue] = (count + 1, max(highest, priority))

    def _end(self, one: graph.Unblocked, status: str, why: str) -> None:
        why = serial.storable(why)
        if graph.end(self._turn.tx, self._turn.hot.id, one.number, status, why):
            self.ended(one.number, one.name, status, error=why, doomed=bool(one.doomed))
            if status == "failed" and not one.doomed:
                self._turn.hot.error = self._turn.hot.error or f"step {one.name!r} failed: {why}"

    def _open(self, one: graph.Unblocked) -> None:
        """A guarded step: test its condition, then make it ready or, for a group, add its members."""
        tx, session_id = self._turn.tx, self._turn.hot.id
        body = serial.decode(graph.input_of(tx, session_id, one.number))
        lookup = Outputs(tx, self._blobs, self._session, one.name, body.get("item"), self._recent)
        if "when" in body and not holds(body["when"], lookup):
            if graph.end(tx, session_id, one.number, "skipped", None):
                self.ended(one.number, one.name, "skipped", data={"condition": body["when"]})
        elif one.kind in GROUPS:
            self._expand(one, body, lookup)
        elif graph.make_ready(tx, session_id, one.number, self._turn.held):
            self._is_ready(one.number, one.queue, one.priority)

    def _expand(self, group: graph.Unblocked, body: dict[str, Any], lookup: Lookup) -> None:
        template = step_from(body["step"])
        if group.kind == "each":
            items = _items(template, lookup)
            rows = self._rows(prefix_of(group.name), group.phase)
            rows.add_each(template, group.number, items)
        else:
            rows = self._rows(f"{group.name}/", group.phase)
            rows.add(template.plan, group.number, body.get("item"))
        tx, session_id = self._turn.tx, self._turn.hot.id
        if graph.open_group(tx, session_id, group.number, len(rows.steps)):
            self._turn.change.opened.append(group.number)
        self._turn.event("step.expanded", step=group.name, data={"steps": len(rows.steps)})
        self.insert(rows)
        if not rows.steps and graph.group_done(tx, session_id, group.number):
            self.ended(group.number, group.name, "done")

    def _rows(self, prefix: str, phase: str) -> Rows:
        hot = self._turn.hot
        return Rows(
            self._registry,
            self._queue,
            hot.total_steps,
            epoch=hot.epoch_floor,
            prefix=prefix,
            held=self._turn.held,
            phase=phase,
        )

    def begin(self, plan: Sequence[Step]) -> None:
        """Add the steps of a session's plan."""
        rows = self._rows("", "")
        rows.add(plan)
        self.insert(rows)

    def insert(self, rows: Rows) -> None:
        """Add rows to the session: plain ones that wait for nothing are ready, groups and guarded ones are
        considered.
        """
        turn = self._turn
        graph.add(turn.tx, turn.hot.id, rows.steps, rows.inputs, rows.edges)
        for mine, new in zip(turn.change.added, rows.kept(), strict=True):
            mine.extend(new)
        turn.hot.total_steps += len(rows.steps)
        turn.hot.open_steps += len(rows.steps)
        for row in rows.steps:
            if row["status"] == "ready":
                self._is_ready(row["number"], row["queue"], row["priority"])
            elif not row["pending"]:
                columns = {c: row.get(c, 0) for c in graph.Unblocked.__slots__}
                self.consider(graph.Unblocked(**columns))

    def add_steps(self, by: int, name: str, phase: str, added: Sequence[Any]) -> None:
        """Steps that an agent added: they run after what they name; whatever waits for the adding step waits for
        them too.
        """
        tx, session_id = self._turn.tx, self._turn.hot.id
        prefix = prefix_of(name)
        plan = [as_step(one) for one in added]
        own = {one.name for one in plan}
        needed = {n: found for one in plan for n in one.waits_for() if n not in own for found in [self._reach(name, n)]}
        check_steps(plan, name, frozenset(needed))
        check_agents(plan, self._registry)
        later = self._after(by) if needed else set()
        for one in plan:
            self._check_new(name, prefix, one)
        for source in needed.values():
            if source.number in later or source.status in ("failed", "dead"):
                why = "has failed" if source.status in ("failed", "dead") else "itself waits for the step that adds it"
                raise PlanError(f"step {name!r} adds a step that waits for {source.name!r}, which {why}")
        rows = self._rows(prefix, phase if prefix else "")
        rows.add(plan)
        for one in plan:
            for needs in one.waits_for():
                found = needed.get(needs)
                if found is not None and found.status not in steps.FINAL:
                    rows.wait_for(found.number, one.name)
        for target in graph.targets_of(tx, session_id, by):
            if graph.wait_more(tx, session_id, target, len(rows.steps)):
                rows.edges += [(row["number"], target) for row in rows.steps]
        self.insert(rows)
        self._turn.event("plan.extended", step=name, data={"steps": [row["name"] for row in rows.steps]})

    def _check_new(self, by: str, prefix: str, one: Step) -> None:
        """Refuse a name that the session has, or that a fan-out gives or would give to one of its members."""
        tx, session_id = self._turn.tx, self._turn.hot.id
        clash = graph.find(tx, session_id, prefix + one.name)
        member = _MEMBER.fullmatch(one.name)
        if clash is None and member is not None:
            clash = graph.find(tx, session_id, prefix + member[1])
            clash = clash if clash is not None and clash.kind == "each" else None
        if clash is None and one.each:
            start = f"{prefix}{one.name}-"
            taken = [n for n in graph.names_starting(tx, session_id, start) if n[len(start) :].isdecimal()]
            clash = graph.find(tx, session_id, taken[0]) if taken else None
        if clash is not None:
            raise PlanError(f"step {by!r} adds a step {one.name!r}, which clashes with {clash.name!r} of the session")

    def _after(self, by: int) -> set[int]:
        """Numbers of all steps that wait for a step, directly or through others."""
        found: set[int] = set()
        front = [by]
        while front:
            new = set(graph.targets_of(self._turn.tx, self._turn.hot.id, front.pop())) - found
            found |= new
            front += new
        return found

    def _reach(self, of: str, name: str) -> graph.Found:
        for prefix in prefixes(of):
            found = graph.find(self._turn.tx, self._turn.hot.id, prefix + name)
            if found is not None:
                return found
        raise PlanError(f"step {of!r} adds a step that waits for {name!r}, which the session does not have")


def _items(template: Step, lookup: Lookup) -> list[Any]:
    items = resolve((template.each or "")[2:-1], lookup)
    if items is None:
        return []
    if not isinstance(items, list):
        raise PlanError(f"step {template.name!r}: each={template.each} is {type(items).__name__}, not a list")
    if len(items) > MOST_ITEMS:
        raise PlanError(
            f"step {template.name!r}: each={template.each} has {len(items)} items; at most {MOST_ITEMS} are allowed"
        )
    return items
