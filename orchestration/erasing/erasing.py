"""Erasing a user or a session from everywhere: each act can be done again, so what was broken off is just run again."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from sqlalchemy import bindparam, func, select

from ...errors import ArchiveDamaged, ArchiveError, BackupDamaged, KeyMissing, SessionNotFound
from ...storage import erasures, hot, migration_runs, results, session_state, sessions
from ...storage.archives import tables as archives
from ...storage.archives.store import LEFT_SECONDS
from ...storage.backup import tables
from ...storage.database import Query, Transaction
from ...storage.keys.codec import Seals
from ...storage.scrubbing import scrub
from ...storage.states.protocol import Origin
from ...storage.tables import results as result_rows
from .. import control, deleting
from ..archives import making, owned
from ..archives.verifying import opened
from ..backups.content import Kept
from ..cache.results import ResultCache
from ..engine import Engine
from ..guard.access import EVERYTHING, Caller
from ..states import SESSION_ENDED
from ..trees.apart import Own
from ..trees.branching import below
from . import backups
from .contents import contents
from .receipts import Progress, Receipt
from .subjects import Subject

#: The places of rows, as receipts name them: by what they are rather than by table, where that says more.
_NAMES: Final = {"history": "history entries", "cached_results": "cached results"}
_CACHED: Final = "results that stem from them are cached until they end, or `celeriac cache invalidate`"
_RESULTS = Query(select(*result_rows.columns).where(result_rows.c.session_id == bindparam("session")))
_COUNTS: Final = {
    str(table.name): Query(select(func.count()).where(table.c.session_id == bindparam("session")))
    for table in tables.tables()
    if "session_id" in table.c and table.name not in (*owned.PASSING, "archives")
}


def erase(
    engine: Engine,
    cache: ResultCache,
    caller: Caller,
    subject: Subject,
    dry_run: bool = False,
    rewrite_backups: bool = False,
) -> Receipt:
    """Remove all that there is of a user or a session; gives the receipt. Raises SessionNotFound, and what any of the
    places raises: then it is run again, and goes on.
    """
    engine.access.require(caller, "admin", EVERYTHING)
    if rewrite_backups and engine.access.on and caller.tenant:
        raise ArchiveError(f"backups are of all tenants; they cannot be made anew within {caller.tenant!r}")
    work = _Erasure(engine, cache, subject)
    if dry_run:
        return work.told(caller.principal)
    return work.done(caller.principal, rewrite_backups)


class _Erasure:
    """One run of an erasure."""

    def __init__(self, engine: Engine, cache: ResultCache, subject: Subject) -> None:
        self.engine = engine
        self.cache = cache
        self.subject = subject
        self.store = making.folder(engine)
        #: Hashes that results of what is erased have in the cache.
        self.known: set[str] = set()
        #: Archives that could not be read, and are gone.
        self.unread = 0

    def _sessions(self, tx: Transaction) -> list[str]:
        subject = self.subject
        if subject.user is not None:
            return erasures.sessions_of(tx, subject.tenant, subject.user)
        found = sessions.identity(tx, str(subject.session))
        return [found[0]] if found is not None and found[4] == subject.tenant else []

    def _looked_up(self, resumed: bool) -> list[str]:
        """Ids of the sessions that there are. Raises SessionNotFound for one that is nowhere, also in no backup."""
        ids = self.engine.database.read(self._sessions)
        if self.subject.session is not None and not (ids or resumed or self._held()):
            raise SessionNotFound(f"no session {self.subject.session!r}")
        # Branches share what is said in them, so they go as well, and before them.
        return list(dict.fromkeys(one for found in ids for one in (*below(self.engine, found), found)))

    def _held(self) -> list[backups.Holding]:
        return backups.holding(backups.store_of(self.engine), self.subject)

    # -- what would be ------------------------------------------------------------------------------------------------

    def told(self, by: str) -> Receipt:
        """What an erasure would do."""
        ids = self._looked_up(resumed=False)
        counts = Counter[str]({"sessions": len(ids)})
        for session_id in ids:
            counts.update(self._counted(session_id))
        counts.update(self._of_user(dry_run=True))
        removed = {place: count for place, count in sorted(counts.items()) if count}
        store = backups.store_of(self.engine)
        stays = [_stay(self.engine, store, one) for one in self._held()]
        return Receipt("", self.subject.kind, self.subject.tenant, by, "dry run", None, removed=removed, stays=stays)

    # -- doing it -----------------------------------------------------------------------------------------------------

    def done(self, by: str, rewrite_backups: bool) -> Receipt:
        """Erase; gives the receipt."""
        running = Progress.begin(self.engine.database, self.subject, by)
        try:
            ids = self._looked_up(bool(running.receipt.resumed))
        except SessionNotFound:
            self.engine.database.write(lambda tx: erasures.drop(tx, running.receipt.id))
            raise
        for session_id in ids:
            self._erase(session_id, running)
        for session_id in running.sessions:
            self._finish(session_id)
        for place, count in self._of_user(dry_run=False).items():
            running.add(place, count)
        if self.engine.settings.redis_url and running.sessions:
            settings, named = self.engine.settings, list(running.sessions)
            running.add("streams in Redis", hot.forget(settings.redis_url, settings.redis_timeout + 1.0, named))
        engine = self.engine
        self.store.sweep(lambda: engine.database.read(archives.files), LEFT_SECONDS)
        running.save()
        stays = self._backups(running, rewrite_backups)
        running.sum_up()
        if self.unread:
            why = f"{self.unread} archives could not be read: {_CACHED}"
            stays.append({"place": "cache", "until": None, "why": why})
        stays += [{"place": "database", "until": None, "why": why} for why in scrub(self.engine.database)]
        return running.finish(stays)

    def _erase(self, session_id: str, running: Progress) -> None:
        engine, tenant = self.engine, self.subject.tenant
        found = engine.database.read(lambda tx: sessions.status(tx, session_id))
        if found is None:
            return
        if found[0] not in SESSION_ENDED:
            control.cancel(engine, session_id)
        counts = self._counted(session_id)
        running.note(session_id, counts)
        self.known |= (found_there := self._contents(session_id))
        for content in found_there:
            running.add(_NAMES["cached_results"], self.cache.invalidate(content_hash=content, tenant=tenant))
        deleting.delete(engine, session_id)
        self._finish(session_id)

    def _finish(self, session_id: str) -> None:
        """What lies outside of the transaction that deletes the rows; also for one that was killed just then."""
        engine, scope = self.engine, owned.scope(session_id, self.subject.tenant)
        engine.copies.forget(session_id)
        place = owned.history_elsewhere(engine)
        if place is not None:
            place.delete(session_id)
        engine.state.places.clear(scope, Origin())
        Own(engine, session_id, self.subject.tenant).forget_kept()
        with self.store.holding(session_id):
            self.store.clean(session_id, None)

        def work(tx: Transaction) -> None:
            erasures.drop_changes(tx, "session_id", session_id)
            erasures.drop_changes(tx, "scope", scope)
            migration_runs.forget_scope(tx, scope)

        engine.database.write(work)

    def _of_user(self, dry_run: bool) -> dict[str, int]:
        """What is of the user beside sessions."""
        subject, engine = self.subject, self.engine
        if subject.user is None:
            return {}
        user, backend = subject.user, engine.state.places.backend
        counts = Counter[str]()
        for scope in subject.scopes:
            counts["state_values"] += (
                len(backend.keys(scope)) if dry_run else engine.state.places.clear(scope, Origin())
            )

        def work(tx: Transaction) -> Counter[str]:
            found = Counter(erasures.drop_of_user(tx, subject.tenant, user, dry_run))
            for scope in subject.scopes:
                found["state_events"] += erasures.drop_changes(tx, "scope", scope, dry_run)
                if not dry_run:
                    migration_runs.forget_scope(tx, scope)
            return found

        counts.update(engine.database.read(work) if dry_run else engine.database.write(work))
        return counts

    # -- what there is ------------------------------------------------------------------------------------------------

    def _counted(self, session_id: str) -> dict[str, int]:
        """What there is of a session by place."""
        engine, tenant = self.engine, self.subject.tenant
        scope = session_state.scope_of(session_id, tenant)

        def work(tx: Transaction) -> dict[str, int]:
            counts = {name: int(tx.value(query, session=session_id) or 0) for name, query in _COUNTS.items()}
            counts["state_events"] += erasures.drop_changes(tx, "scope", scope, dry_run=True)
            counts["archives"] = int(archives.get(tx, session_id) is not None)
            counts["blobs"] = len(set(results.blobs_of(tx, session_id)))
            return counts

        counts = engine.database.read(work)
        place = owned.history_elsewhere(engine)
        if place is not None:
            counts["history"] = place.count(session_id)
        backend = engine.state.places.backend
        counts["state_values"] = len(backend.keys(scope)) + len(backend.keys(session_state.beside(scope)))
        return {_NAMES.get(name, name): count for name, count in counts.items() if count}

    def _contents(self, session_id: str) -> set[str]:
        """The hashes that results of a session have in the cache."""
        engine = self.engine
        columns = tables.columns(result_rows)
        seals = Seals(engine.database.codec)
        found, row = engine.database.read(
            lambda tx: (tx.rows(_RESULTS, session=session_id), archives.get(tx, session_id))
        )
        known = contents(columns, found, seals, engine.blobs.get)
        if row is None:
            return known
        try:
            with opened(engine, self.store, row) as archive:
                kept = Kept(archive, archive.manifest)
                keys = dict(kept.blobs())
                return known | contents(
                    kept.columns("results") or columns,
                    (row for found in kept.rows("results") for row in found),
                    seals,
                    lambda name: engine.blobs.opened(name, kept.blob(name, keys[name])),
                )
        except (ArchiveDamaged, BackupDamaged, KeyMissing):
            self.unread += 1
            return known

    def _backups(self, running: Progress, rewrite: bool) -> list[dict[str, Any]]:
        """What stays in backups; made anew without it, where that is wanted."""
        engine = self.engine
        store = backups.store_of(engine)
        stays = []
        for one in backups.holding(store, self.subject):
            if rewrite and not one.problem:
                backups.rewrite(engine, store, one, self.subject, self.known)
                running.add("backups made anew", 1)
                running.save()
            else:
                stays.append(_stay(engine, store, one))
        return stays


def _stay(engine: Engine, store: Any, one: backups.Holding) -> dict[str, Any]:
    stay = backups.until(engine, store, one.id)
    return stay | {"problem": "it cannot be read"} if one.problem else stay
