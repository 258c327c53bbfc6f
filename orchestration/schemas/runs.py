"""Runs of migrations over keyed state: shown before, made in batches, gone on with after a crash, accepted or undone.

A key is changed by compare-and-set, so it is wholly in the old version or in the new one. Before that, its old value
is written down; after it, that this is done. Whatever is between the two when a process dies is told by the value
itself, which names the run that wrote it. So it does not matter which backend the state lives in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from uuid_utils.compat import uuid7

from ...errors import SchemaError
from ...storage import migration_runs, serial
from ...storage.database import Transaction
from ...storage.migration_runs import Old, Run
from ..state.scopes import Scope
from .fields import LEVELS
from .going import Going, Progress, batches, changes_of
from .registry import Pattern, Schemas
from .values import Aim, Change, KeyedValues

if TYPE_CHECKING:
    from ..engine import Engine
    from ..guard.access import Caller, Right
    from ..state.state import State

#: Failures, and keys that an undo left alone, that a report names.
_SHOWN: Final = 20


@dataclass
class Report:
    """How a run went, or (`dry_run`) would go.

    `unchanged` are keys that were of the target version already, of another schema, or with a time to live;
    `changed_since` those that an undo left alone, because they were written after the run.
    """

    run: str
    schema: str
    to: str
    scope: str
    key: str
    level: str
    status: str
    dry_run: bool = False
    resumed: bool = False
    total: int = 0
    looked: int = 0
    migrated: int = 0
    failed: int = 0
    unchanged: int = 0
    undone: int = 0
    changed_since: int = 0
    #: How many values had which version.
    versions: dict[str, int] = field(default_factory=dict)
    #: The ways that they go, as text by the version that they start from.
    ways: dict[str, list[str]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    left: list[dict[str, str]] = field(default_factory=list)
    samples: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)


def _nothing(_looked: int, _total: int) -> None:
    pass


class Migrations:
    """Migrations of the values of one State, kept in one database. `place` names where that state lies."""

    def __init__(
        self, state: State, schemas: Schemas, engine: Engine, place: str = "", caller: Caller | None = None
    ) -> None:
        self._state = state
        self._schemas = schemas
        self._engine = engine
        self._caller = engine.caller if caller is None else caller
        place = serial.digest(f"{place}\n{state.place_of('')}".encode())[:32]
        self._place = f"{place} {self._caller.tenant}" if self._caller.tenant else place

    # -- what users call ---------------------------------------------------------------------------------------------

    def dry_run(
        self,
        scope: str | Scope,
        key: str = "*",
        *,
        schema: str,
        to: str | None = None,
        through: Sequence[str] = (),
        level: str = "basic",
        samples: int = 5,
        progress: Progress = _nothing,
    ) -> Report:
        """What `run` would do, with counts and some values before and after; nothing is written."""
        aim = self._aim(scope, key, schema, to, through, level, "read")
        values = KeyedValues(self._state, self._schemas)
        began = time.monotonic()
        report = self._report_of(aim, "", "dry run", dry_run=True)
        report.total = _count(values, aim)
        for where, keys in values.keys(aim):
            for batch in batches(keys):
                for change in changes_of(values, aim, where, batch):
                    self._tell(report, values, change, samples)
                report.looked += len(batch)
                progress(report.looked, max(report.total, report.looked))
        report.unchanged = report.looked - report.migrated - report.failed
        self._add_ways(report, aim)
        report.seconds = time.monotonic() - began
        return report

    def run(
        self,
        scope: str | Scope,
        key: str = "*",
        *,
        schema: str,
        to: str | None = None,
        through: Sequence[str] = (),
        level: str = "basic",
        progress: Progress = _nothing,
    ) -> Report:
        """Bring the values of keys to a version of their schema (the newest, unless `to` names one).

        `scope` and `key` may hold `*`. Values are checked at `level` before and after. A run in the same words that a
        crash or an interrupt stopped is gone on with. A key that cannot be brought there stays as it is and is
        reported; old values are kept until the run is accepted or undone. Raises SchemaError.
        """
        aim = self._aim(scope, key, schema, to, through, level, "write")
        words = {
            "schema": schema,
            "target": str(aim.target.version),
            "through": ",".join(aim.through),
            "scope": aim.scope.text,
            "key": aim.key.text,
            "level": level,
            "place": self._place,
        }
        known = self._engine.database.read(lambda tx: migration_runs.unfinished(tx, **words))
        if known is not None:
            return self._carry_on(known, progress, resumed=True)
        run_id, total = str(uuid7()), _count(KeyedValues(self._state, self._schemas), aim)

        def add(tx: Transaction) -> None:
            if migration_runs.get(tx, run_id) is None:  # else the COMMIT that broke went in after all
                migration_runs.add(tx, id=run_id, count=total, **words)

        self._engine.database.write(add)
        return self._carry_on(self._run(run_id), progress)

    def resume(self, run_id: str, progress: Progress = _nothing) -> Report:
        """Go on with a run, or the undoing of one, that was stopped on its way. Raises SchemaError for another."""
        run = self._run(run_id)
        if run.status not in ("running", "undoing"):
            raise SchemaError(f"run {run.id} is {run.status}; only one that is running or undoing can be resumed")
        return self._carry_on(run, progress, resumed=True)

    def undo(self, run_id: str, progress: Progress = _nothing) -> Report:
        """Put back the values that a run changed, but for those that were written since: the report names them."""
        run = self._run(run_id)
        if run.status not in ("running", "done", "undoing"):
            raise SchemaError(f"run {run.id} is {run.status}, and its old values are gone; there is nothing to undo")
        return self._carry_on(run, progress, resumed=run.status == "undoing", back=True)

    def accept(self, run_id: str) -> Report:
        """Drop the old values of a run that is done, or undone; it cannot be undone any more. Raises SchemaError."""
        run = self._run(run_id)
        if run.status not in ("done", "undone"):
            raise SchemaError(f"run {run.id} is {run.status}; only one that is done or undone can be accepted")
        report = self._report(run)

        def work(tx: Transaction) -> None:
            if run.status == "done" and not migration_runs.move(tx, run.id, "done", "accepted"):
                return
            migration_runs.sum_up(tx, run.id, serial.encode(report.to_dict()).decode())
            migration_runs.drop(tx, run.id)

        self._engine.database.write(work)
        return self._report(self._run(run.id))

    def get(self, run_id: str) -> Report:
        """How a run went. Raises SchemaError for an unknown one."""
        return self._report(self._run(run_id, "read"))

    def list(self) -> list[Report]:
        """All runs, the newest first, over scopes that the caller may read."""
        access, caller = self._engine.access, self._caller
        return [self._report(run) for run in self._runs() if access.allows(caller, "read", run.scope)]

    # -- within ------------------------------------------------------------------------------------------------------

    def _aim(
        self,
        scope: str | Scope,
        key: str,
        schema: str,
        to: str | None,
        through: Sequence[str],
        level: str,
        right: Right,
    ) -> Aim:
        if level not in LEVELS:
            raise SchemaError(f"level {level!r} is not allowed; allowed: {', '.join(LEVELS)}")
        pattern = Pattern("*" if scope == "all" else scope)
        if pattern.is_exact:
            pattern = Pattern(Scope.parse(pattern.text))
        self._engine.access.require(self._caller, right, pattern.text)
        stops = tuple(str(self._schemas.get(schema, stop).version) for stop in through)
        return Aim(self._schemas.get(schema, to), stops, pattern, Pattern(key), level)

    def _runs(self) -> Sequence[Run]:
        """The runs of the caller's tenant."""
        found = self._engine.database.read(migration_runs.listing)
        return [run for run in found if run.place.partition(" ")[2] == self._caller.tenant]

    def _run(self, run_id: str, right: Right = "write") -> Run:
        found = [run for run in self._runs() if run.id == run_id or (len(run_id) >= 8 and run.id.startswith(run_id))]
        if len(found) != 1:
            raise SchemaError(
                f"{'no' if not found else 'more than one'} run {run_id!r}; see `celeriac state migrate runs`"
            )
        self._engine.access.require(self._caller, right, found[0].scope)
        return found[0]

    def _carry_on(self, run: Run, progress: Progress, resumed: bool = False, back: bool = False) -> Report:
        """Take a run, bring it to its end, and let it go, also where something breaks."""
        if run.place != self._place:
            raise SchemaError(
                f"run {run.id} is about state that lies elsewhere; use the settings that it was made with"
            )
        began = time.monotonic()
        going = Going(self._engine, run, KeyedValues(self._state, self._schemas, run.id), progress)
        try:
            if back or run.status == "undoing":
                going.backward()
            else:
                through = tuple(filter(None, run.through.split(",")))
                scope = run.scope if "*" in run.scope else Scope.parse(run.scope)
                going.forward(self._aim(scope, run.key, run.schema, run.target, through, run.level, "write"))
        finally:
            going.let_go()
        report = self._report(self._run(run.id))
        report.resumed, report.seconds = resumed, time.monotonic() - began
        return report

    # -- reports -----------------------------------------------------------------------------------------------------

    def _report_of(self, aim: Aim, run_id: str, status: str, dry_run: bool) -> Report:
        to, scope, key = str(aim.target.version), aim.scope.text, aim.key.text
        return Report(run_id, aim.target.name, to, scope, key, aim.level, status, dry_run)

    def _tell(self, report: Report, values: KeyedValues, change: Change, samples: int) -> None:
        old = change.old
        if change.write is None:
            report.failed += 1
            if len(report.failures) < _SHOWN:
                report.failures.append({"scope": old.scope, "key": old.key, "error": old.error or ""})
            return
        report.migrated += 1
        report.versions[old.source] = report.versions.get(old.source, 0) + 1
        if len(report.samples) < samples:
            shown = values.shown(old)
            told = {"scope": old.scope, "key": old.key, "from": old.source}
            report.samples.append({**told, "before": shown(change.before), "after": shown(change.after)})

    def _report(self, run: Run) -> Report:
        if run.summary is not None:
            told = Report(**serial.decode(run.summary))
            told.status = run.status
            return told

        def read(tx: Transaction) -> tuple[dict[str, int], dict[str, int], list[Old], list[Old]]:
            return (
                migration_runs.counts(tx, run.id),
                migration_runs.sources(tx, run.id),
                migration_runs.in_status(tx, run.id, "failed", _SHOWN),
                migration_runs.in_status(tx, run.id, "changed", _SHOWN),
            )

        counts, versions, failures, left = self._engine.database.read(read)
        report = Report(run.id, run.schema, run.target, run.scope, run.key, run.level, run.status)
        report.total, report.looked, report.versions = run.total, run.looked, versions
        report.failed, report.undone = counts.get("failed", 0), counts.get("undone", 0)
        report.changed_since = counts.get("changed", 0)
        report.migrated = sum(counts.values()) - report.failed - counts.get("pending", 0)
        report.unchanged = max(run.looked - report.migrated - report.failed, 0)
        report.failures = [{"scope": one.scope, "key": one.key, "error": one.error or ""} for one in failures]
        report.left = [{"scope": one.scope, "key": one.key} for one in left]
        return report

    def _add_ways(self, report: Report, aim: Aim) -> None:
        for version in report.versions:
            route = self._schemas.plan(aim.target.name, version, aim.target.version, aim.through)
            report.ways[version] = [str(hop) for hop in route.hops]


def _count(values: KeyedValues, aim: Aim) -> int:
    return sum(len(keys) for _, keys in values.keys(aim))
