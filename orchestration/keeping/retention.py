"""Retention: one policy, in the settings, for all that is kept; in short transactions, beside workers."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ...errors import CeleriacError
from ...storage import aging, reclaimed, vacuum
from ...storage.batches import Batches
from ..engine import Engine
from ..guard.access import EVERYTHING, Caller
from . import room
from .kinds import Checkpoints, Kept, Kind, Sum, TemporaryFiles, aged, blobs, cached_results, stray_files
from .leaving import Sessions, keep_shared, let_go
from .removing import finish

_DAY: Final = 86400.0
#: What rows are called, and the setting that says for how many days they stay.
_AGED: Final = (
    ("events", "retention_events_days"),
    ("cold messages", "retention_cold_days"),
    ("state events", "retention_state_events_days"),
    ("refusals", "retention_refusals_days"),
    ("old values of migrations", "retention_migrations_days"),
    ("migrations", "retention_migrations_days"),
    ("outbox", "retention_outbox_days"),
    ("workers", "retention_workers_days"),
)


@dataclass(frozen=True, slots=True)
class Gone:
    """What of a kind went, or (a dry run) would: how many, their bytes, and by which rule."""

    rule: str
    count: int
    bytes: int


@dataclass(slots=True)
class Retained:
    """What a run of retention did, or (a dry run) would do, by kind. `file_bytes`: of SQLite's file, before and after;
    `longest`: its longest transaction, in seconds.
    """

    dry_run: bool
    kinds: dict[str, Gone] = field(default_factory=dict)
    file_bytes: tuple[int, int] = (0, 0)
    free_bytes: int = 0
    longest: float = 0.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many things of all kinds."""
        return sum(one.count for one in self.kinds.values())

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(one.bytes for one in self.kinds.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        found = {**asdict(self), "count": self.count, "bytes": self.bytes}
        return found | {"file_bytes": dict(zip(("before", "after"), self.file_bytes, strict=True))}


class Retention:
    """Retention over everything, of all tenants."""

    def __init__(self, engine: Engine, caller: Caller) -> None:
        engine.access.require(caller, "admin", EVERYTHING)
        if caller.tenant:
            raise CeleriacError(f"retention is of all tenants; it cannot be run within {caller.tenant!r}")
        self._engine = engine
        self._caller = caller

    def plan(self) -> Retained:
        """What `run` would take away now; changes nothing."""
        return self._go(True)

    def run(self, *, dry_run: bool = False) -> Retained:
        """Take away what the settings `retention_...` do not keep, and give the room back to the disk.

        It may run beside workers, in several processes at once, and again after it was killed. No transaction of it
        takes long.
        """
        return self._go(dry_run)

    def _go(self, dry_run: bool) -> Retained:
        began = time.monotonic()
        database = self._engine.database
        report, batches = Retained(dry_run), Batches(database)
        size = vacuum.file_bytes(database) if dry_run else room.measured(database)
        kinds = self._kinds(report)
        if not dry_run:
            let_go(self._engine, [kind for kind in kinds if isinstance(kind, Sessions)], batches)
        for kind in kinds:
            count, bytes_ = kind.found() if dry_run else kind.remove(batches)
            report.kinds[kind.name] = Gone(kind.rule, count, bytes_)
        if not dry_run:
            finish(self._engine, batches)
            room.give_back(database, batches)
            self._count(report)
        report.free_bytes = vacuum.free_bytes(database)
        if (why := room.kept_back(database)) is not None:
            report.notes.append(why)
        report.file_bytes = (size, vacuum.file_bytes(database))
        report.longest, report.seconds = round(batches.longest, 4), round(time.monotonic() - began, 3)
        return report

    def _kinds(self, report: Retained) -> list[Kind]:
        """All kinds as of now, the sessions first: nothing else is counted of those that go as a whole."""
        engine, settings = self._engine, self._engine.settings
        now = engine.database.read(lambda tx: tx.now())
        kinds: list[Kind] = []
        sessions: list[Sessions] = []
        for status in aging.SESSIONS:
            days = getattr(settings, f"retention_{status}_days")
            if not days:
                kinds.append(Kept(f"sessions: {status}", "all stay"))
                continue
            sessions.append(Sessions(status, _days(days), engine, now - days * _DAY))
            kinds.append(sessions[-1])
        keep_shared(engine, sessions)
        going = {one for kind in sessions for one in kind.ids}
        kinds.append(self._checkpoints(now, going))
        for name, setting in _AGED:
            days = getattr(settings, setting)
            rows = aged(engine, name, _days(days), now - days * _DAY, going)
            kinds.append(rows if days else Kept(name, "all stay"))
        kinds += self._passed(now)
        kinds += self._files(now)
        kinds.append(_Backups(self._engine, self._caller, settings.retention_backups == "on", report.notes))
        return kinds

    def _checkpoints(self, now: float, going: set[str]) -> Checkpoints:
        keep, days = self._engine.settings.checkpoints_kept, self._engine.settings.retention_checkpoints_days
        rule = f"the newest {keep} of a session stay" + (f", if not {_days(days)}" if days else "")
        return Checkpoints("checkpoints", rule, self._engine, now - days * _DAY if days else 0.0, going)

    def _passed(self, now: float) -> list[Kind]:
        names = ("cached results", "values of state")
        if self._engine.settings.retention_cache == "off":
            return [Kept(name, "all stay") for name in names]
        rule = "their time is over"
        return [cached_results(self._engine, rule, now), aged(self._engine, names[1], rule, now)]

    def _files(self, now: float) -> list[Kind]:
        settings, kinds = self._engine.settings, list[Kind]()
        days = settings.retention_blobs_days
        if days:
            rule = f"nothing refers to them, for {_of_days(days)}"
            age = days * _DAY
            kinds += [blobs(self._engine, rule, now, age), stray_files(self._engine, rule, age)]
        else:
            kinds += [Kept(name, "all stay") for name in ("blobs", "blob files")]
        days = settings.retention_temporary_days
        name = "temporary files"
        kinds.append(TemporaryFiles(name, _days(days), self._engine, days * _DAY) if days else Kept(name, "all stay"))
        return kinds

    def _count(self, report: Retained) -> None:
        of_sessions = sum(one.count for name, one in report.kinds.items() if name.startswith("sessions"))
        counts = {"runs": 1, "sessions": of_sessions, "rows": report.count - of_sessions, "bytes": report.bytes}
        self._engine.database.write(lambda tx: reclaimed.add(tx, "", "retention", counts))


def _days(days: float) -> str:
    return f"older than {_of_days(days)}"


def _of_days(days: float) -> str:
    return f"{days:g} day{'' if days == 1 else 's'}"


@dataclass(frozen=True)
class _Backups:
    """Backups that the settings `backups_kept...` do not keep."""

    engine: Engine
    caller: Caller
    is_on: bool
    notes: list[str]
    name: str = "backups"

    @property
    def rule(self) -> str:
        """In words."""
        return "as the settings backups_kept... say" if self.is_on else "all stay"

    def found(self) -> Sum:
        """What is to go."""
        return self._prune(dry_run=True)

    def remove(self, batches: Batches) -> Sum:
        """Let it go."""
        return self._prune(dry_run=False)

    def _prune(self, dry_run: bool) -> Sum:
        if not self.is_on:
            return 0, 0
        from ..backups.backups import Backups

        try:
            found = Backups(self.engine, self.caller).prune(dry_run=dry_run)
        except CeleriacError as fault:  # of one that cannot be read; the rest of the run stands
            self.notes.append(f"no backup was deleted: {fault}")
            return 0, 0
        return len(found.deleted), found.size
