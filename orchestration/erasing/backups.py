"""Backups that hold what is erased: which, until when, and made anew without it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ...errors import BackupDamaged, KeyMissing
from ...storage.backup.manifest import ARCHIVES, BLOBS, Manifest, Part
from ...storage.backup.store import BackupStore
from ...storage.cache.tables import BLOB_TAG
from ...storage.keys.codec import Seals
from ...storage.session_state import beside, scope_of
from ..backups import retention
from ..backups.archived import is_of
from ..backups.backups import folder_of, keyring_of, time_of
from ..backups.content import Kept, verify
from ..backups.creating import Writer, part_of
from ..engine import Engine
from ..views import moment
from .contents import contents
from .subjects import Subject

_WHY: Final = {
    "marked": "it is marked to be kept",
    "newest": "it is among the newest, which stay whatever their age",
    "young": "it is young",
}


@dataclass(frozen=True, slots=True)
class Holding:
    """A backup that holds what is erased, and of which sessions; `problem`: it cannot be told, because of that."""

    id: str
    sessions: tuple[str, ...]
    user_rows: int = 0
    problem: str | None = None


def store_of(engine: Engine) -> BackupStore:
    """The folder of backups."""
    folder = folder_of(engine.settings)
    return BackupStore(folder, keyring_of(engine, folder))


def holding(store: BackupStore, subject: Subject) -> list[Holding]:
    """The backups that hold what is erased, the oldest first; those that cannot be read, too."""
    found: list[Holding] = []
    if not store.root.is_dir():
        return found
    with store.writing():  # one that is being made was begun before: it has to be seen as well
        for backup_id in store.ids():
            try:
                one = _held(Kept(store, store.manifest(backup_id)), subject)
            except (BackupDamaged, KeyMissing) as fault:
                one = Holding(backup_id, (), problem=str(fault))
            if one.sessions or one.user_rows or one.problem:
                found.append(one)
    return found


def _held(kept: Kept, subject: Subject) -> Holding:
    columns = kept.columns("sessions") or ()
    own = [row[columns.index("id")] for rows in kept.rows("sessions") for row in rows if _is_of(subject, columns, row)]
    ids = [*own, *_below(kept, subject, {*own, subject.session})]
    others = 0
    for part in kept.manifest.parts if subject.user is not None else ():
        if part.name in ("grants", "refusals") or "scope" in part.columns:
            others += sum(_is_of_user(subject, part, row) for rows in kept.rows(part.name) for row in rows)
    return Holding(kept.manifest.id, tuple(ids), others)


def _below(kept: Kept, subject: Subject, above: set[str | None]) -> Iterator[str]:
    """The branches below some sessions, which go with them."""
    columns, branches = kept.columns("sessions") or (), kept.columns("branches") or ()
    if not columns or not branches:
        return
    tenants = {row[columns.index("id")]: _tenant(columns, row) for rows in kept.rows("sessions") for row in rows}
    rows = [row for rows in kept.rows("branches") for row in rows]
    own, parent = branches.index("session_id"), branches.index("parent")
    for row in sorted(rows, key=lambda row: row[branches.index("depth")]):
        if row[parent] in above and row[own] not in above and tenants.get(row[own]) == subject.tenant:
            above.add(row[own])
            yield row[own]


def _tenant(columns: Sequence[str], row: Sequence[Any]) -> Any:
    return row[columns.index("tenant")] if "tenant" in columns else ""


def _is_of(subject: Subject, columns: Sequence[str], row: Sequence[Any]) -> bool:
    whose = row[columns.index("id")] if subject.session is not None else row[columns.index("user")]
    return bool((_tenant(columns, row), whose) == (subject.tenant, subject.session or subject.user))


def _is_of_user(subject: Subject, part: Part, row: Sequence[Any]) -> bool:
    if part.name in ("grants", "refusals"):
        of = (row[part.columns.index("tenant")], row[part.columns.index("principal")])
        return bool(of == (subject.tenant, subject.user))
    return "scope" in part.columns and row[part.columns.index("scope")] in subject.scopes


def until(engine: Engine, store: BackupStore, backup_id: str) -> dict[str, Any]:
    """Until when a backup stays: {place, id, until, why}; None where no time can be said beforehand."""
    dated = [retention.Dated(one, time_of(one), store.marked(one)) for one in store.ids()]
    why = retention.reasons(dated, engine.settings, time.time()).get(backup_id)
    ends = None
    if why == "young":
        ends = moment(time_of(backup_id) + engine.settings.backups_kept_days * 86400)
    elif why is None:
        why, ends = "the next pruning deletes it", moment(time.time())
    said = _WHY.get(why, why if " " in why else f"it is the last of a {why} period")
    return {"place": "backup", "id": backup_id, "until": ends, "why": said}


def rewrite(engine: Engine, store: BackupStore, one: Holding, subject: Subject, known: set[str]) -> str:
    """Make a backup anew without what is erased, check it, then delete the old one; gives the id of the new one.

    `known` are hashes that results of what is erased have in the cache, beside those that the backup tells. It has the
    number and the time of the old one. Objects that both need are shared.
    """
    old = store.manifest(one.id)
    own = BackupStore(store.root, store.keyring if old.sealed else None)
    made = _twin(own, old, subject) or _written(engine, own, old, one, subject, known)
    if store.marked(old.id):
        store.mark(made, True)
    found = verify(own, made)
    if not found.ok:
        raise BackupDamaged(found.problems[0])
    with store.deleting():
        needed = {name for other in store.ids() if other != old.id for name in _objects(store, other)}
        store.delete(old.id)
        store.sweep(needed)
    return made


def _objects(store: BackupStore, backup_id: str) -> Iterator[str]:
    return Kept(store, store.manifest(backup_id)).objects()


def _twin(store: BackupStore, old: Manifest, subject: Subject) -> str | None:
    """The backup that was made anew of another one by somebody who was killed before that one was deleted."""
    for other in store.ids():
        if other != old.id and other.rpartition("-")[0] == old.id.rpartition("-")[0]:
            held = _held(Kept(store, store.manifest(other)), subject)
            return None if held.sessions or held.user_rows else other
    return None


@dataclass(slots=True)
class _Cut:
    """What is left out of a backup: rows of sessions, scopes, a user; and what only these need."""

    subject: Subject
    sessions: frozenset[str]
    scopes: tuple[str, ...]
    contents: set[str] = field(default_factory=set)
    cached: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)

    def of(self, part: Part) -> Callable[[Sequence[Any]], bool] | None:
        """Whether a row of a part is left out; None: all of it stays."""
        place = {name: number for number, name in enumerate(part.columns)}
        if part.name in (BLOBS, "blobs"):
            return (lambda row: row[place["hash"]] in self.blobs) if self.blobs else None
        if part.name == ARCHIVES:
            return lambda row: is_of(row, self.sessions)
        if part.name == "sessions":
            return lambda row: row[place["id"]] in self.sessions
        if part.name == "cached_results":
            return lambda row: row[place["content"]] in self.contents
        if part.name == "cached_tags":
            return lambda row: row[place["key"]] in self.cached
        if part.name in ("grants", "refusals"):
            return lambda row: self.subject.user is not None and _is_of_user(self.subject, part, row)
        if "session_id" in place and "scope" in place:
            return lambda row: row[place["session_id"]] in self.sessions or row[place["scope"]] in self.scopes
        if "session_id" in place:
            return lambda row: row[place["session_id"]] in self.sessions
        return (lambda row: row[place["scope"]] in self.scopes) if "scope" in place else None


def _written(engine: Engine, store: BackupStore, old: Manifest, one: Holding, subject: Subject, known: set[str]) -> str:
    with store.writing():
        kept = Kept(store, old)
        cut = _looked_through(engine, kept, one, subject, known)
        writer = Writer(store, old.compression, old.naming, full=False)
        try:
            parts = [_part(kept, part, cut, writer) for part in old.parts]
            writer.finish()
        finally:
            writer.close()
        made = f"{old.id.rpartition('-')[0]}-{secrets.token_hex(3)}"
        store.publish(msgspec.structs.replace(old, id=made, parts=tuple(parts), written=writer.written))
    return made


def _looked_through(engine: Engine, kept: Kept, one: Holding, subject: Subject, known: set[str]) -> _Cut:
    own = tuple(f"session:{session_id}" for session_id in one.sessions)
    tenants = tuple(scope_of(session_id, subject.tenant) for session_id in one.sessions)
    trees = tuple(beside(scope) for scope in (*own, *tenants))
    cut = _Cut(subject, frozenset(one.sessions), (*subject.scopes, *own, *tenants, *trees))
    keys = dict(kept.blobs())
    columns, seals = kept.columns("results") or ("session_id",), Seals(engine.database.codec)
    place = columns.index("session_id")
    found = (row for rows in kept.rows("results") for row in rows if row[place] in cut.sessions)
    cut.contents = known | contents(
        columns, found, seals, lambda name: engine.blobs.opened(name, kept.blob(name, keys[name]))
    )
    part = kept.manifest.part("cached_results")
    if part is not None and cut.contents:
        key, content = part.columns.index("key"), part.columns.index("content")
        cut.cached = {row[key] for rows in kept.rows(part.name) for row in rows if row[content] in cut.contents}
    gone: set[str] = set()
    stays: set[str] = set()
    for part in kept.manifest.parts:
        if "blob" in part.columns or part.name == "cached_tags":
            leaves = cut.of(part) or (lambda row: False)
            for rows in kept.rows(part.name):
                for row in rows:
                    name = _blob_of(part, row)
                    if name is not None:
                        (gone if leaves(row) else stays).add(name)
    cut.blobs = gone - stays
    return cut


def _blob_of(part: Part, row: Sequence[Any]) -> str | None:
    if part.name == "cached_tags":
        tag = str(row[part.columns.index("tag")])
        return tag.removeprefix(BLOB_TAG) if tag.startswith(BLOB_TAG) else None
    found: str | None = row[part.columns.index("blob")]
    return found


def _part(kept: Kept, part: Part, cut: _Cut, writer: Writer) -> Part:
    leaves = cut.of(part)
    if leaves is None or not any(leaves(row) for rows in kept.rows(part.name) for row in rows):
        return part
    stay = (row for rows in kept.rows(part.name) for row in rows if not leaves(row))
    return part_of(part.name, part.columns, stay, writer)


__all__ = ["Holding", "holding", "rewrite", "store_of", "until"]
