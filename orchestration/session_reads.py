"""What users read of one session. All state is in the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import SessionNotFound, StepNotFound
from ..storage import agent_parts, checkpoints, findings, graph, results, serial, sessions
from ..storage.cache import counters
from ..storage.database import Transaction
from ..storage.messages import MESSAGE
from . import control, streams
from .engine import Engine
from .guard.access import Caller, Right, needs
from .guard.doors import place_of
from .outputs import Outputs
from .plans import Plan
from .session_cache import Reading
from .views import agent_views, archive_view, conflict_view, differences, moment, saved_view, session_view, step_views

T = TypeVar("T")


class SessionReads:
    """What a session says, as of now: copies at hand are checked against the database first."""

    def __init__(
        self,
        engine: Engine,
        session_id: str,
        waker: streams.Waker | None = None,
        attend: Callable[[], None] | None = None,
        caller: Caller | None = None,
        owner: str | None = None,
    ) -> None:
        self.id = session_id
        self._engine = engine
        self._waker = waker
        self._attend = attend  # called before waiting: sees to it that somebody runs the session
        self._caller = engine.caller if caller is None else caller
        self._owner = owner  # its user; None: not yet looked up, nor whether it is of the caller's tenant

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    def _require(self, right: Right) -> None:
        """Raise SessionNotFound where it is another tenant's, AccessDenied where the caller lacks that right."""
        access = self._engine.access
        if self._owner is None:
            self._owner = access.owner_of(self._caller, self.id)
        if access.on:
            access.require(self._caller, right, f"session:{self.id}", owner=self._owner)

    def _read(self, work: Callable[[Reading], T]) -> T:
        return self._engine.copies.read(self._engine.database, self.id, work)

    def _row(self) -> dict[str, Any]:
        return self._read(self._row_of)

    def _row_of(self, reading: Reading) -> dict[str, Any]:
        row = reading.part("row", lambda tx: sessions.get(tx, self.id))
        if row is None:
            raise SessionNotFound(f"no session {self.id!r}")
        return row

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    @needs("read")
    def status(self) -> str:
        """active, paused, completed, failed, cancelled or archived."""
        return self._read(lambda reading: reading.status)

    @property
    @needs("read")
    def query(self) -> str:
        return str(self._row()["query"])

    @property
    @needs("read")
    def user(self) -> str:
        return str(self._row()["user"])

    @property
    @needs("read")
    def error(self) -> str | None:
        """Why the session failed, or None."""
        error: str | None = self._row()["error"]
        return error

    @property
    @needs("read")
    def progress(self) -> float:
        """How much of its steps is done, 0..1; running steps count in part."""
        return float(self.to_dict(details=False)["progress"])

    @property
    @needs("read")
    def result(self) -> Any:
        """The output of the step that nothing follows; where there are several, an object of them by step name. None
        before.
        """
        return self._read(lambda reading: reading.part("result", self._result))

    def _outputs(self, tx: Transaction) -> Outputs:
        identity = sessions.identity(tx, self.id)
        if identity is None:
            raise SessionNotFound(f"no session {self.id!r}")
        return Outputs(tx, self._engine.blobs, identity)

    def _result(self, tx: Transaction) -> Any:
        lookup = self._outputs(tx)
        ends = graph.ends(tx, self.id)
        of_plan = [step for step in ends if step.kind != MESSAGE]
        values = {step.name: lookup.of(step) for step in of_plan or ends}
        return values if len(values) > 1 else next(iter(values.values()), None)

    @property
    @needs("read")
    def saved(self) -> dict[str, Any]:
        """What the cache of results has spared it: {runs, seconds, cost}."""
        return saved_view(*self._read(self._saved))

    def _saved(self, reading: Reading) -> Sequence[Any]:
        return reading.part("saved", lambda tx: counters.saved(tx, self.id))

    @property
    @needs("read")
    def report(self) -> Any:
        """The final report that `complete` was given, or None."""
        return self._document("report")

    @property
    @needs("read")
    def plan(self) -> Plan | None:
        """The plan that it was started with, or None."""
        found = self._document("plan")
        return Plan.from_dict(found) if found else None

    def _document(self, name: str) -> Any:
        def read(tx: Transaction) -> str | None:
            return sessions.document(tx, self.id, name)

        text = self._read(lambda reading: reading.part(f"document {name}", read))
        return serial.decode(text) if text else None

    @needs("read")
    def steps(self) -> list[dict[str, Any]]:
        """Its steps: id, name, agent, status, attempts, progress, error, started_at, finished_at, cached ... in plan
        order.
        """

        def read(reading: Reading) -> list[dict[str, Any]]:
            rows = reading.steps()
            if not rows:
                self._row_of(reading)
            return rows

        return step_views(self.id, self._read(read))

    @needs("read")
    def output(self, name: str) -> Any:
        """The output of the step of that name (or the list of a fan-out's). Raises StepNotFound."""

        def find(tx: Transaction) -> Any:
            lookup = self._outputs(tx)
            found = graph.find(tx, self.id, name) if serial.is_storable(name) else None
            if found is None:
                known = ", ".join(s["name"] for s in graph.overview(tx, self.id)) or "none"
                raise StepNotFound(f"no step {name!r} in session {self.id}; it has: {known}")
            return lookup.of(found)

        return self._read(lambda reading: reading.part(f"output {name}", find))

    @needs("read")
    def asked(self, name: str) -> dict[str, Any]:
        """What the step of that name is asked, as the plan has it: {request, item}; both None for a group."""

        def find(tx: Transaction) -> str | None:
            found = graph.find(tx, self.id, name) if serial.is_storable(name) else None
            return graph.input_of(tx, self.id, found.number) if found is not None else None

        text = self._engine.database.read(find)
        body = serial.decode(text) if text else {}
        return {"request": body.get("request"), "item": body.get("item")}

    @needs("read")
    def last_event(self) -> int:
        """The number of its last event."""
        return self._read(lambda reading: int(reading.version[0]))

    @needs("read")
    def partials(self) -> dict[str, list[Any]]:
        """Partial results by agent, in order."""
        merged: dict[str, list[Any]] = {}
        for _, _, agent, value in self._engine.database.read(lambda tx: results.partials(tx, self.id)):
            merged.setdefault(agent, []).append(value)
        return merged

    @needs("read")
    def agent_states(self) -> dict[str, Any]:
        """Live state of its agents: status, progress, current task, error, last update, and what the agent itself
        keeps: `memory` is all of that, `state` its execution state.
        """
        rows, kept = self._engine.database.read(
            lambda tx: (graph.overview(tx, self.id), agent_parts.memories(tx, self.id))
        )
        return agent_views(rows, kept)

    @needs("read")
    def findings(self) -> list[dict[str, Any]]:
        """What its agents found out, in the order in which it came."""
        return [{**f, "created_at": moment(f["created_at"])} for f in self._read(self._findings)]

    def _findings(self, reading: Reading) -> list[dict[str, Any]]:
        return reading.part("findings", lambda tx: findings.all_of(tx, self.id))

    @needs("read")
    def conflicts(self) -> list[dict[str, Any]]:
        """Findings that disagree: both findings, severity, strategy, and how it was resolved."""
        return self._read(self._conflicts)

    def _conflicts(self, reading: Reading) -> list[dict[str, Any]]:
        rows = reading.part("conflicts", lambda tx: findings.conflicts_of(tx, self.id))
        by_id = {f["id"]: f for f in self._findings(reading)} if rows else {}
        return [conflict_view(row, by_id) for row in rows if row["first"] in by_id and row["second"] in by_id]

    @needs("read")
    def checkpoints(self) -> list[dict[str, Any]]:
        """Its checkpoints, oldest first: id, number, kind, label, seq (last event that it covers), size (bytes),
        marked, created_at.
        """
        return self._read(self._checkpoints)

    def _checkpoints(self, reading: Reading) -> list[dict[str, Any]]:
        rows = reading.part("checkpoints", lambda tx: checkpoints.listing(tx, self.id))
        return [
            {
                "id": f"{self.id}:{row['number']}",
                **row,
                "marked": bool(row["marked"]),
                "created_at": moment(row["created_at"]),
            }
            for row in rows
        ]

    @needs("read")
    def checkpoint_state(self, checkpoint_id: str | int) -> dict[str, Any]:
        """What a checkpoint holds: {steps: {name: {status, error ...}}, agents: {agent: state}, state: {key: value}}.

        `state` is the keyed state of the session's own scope; of sealed and large values, what tells them apart.
        """
        number = control.checkpoint_number(self.id, checkpoint_id)
        return self._engine.database.read(lambda tx: checkpoints.state_at(tx, self.id, number)).shown()

    @needs("read")
    def diff(self, a: str | int, b: str | int) -> list[dict[str, Any]]:
        """What differs between two checkpoints: [{path, a, b}], paths in order."""
        return differences(self.checkpoint_state(a), self.checkpoint_state(b))

    @needs("admin")
    def reveal(self, value: Any) -> Any:
        """A value of this session, such as an output, with the fields opened that the guard's rules sealed.

        Raises SealBroken for a field of another session, and KeyMissing.
        """
        above = self._engine.trees.line(self.id)[:-1]  # a branch shares what was sealed for those above it
        return self._engine.guard.reveal(value, place_of(self.id), *(place_of(part.session_id) for part in above))

    @needs("read")
    def to_dict(self, details: bool = True) -> dict[str, Any]:
        """The session as one JSON-able object; with `details` also its steps, conflicts and checkpoints."""

        def read(reading: Reading) -> dict[str, Any]:
            row = self._row_of(reading)
            rows = reading.steps()
            tags = reading.part("tags", lambda tx: sessions.tags(tx, self.id))
            view = session_view(row, rows, tags, reading.part("documents", lambda tx: sessions.documents(tx, self.id)))
            view["result"] = reading.part("result", self._result) if row["status"] != "active" else None
            view |= {"saved": saved_view(*self._saved(reading)), "archive": archive_view(reading.archive())}
            if details:
                view["steps"] = step_views(self.id, rows)
                view["conflicts"] = self._conflicts(reading)
                view["checkpoints"] = self._checkpoints(reading)
            return view

        return self._read(read)
