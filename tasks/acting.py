"""A Celeriac as one caller has it: a principal of a tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..orchestration.cache import ResultCache
from ..orchestration.cache.door import CallersCache
from ..orchestration.engine import Engine
from ..orchestration.guard.access import EVERYTHING, Caller
from ..orchestration.guard.grants import Grants
from ..orchestration.history.histories import Histories
from ..orchestration.schemas import schemas
from ..orchestration.sessions import Session, Sessions
from ..orchestration.state.state import State
from ..orchestration.streams import Waker
from ..orchestration.templates import Templates

if TYPE_CHECKING:
    from ..orchestration.archives.archives import Archives
    from ..orchestration.erasing.receipts import Receipt
    from ..orchestration.keeping.pruning import Pruning
    from ..orchestration.schemas.runs import Migrations


class Acting:
    """Sessions, state, cached results, migrations and grants as a caller has them: of its tenant, and where access is
    on, as far as its grants go.
    """

    def __init__(
        self, engine: Engine, cache: ResultCache, caller: Caller, waker: Waker | None, attend: Callable[[], None]
    ) -> None:
        self.caller = caller
        self._engine = engine
        self._cache = cache
        self._waker = waker
        self._attend = attend

    @property
    def sessions(self) -> Sessions:
        """Starting and finding sessions."""
        return Sessions(self._engine, self._waker, self._attend, self.caller)

    @cached_property
    def state(self) -> State:
        """Keyed state in scopes."""
        return self._engine.state_for(self.caller)

    @property
    def cache(self) -> CallersCache:
        """The cache of agents' results."""
        return CallersCache(self._cache, self._engine.access, self.caller)

    @property
    def histories(self) -> Histories:
        """What is said in all sessions: listing it, and moving it to another place."""
        return Histories(self._engine, self.caller)

    @property
    def archives(self) -> Archives:
        """Sessions that are put away into files."""
        from ..orchestration.archives.archives import Archives

        return Archives(self._engine, self.caller, self.sessions)

    def erase(
        self,
        *,
        user: str | None = None,
        session: str | None = None,
        dry_run: bool = False,
        rewrite_backups: bool = False,
    ) -> Receipt:
        """Remove all that there is of a user, or of a session, of the tenant: rows, blobs, history, keyed state, cached
        results, archives. Backups that hold it are named, with until when; `rewrite_backups`: made anew without it.

        Needs admin on everything. What was broken off is completed by asking for it again. Raises SessionNotFound.
        """
        from ..orchestration.erasing.erasing import erase
        from ..orchestration.erasing.subjects import Subject

        subject = Subject(self.caller.tenant, user, session)
        return erase(self._engine, self._cache, self.caller, subject, dry_run, rewrite_backups)

    def receipts(self) -> list[Receipt]:
        """Receipts of what was erased in the tenant, the oldest first. Needs admin on everything."""
        from ..orchestration.erasing.receipts import listing

        self._engine.access.require(self.caller, "admin", EVERYTHING)
        return listing(self._engine.database, self.caller.tenant)

    @property
    def templates(self) -> Templates:
        """Templates that sessions can be started from."""
        return Templates(self._engine, self.caller)

    @property
    def grants(self) -> Grants:
        """Giving grants and taking them back."""
        return Grants(self._engine.access, self._engine.database, self.caller)

    @property
    def migrations(self) -> Migrations:
        """Bringing values of keyed state to other versions of their schemas."""
        settings = self._engine.settings
        from ..orchestration.schemas.runs import Migrations

        return Migrations(self.state, schemas, self._engine, settings.state_url or settings.database, self.caller)

    @property
    def pruning(self) -> Pruning:
        """Letting go sessions and messages by use, age, size and likeness."""
        from ..orchestration.keeping.pruning import Pruning

        return Pruning(self._engine, self.caller)

    def research(
        self,
        question: str,
        folders: Sequence[str | Path],
        *,
        out: str | Path,
        kind: str = "documents",
        model: str | None = None,
        user: str = "",
        key: str | None = None,
        tags: Sequence[str] = (),
    ) -> Session:
        """Start the built-in research job, and do not wait for it.

        A question over folders of documents, or (`kind="licences"`) a licence review of the packages installed in them;
        `model` None takes the one of the settings. The report is written to the folder `out`.
        """
        from ..orchestration.research import job

        plan = job.plan(
            kind,
            [str(Path(f).absolute()) for f in folders],
            str(Path(out).absolute()),
            self._engine.settings.model if model is None else model,
        )
        metadata: dict[str, Any] = {"kind": kind, "out": str(out)}
        return self.sessions.start(
            plan, question, user=user, key=key, tags=tags, title=plan.description, metadata=metadata
        )
