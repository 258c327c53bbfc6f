"""One run of a migration on its way: forward in batches, or back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from ...errors import SchemaError
from ...storage import migration_runs
from ...storage.database import Transaction
from ...storage.migration_runs import Old, Run
from ...storage.states.protocol import StateConflict
from .values import Aim, Change, KeyedValues

if TYPE_CHECKING:
    from ..engine import Engine

#: Keys that are changed between two notes of how far a run is. All of their values are in memory at once.
BATCH: Final = 50
#: How often a key that others keep changing is tried.
_TRIES: Final = 5

#: Told (keys looked at, keys in all).
Progress = Callable[[int, int], None]


class Going:
    """A run that is this process's: taken when it is made, to be let go at the end.

    Raises SchemaError while another process carries it on. A run whose process died is taken at once on the same
    machine, else when its lease ends.
    """

    def __init__(self, engine: Engine, run: Run, values: KeyedValues, progress: Progress) -> None:
        self._database = engine.database
        self._run = run
        self._values = values
        self._progress = progress
        self._lease = engine.settings.lease_seconds
        self._owner = engine.presence.claim()
        gone = run.owner if run.owner is not None and engine.presence.is_dead(run.owner) else None
        if not self._database.write(lambda tx: migration_runs.take(tx, run.id, self._owner, self._lease, gone)):
            raise SchemaError(f"run {run.id} is being carried on by another process ({run.owner}); wait until it ends")

    def let_go(self) -> None:
        """Leave the run to whoever takes it next."""
        self._database.write(lambda tx: migration_runs.let_go(tx, self._run.id, self._owner))

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, aim: Aim) -> None:
        """Change all keys that are left, and note that the run is done."""
        run = self._run
        self._settle_pending()
        looked = run.looked
        for scope, keys in self._values.keys(aim, run.at_scope, run.at_key):
            for batch in batches(keys):
                self._change(aim, scope, batch)
                looked += len(batch)
                self._progress(looked, max(run.total, looked))
        self._database.write(lambda tx: migration_runs.move(tx, run.id, "running", "done"))

    def _change(self, aim: Aim, scope: str, batch: Sequence[str]) -> None:
        """Keep the old values, change the keys, note what was changed and how far the run is."""
        run_id = self._run.id
        changes = changes_of(self._values, aim, scope, batch)
        if changes:
            self._database.write(lambda tx: migration_runs.keep(tx, run_id, [change.old for change in changes]))
        writable = [change for change in changes if change.write is not None]
        if not self._write_together(scope, writable):
            for change in writable:
                self._write_alone(aim, scope, change)

        def note(tx: Transaction) -> bool:
            migration_runs.settle(tx, run_id, [one.old for one in writable if one.old.status == "done"])
            return migration_runs.advance(tx, run_id, self._owner, scope, batch[-1], len(batch), self._lease)

        if not self._database.write(note):
            raise self._taken_over()

    def _taken_over(self) -> SchemaError:
        return SchemaError(f"run {self._run.id} was taken over by another process")

    def _write_together(self, scope: str, changes: list[Change]) -> bool:
        """Write all changes; False, and none was written, if somebody changed one of the keys meanwhile."""
        if not changes:
            return True
        try:
            versions = self._values.write(scope, [change.write for change in changes if change.write is not None])
        except StateConflict:
            return False
        for change, version in zip(changes, versions, strict=True):
            change.old.status, change.old.new_version = "done", version
        return True

    def _write_alone(self, aim: Aim, scope: str, change: Change) -> None:
        """Write one change, made anew from what the key holds now where somebody changed it."""
        key, run_id = change.old.key, self._run.id
        now: Change | None = change
        for _ in range(_TRIES):
            assert now is not None
            if self._write_together(scope, [now]):
                self._database.write(lambda tx, old=now.old: migration_runs.settle(tx, run_id, [old]))  # type: ignore[misc]
                return
            entry = self._values.entries(scope, [key]).get(key)
            now = self._values.changed(aim, scope, key, entry) if entry is not None else None
            if now is None:  # deleted, or brought to the target version by somebody else
                self._database.write(lambda tx: migration_runs.drop(tx, run_id, [change.old]))
                return
            self._database.write(lambda tx, old=now.old: migration_runs.keep(tx, run_id, [old]))  # type: ignore[misc]
            if now.write is None:
                return
        why = f"others changed it {_TRIES} times meanwhile"
        failed = Old(scope, key, "failed", change.old.source, None, change.old.meta, change.old.version, None, why)
        self._database.write(lambda tx: migration_runs.keep(tx, run_id, [failed]))

    def _settle_pending(self) -> None:
        """Find out what became of the keys that were being changed when the run was stopped."""
        run_id = self._run.id
        while pending := self._kept("pending"):
            done, rest = [], []
            for old in pending:
                entry = self._values.entries(old.scope, [old.key]).get(old.key)
                if entry is not None and self._values.is_of_run(entry):
                    old.status, old.new_version = "done", entry.version
                    done.append(old)
                else:
                    rest.append(old)

            def work(tx: Transaction, done: Sequence[Old] = done, rest: Sequence[Old] = rest) -> None:
                migration_runs.settle(tx, run_id, done)
                migration_runs.drop(tx, run_id, rest)  # the run comes to them again

            self._database.write(work)

    def _kept(self, status: str) -> list[Old]:
        return self._database.read(lambda tx: migration_runs.in_status(tx, self._run.id, status, BATCH))

    # -- back --------------------------------------------------------------------------------------------------------

    def backward(self) -> None:
        """Put back all old values whose keys still hold what the run wrote, and note that the run is undone."""
        run = self._run
        if run.status != "undoing":
            self._settle_pending()
            self._database.write(lambda tx: migration_runs.move(tx, run.id, run.status, "undoing"))
        counts = self._database.read(lambda tx: migration_runs.counts(tx, run.id))
        back = counts.get("undone", 0) + counts.get("changed", 0)
        total = back + counts.get("done", 0) + counts.get("undoing", 0)
        for status in ("undoing", "done"):
            while rows := self._kept(status):
                self._put_back(rows)
                back += len(rows)
                self._progress(back, total)
        self._database.write(lambda tx: migration_runs.move(tx, run.id, "undoing", "undone"))

    def _put_back(self, rows: list[Old]) -> None:
        run_id = self._run.id
        for old in rows:
            old.status = "undoing"
        self._database.write(lambda tx: migration_runs.settle(tx, run_id, rows))
        for scope, group in groupby(rows, key=lambda old: old.scope):
            self._put_back_in(scope, list(group))

        def note(tx: Transaction) -> bool:
            migration_runs.settle(tx, run_id, rows)
            return migration_runs.take(tx, run_id, self._owner, self._lease)

        if not self._database.write(note):
            raise self._taken_over()

    def _put_back_in(self, scope: str, rows: list[Old]) -> None:
        """Put back old values of one scope; of each, the status says what became of it: `undone`, or `changed`, where
        somebody wrote or deleted the key since.
        """
        entries = self._values.entries(scope, [old.key for old in rows])
        there = [old for old in rows if old.key in entries and entries[old.key].version == old.new_version]
        for old in rows:
            entry = entries.get(old.key)
            is_back = self._values.is_back(old, entry)  # just before a crash
            old.status = "undone" if is_back else "changed"
        writes = [self._values.back(old) for old in there]
        if not writes:
            return
        try:
            self._values.write(scope, writes)
        except StateConflict:
            if len(there) > 1:  # somebody has just changed one of them: one by one
                for old in there:
                    self._put_back_in(scope, [old])
            return
        for old in there:
            old.status = "undone"


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """The keys, some at a time."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def changes_of(values: KeyedValues, aim: Aim, scope: str, keys: Sequence[str]) -> list[Change]:
    """What is to be done with some keys of a scope."""
    entries = values.entries(scope, keys)
    found = (values.changed(aim, scope, key, entries[key]) for key in keys if key in entries)
    return [change for change in found if change is not None]
