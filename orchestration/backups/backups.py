"""`Celeriac.backups`: what users hold."""

from __future__ import annotations

import builtins
import calendar
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...config import Settings
from ...config.urls import DATABASES, for_engine, masked
from ...errors import BackupDamaged, BackupError, BackupNotFound, KeyMissing
from ...storage import schema
from ...storage.archives.store import ArchiveStore
from ...storage.backup import tables, transfer
from ...storage.backup.manifest import Manifest, number_of
from ...storage.backup.store import BackupStore
from ...storage.backup.tables import Choice
from ...storage.backup.transactions import alone
from ...storage.backup.wrapping import COMPRESSIONS
from ...storage.database import Database
from ...storage.keys import keyfile
from ...storage.keys.sealing import KeyRing
from ...storage.session_state import TENANT
from ..engine import Engine
from ..guard.access import EVERYTHING, Caller
from ..state.scopes import Scope
from . import content, creating, restoring, retention
from .content import Kept, Verified
from .restoring import Restored
from .source import Source, elsewhere

#: How keys are made from a passphrase lies with the backups: who has only them and the passphrase can open them.
PUBLIC: Final = "passphrase.toml"
#: Characters that a label may have.
_LABEL: Final = 500


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup in a list. Of one that cannot be opened only id and time are known; `problem` says why."""

    id: str
    number: int
    created_at: float
    kind: str
    label: str
    database: str
    revision: str
    sealed: bool
    compression: str
    marked: bool
    rows: int
    size: int
    written: int
    previous: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning deleted, or (a dry run) would: backups, and objects that no backup needs then, with their bytes.

    `kept`: why each other backup stays, by id.
    """

    deleted: list[str]
    kept: dict[str, str]
    objects: int
    size: int
    dry_run: bool


class Backups:
    """The backups of a database, in the folder that the settings name."""

    def __init__(self, engine: Engine, caller: Caller) -> None:
        engine.access.require(caller, "admin", EVERYTHING)
        if caller.tenant:
            raise BackupError(f"backups are of all tenants; they cannot be made or restored within {caller.tenant!r}")
        self._engine = engine
        self._settings = engine.settings
        self.folder = folder_of(engine.settings)
        self._store = BackupStore(self.folder, keyring_of(engine, self.folder))

    def create(self, *, full: bool = False, compression: str = "zstd", label: str = "", mark: bool = False) -> Backup:
        """Make a backup of all there is, in one snapshot, while work goes on.

        What earlier backups have is not written again, unless it is `full`. `mark`: pruning leaves it alone. It is
        sealed where keys are set.
        """
        if compression not in COMPRESSIONS:
            raise BackupError(f"compression {compression!r:.40} is not allowed; allowed: {', '.join(COMPRESSIONS)}")
        if len(label) > _LABEL:
            raise BackupError(f"the label has {len(label):,} characters; allowed: {_LABEL}")
        keyring = self._store.keyring
        if keyring is not None and (public := keyring.public) is not None:
            keyfile.write(self.folder / PUBLIC, public)
        made = creating.create(self._source(self._engine.database), self._store, compression, full, label)
        if mark:
            self._store.mark(made.id, True)
        return self._shown(made)

    def list(self) -> builtins.list[Backup]:
        """All backups, the oldest first; damaged ones and ones whose key is missing too, with a `problem`."""
        found = []
        for backup_id in self._store.ids():
            try:
                found.append(self._shown(self._store.manifest(backup_id)))
            except (BackupDamaged, KeyMissing) as fault:
                sealed = isinstance(fault, KeyMissing)
                found.append(_unreadable(backup_id, sealed, self._store.marked(backup_id), str(fault)))
        return found

    def get(self, backup_id: str) -> Backup:
        """One backup; `latest` is the newest, and an id may be cut short. Raises BackupNotFound, BackupDamaged."""
        return self._shown(self._store.manifest(self._id(backup_id)))

    def verify(self, backup_id: str) -> Verified:
        """Read and check all of a backup. Raises BackupNotFound, KeyMissing."""
        return content.verify(self._store, self._id(backup_id))

    def restore(
        self,
        backup_id: str,
        *,
        sessions: Sequence[str] = (),
        scopes: Sequence[str] = (),
        dry_run: bool = False,
        safety: bool = True,
        force: bool = False,
        unsealed: bool = False,
    ) -> Restored:
        """Replace what the database holds by a backup, all or nothing; or only some sessions and scopes of keyed state.

        `safety`: back up what is there before. `force`: also while workers are at work. `unsealed`: take a backup that
        is not sealed though keys are set, which anybody may have made. Steps that were running begin anew.
        Raises BackupError, BackupNotFound, BackupDamaged, KeyMissing; then nothing has changed.
        """
        for scope in scopes:
            Scope.parse(scope.partition("/")[2] if scope.startswith(TENANT) else scope)
        manifest = self._trusted(self._id(backup_id), unsealed)
        busy = restoring.at_work(self._engine.database, self._engine.presence)
        if busy and not (force or dry_run):
            raise BackupError(
                f"workers are at work: {', '.join(busy)}; stop them, or use force, which takes their steps away"
            )
        made = None
        if safety and not dry_run:
            made = self.create(label=f"before the restore of {manifest.id}").id
        choice = Choice(tuple(sessions), tuple(scopes))
        result = restoring.restore(self._source(self._engine.database), self._store, manifest, choice, dry_run)
        if dry_run and result.rows.get("sessions", 0) < len(set(sessions)):
            raise BackupError(f"{manifest.id} has not all of the sessions {', '.join(sessions)}")
        result.safety = made
        return result

    def move(self, to: str) -> Restored:
        """Bring everything into an empty database, of the same kind or another, and compare all rows there.

        Blobs stay where they are. Raises BackupError for a database that is not empty, or none, and while workers are
        at work.
        """
        url = _database(to)
        busy = restoring.at_work(self._engine.database, self._engine.presence)
        if busy:
            raise BackupError(f"workers are at work: {', '.join(busy)}; stop them, then move")
        target = Database(url)
        try:
            schema.ensure(target)
            with alone(target) as connection:
                if full := tables.has_rows(connection, target.dialect):
                    raise BackupError(f"{target.shown} is not empty: it has rows in {', '.join(full)}")
            made = self.create(label=f"before the move to {target.shown}"[:_LABEL])
            source = Source(target, self._engine.blobs, None)
            manifest = self._store.manifest(made.id)
            result = restoring.restore(source, self._store, manifest, Choice(), dry_run=False, recheck=True)
            result.safety = made.id
            return result
        finally:
            target.dispose()

    def mark(self, backup_id: str, kept: bool = True) -> str:
        """Let pruning leave a backup alone, or not; gives its whole id. Raises BackupNotFound."""
        backup_id = self._id(backup_id)
        self._store.mark(backup_id, kept)
        return backup_id

    def delete(self, backup_id: str) -> tuple[str, int]:
        """Delete a backup, and what no other one needs; gives its whole id and the bytes that this freed.

        Raises BackupNotFound; and BackupDamaged or KeyMissing where it cannot be told what another one needs.
        """
        backup_id = self._id(backup_id)
        with self._store.deleting():
            needed = self._needed([one for one in self._store.ids() if one != backup_id])
            self._store.delete(backup_id)
            return backup_id, self._store.sweep(needed)[1]

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Delete the backups that the settings `backups_kept...` do not keep, and what no other one needs.

        Raises BackupDamaged or KeyMissing, and deletes nothing, where it cannot be told what a backup needs.
        """
        with self._store.deleting():
            ids = self._store.ids()
            dated = [retention.Dated(one, time_of(one), self._store.marked(one)) for one in ids]
            kept = retention.reasons(dated, self._settings, time.time())
            gone = [one for one in ids if one not in kept]
            needed = self._needed([one for one in ids if one in kept])
            if not dry_run:
                for backup_id in gone:
                    self._store.delete(backup_id)
            count, size = self._store.sweep(needed, dry_run)
            return Pruned(gone, kept, count, size, dry_run)

    def export(self, backup_id: str, file: Path) -> int:
        """Write a backup to one file, after all of it has been checked; gives its bytes."""
        backup_id = self._id(backup_id)
        found = self.verify(backup_id)
        if not found.ok:
            raise BackupDamaged(found.problems[0])
        with self._store.reading():
            kept = Kept(self._store, self._store.manifest(backup_id))
            return transfer.write(self._store, backup_id, kept.objects(), file)

    def take_in(self, file: Path) -> Backup:
        """Add a backup from a file that `export` wrote, after all of it has been checked. Raises BackupDamaged."""
        with self._store.writing(), transfer.unpacked(self._store, file) as (staged, backup_id):
            found = content.verify(staged, backup_id)
            if not found.ok:
                raise BackupDamaged(f"{file}: {found.problems[0]}")
            transfer.take_over(self._store, staged, backup_id)
            return self._shown(self._store.manifest(backup_id))

    def _source(self, database: Database) -> Source:
        engine = self._engine
        archives = ArchiveStore(engine.settings.data_dir / "archives")
        return Source(database, engine.blobs, elsewhere(engine.state.places.backend), engine.conversations, archives)

    def _needed(self, ids: Sequence[str]) -> set[str]:
        return {name for one in ids for name in Kept(self._store, self._store.manifest(one)).objects()}

    def _trusted(self, backup_id: str, unsealed: bool) -> Manifest:
        manifest = self._store.manifest(backup_id)
        if self._store.keyring is not None and not (manifest.sealed or unsealed):
            raise BackupError(
                f"backup {backup_id} is not sealed, though keys are set: whoever can write to {self.folder} may "
                "have made it; say --unsealed if it is to be trusted"
            )
        return manifest

    def _id(self, backup_id: str) -> str:
        ids = self._store.ids()
        found = ids[-1:] if backup_id == "latest" else [one for one in ids if backup_id and one.startswith(backup_id)]
        if len(found) != 1:
            said = f"the id {backup_id!r:.60} fits {len(found)} backups" if found else f"no backup {backup_id!r:.60}"
            raise BackupNotFound(f"{said} in {self.folder}; `celeriac backup list` shows those there are")
        return found[0]

    def _shown(self, m: Manifest) -> Backup:
        rows = sum(part.rows for part in m.parts)
        return Backup(
            m.id, m.number, m.created_at, m.kind, m.label, m.database, m.revision, m.sealed, m.compression,
            self._store.marked(m.id), rows, m.size, m.written, m.previous,
        )  # fmt: skip


def _database(url: str) -> str:
    """The URL of a database as the engine takes it. Raises BackupError."""
    try:
        if url:
            return for_engine(DATABASES(url))
        said = DATABASES.not_empty
    except ValueError as fault:
        said = DATABASES.not_empty if "://" not in url or str(fault) == str(DATABASES) else str(fault)
    raise BackupError(f"{masked(url)!r:.200} is no database to move to; allowed: {said}")


def folder_of(settings: Settings) -> Path:
    """The folder of backups."""
    return Path(settings.backups_dir).expanduser().absolute() if settings.backups_dir else settings.data_dir / "backups"


def keyring_of(engine: Engine, folder: Path) -> KeyRing | None:
    """The keys that seal backups and open them."""
    if engine.settings.backup_keys_file:
        return KeyRing(keyfile.read(keyfile.path_of(engine.settings.backup_keys_file), os.environ))
    if engine.keyring is None and (folder / PUBLIC).exists() and os.environ.get(keyfile.PASSPHRASE):
        return KeyRing(keyfile.read(folder / PUBLIC, os.environ))
    return engine.keyring


def time_of(backup_id: str) -> float:
    """When a backup was made, in seconds since 1970."""
    return float(calendar.timegm(time.strptime(backup_id.split("-")[0], "%Y%m%dT%H%M%SZ")))


def _unreadable(backup_id: str, sealed: bool, marked: bool, problem: str) -> Backup:
    return Backup(
        backup_id,
        number_of(backup_id),
        time_of(backup_id),
        "?",
        "",
        "?",
        "?",
        sealed,
        "?",
        marked,
        0,
        0,
        0,
        None,
        problem,
    )


__all__ = ["Backup", "Backups", "Pruned", "Restored", "Verified"]
