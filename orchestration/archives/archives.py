"""`Celeriac.archives`: what users hold."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...errors import ArchiveDamaged, ArchiveError, KeyMissing
from ...storage.archives import tables as rows
from ...storage.archives.store import LEFT_SECONDS
from ..backups.content import Verified
from ..engine import Engine
from ..guard.access import EVERYTHING, Caller, Right
from ..session import Session
from ..sessions import Sessions
from ..trees import branching
from ..views import Page
from . import inside, making, restoring, whole
from .settling import settle
from .verifying import opened_now, read_back


@dataclass(frozen=True, slots=True)
class Archive:
    """A session that is in an archive. Times are ISO 8601 in UTC; `status` is what it had before; `bytes` are those of
    the file, `digest` is a hash that stands for all of its content.
    """

    id: str
    query: str
    user: str
    title: str
    tags: builtins.list[str]
    type: str
    status: str
    created_at: str
    completed_at: str | None
    archived_at: str
    file: str
    bytes: int
    digest: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Tidied:
    """What killed processes had left: archives whose session was not gone from everywhere, files that no session
    names.
    """

    settled: int
    files: int


class Archives:
    """Sessions in archives, as far as the caller may see."""

    def __init__(self, engine: Engine, caller: Caller, sessions: Sessions) -> None:
        self._engine = engine
        self._caller = caller
        self._sessions = sessions
        self._store = making.folder(engine)

    def _session(self, session_id: str, right: Right) -> Session:
        found = self._sessions.get(session_id)
        found._require(right)
        return found

    def _row(self, session_id: str, right: Right) -> rows.Row:
        session = self._session(session_id, right)
        found = self._engine.database.read(lambda tx: rows.get(tx, session.id))
        if found is None:
            raise restoring.not_archived(session.id, session.status)
        return found

    def _may(self, right: Right) -> Callable[[str], None]:
        def may(session_id: str) -> None:
            self._session(session_id, right)

        return may

    def create(self, session_id: str, recursive: bool = False) -> Archive:
        """Put an ended or paused session with all that belongs to it into one file, and take it out of the active
        stores once the file was read back and compared. Its row stays, so that it is still listed and found.

        `recursive`: each of its branches, and theirs, before it. Raises SessionNotFound; SessionError for one that is
        active, has running steps or branches that are not archived, or is in an archive; ArchiveError where it changes
        meanwhile. Then it is as it was.
        """
        session = self._session(session_id, "write")
        if recursive:
            whole.create(self._engine, session.id, self._may("write"))
        else:
            making.create(self._engine, session.id)
        return self._shown(session)

    def list(self, **filters: Any) -> Page:
        """A page of archives, those of the newest sessions first, with a `cursor` for the next; filters as those of
        `sessions.list`.
        """
        page = self._sessions.list(status="archived", **filters)
        return Page([self._shown(one) for one in page if self._is_in_one(one.id)], page.cursor)

    def search(self, words: str, **filters: Any) -> Page:
        """Archives of sessions whose query, title or notes hold all these words; see `sessions.search`."""
        return self.list(words=words, **filters)

    def get(self, session_id: str) -> Archive:
        """Where the archive of a session is. Raises SessionNotFound, ArchiveNotFound."""
        return self._shown(self._sessions.get(self._row(session_id, "read").session_id))

    @contextlib.contextmanager
    def open(self, session_id: str) -> Iterator[Session]:
        """The session as it was, to be read, for the length of the `with` block, without restoring it.

        Raises ArchiveNotFound, ArchiveDamaged, KeyMissing.
        """
        with inside.look(self._engine, self._store, self._row(session_id, "read")) as session:
            yield session

    def show(self, session_id: str, last: int | None = 50) -> dict[str, Any]:
        """What is in an archive, without restoring it: {archive, session, results, history, entries}.

        `session` is what `session.to_dict()` gave, `results` the outputs by step, `history` the `last` entries (None:
        all) of so many `entries`. Raises ArchiveNotFound, ArchiveDamaged, KeyMissing.
        """
        shown = self.get(session_id)
        with self.open(session_id) as session:
            return {
                "archive": shown,
                "session": session.to_dict(),
                "results": {one["name"]: session.output(one["name"]) for one in session.steps()},
                "history": session.history(last=last),
                "entries": session.history.count(),
            }

    def verify(self, session_id: str) -> Verified:
        """Read and check all of an archive. Raises ArchiveNotFound, KeyMissing."""
        row = self._row(session_id, "read")
        try:
            with opened_now(self._engine, self._store, row) as archive:
                return read_back(archive)
        except ArchiveDamaged as fault:
            return Verified(row.file, problems=[str(fault)])

    def restore(self, session_id: str, recursive: bool = False) -> Session:
        """Bring a session back as it was, all or nothing; its archive is then gone.

        `recursive`: what is archived of it and of all below it, one by one. Raises SessionNotFound; ArchiveNotFound for
        a session that is in none, so also for one that was restored before; ArchiveError for a branch of one that is
        archived itself, naming what to restore first; ArchiveDamaged, KeyMissing.
        """
        session = self._session(session_id, "write")
        if recursive:
            whole.restore(self._engine, self._store, session.id, self._may("write"))
        else:
            restoring.restore(self._engine, self._store, session.id)
        return session

    def delete(self, session_id: str, recursive: bool = False) -> Archive:
        """Delete an archive with the row of its session, for good; with `recursive` also its branches, and theirs.

        Raises SessionNotFound, ArchiveNotFound, and SessionError for one that has branches without it.
        """
        row = self._row(session_id, "admin")
        shown = self._shown(self._sessions.get(row.session_id))
        ids = [*(branching.below(self._engine, row.session_id) if recursive else ()), row.session_id]
        for one in ids:
            with self._store.holding(one), contextlib.suppress(ArchiveDamaged, KeyMissing):
                settle(self._engine, self._store, one)
        for one in branching.delete(self._engine, row.session_id, recursive, self._may("admin")):
            self._engine.copies.forget(one)
        return shown

    def tidy(self, older_than: float = LEFT_SECONDS) -> Tidied:
        """See to what processes left that were killed over an archive; files and folders of more than so many seconds.

        Needs admin on everything.
        """
        self._engine.access.require(self._caller, "admin", EVERYTHING)
        if self._caller.tenant:
            raise ArchiveError(f"archives of all tenants are tidied together, not within {self._caller.tenant!r}")
        left = self._engine.database.read(rows.unsettled)
        for session_id in left:
            with self._store.holding(session_id):
                settle(self._engine, self._store, session_id)
        database = self._engine.database
        files = self._store.sweep(lambda: database.read(rows.files), older_than) + self._engine.blobs.sweep_temporary(
            older_than
        )
        return Tidied(len(left), files)

    def _is_in_one(self, session_id: str) -> bool:
        return self._engine.database.read(lambda tx: rows.get(tx, session_id)) is not None

    def _shown(self, session: Session) -> Archive:
        view = session.to_dict(details=False)
        known = ("id", "query", "user", "title", "tags", "type", "created_at", "completed_at")
        return Archive(**{name: view[name] for name in known}, **view["archive"])
