"""What a session has to do with others: forks of it, its branches, and those that it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..storage import trees
from . import attached
from .attached import Attached
from .guard.access import SESSIONS, needs
from .plans import Plan
from .session_reads import SessionReads
from .sizes import check_id

if TYPE_CHECKING:
    from .session import Session
    from .trees.merging import Merged


class Kin(SessionReads):
    """The part of a `Session` that is about other sessions."""

    @needs("read")
    def fork(
        self,
        from_step: str | Sequence[str] | None = None,
        *,
        checkpoint: str | int | None = None,
        inputs: Mapping[str, Mapping[str, Any]] | None = None,
        requests: Mapping[str, Any] | None = None,
        plan: Plan | None = None,
        permissions: Iterable[str] | None = None,
        query: str | None = None,
        **more: Any,
    ) -> Session:
        """A new session on the same plan, whose steps take over what equal steps of this one gave, and run else.

        Equal are steps of the same agent in the version that is registered now, with the same request when it is filled
        in, and the same permissions granted. `from_step` (or several) and all that comes after it is run in any case.
        `checkpoint`: results, memories and state as of then. `inputs` sets keys of requests, as `{"read": {"n": 1}}`;
        `requests` replaces whole ones; `plan`, `permissions` and `query` take the place of this session's. `more` as in
        `sessions.start`. Raises StepNotFound, CheckpointNotFound, PlanError and SessionError; nothing is written then.
        """
        from . import forking
        from .sessions import Sessions

        changes = forking.Changes(
            from_step, checkpoint, plan, _given(requests), _given(inputs), permissions, query, forking.checked(more)
        )
        user = self._caller.principal if self._engine.access.on else None
        made = forking.prepared(self._engine, self.id, changes, user)
        return Sessions(self._engine, self._waker, self._attend, self._caller)._started(*made)

    # -- sessions that it reads --------------------------------------------------------------------------------------

    @needs("write")
    def attach(self, other: Session | str) -> bool:
        """Let it and its agents (`ctx.attached`) read the results and history of another session; False if they can.

        The caller has to be allowed to read that one now, and whoever reads it when it is read. Raises SessionNotFound
        and SessionError.
        """
        handle = self._other(other)
        handle._require("read")
        return attached.attach(self._engine, self.id, handle.id)

    @needs("write")
    def detach(self, other: Session | str) -> bool:
        """Let it read another session no longer; False if it could not."""
        return attached.detach(self._engine, self.id, self._other(other).id)

    @needs("read")
    def attached(self) -> list[Attached]:
        """The sessions that it has attached, in the order in which they were; see `Attached`."""
        return [Attached(self._other(one)) for one in attached.ids(self._engine, self.id)]

    # -- trees -------------------------------------------------------------------------------------------------------

    def _other(self, other: Session | str) -> Session:
        """A handle of another session, given as one or as its id. Raises SessionNotFound for what is neither."""
        from .session import Session

        session_id = other.id if isinstance(other, Session) else other
        check_id(session_id)
        return Session(self._engine, session_id, self._waker, self._attend, self._caller)

    @needs("write")
    def branch(
        self, name: str, description: str | None = None, creator: str | None = None, at: int | str | None = None
    ) -> Session:
        """A new session that has this one's history and keyed state as of now, and goes its own way from there. Nothing
        is copied but keyed state that lives outside of the database.

        `at` is the number of the last entry that it is to have (its state is as of now), or the id of a checkpoint:
        then both are as of that. `creator` None: the caller. Raises SessionError, also for a tree that would be deeper
        than `tree_depth` and for a checkpoint where there is keyed state elsewhere; and CheckpointNotFound.
        """
        from .trees.branching import Wanted, branch

        access, caller = self._engine.access, self._caller
        if access.on:
            access.require(caller, "write", SESSIONS)
        wanted = Wanted(name, description or "", caller.principal if creator is None else creator, at)
        return self._other(branch(self._engine, self.id, wanted, caller.principal if access.on else None))

    @property
    @needs("read")
    def parent(self) -> Session | None:
        """The session that it is a branch of; None for one that is none."""
        found = self._engine.database.read(lambda tx: trees.get(tx, self.id))
        return None if found is None else self._other(found.parent)

    @needs("read")
    def children(self) -> list[Session]:
        """Its branches, the oldest first."""
        return [
            self._other(one.session_id) for one in self._engine.database.read(lambda tx: trees.children(tx, self.id))
        ]

    @needs("read")
    def path(self) -> list[Session]:
        """The sessions from the root of its tree down to itself."""
        from .trees.branching import path

        return [self._other(one) for one in path(self._engine, self.id)]

    @needs("write")
    def merge(self, branch: Session | str) -> Merged:
        """Bring what is new in one of its branches back: entries in order, and keys of its state by a three-way merge.

        What both have changed since the branch began, or was merged last, stays as it is here, and is a conflict until
        it is resolved. A merge without anything new changes nothing. Gives {branch, entries, keys, conflicts}. Raises
        SessionError for what is none of its branches.
        """
        from .trees.merging import merge_branch

        other = self._other(branch)
        other._require("read")
        return merge_branch(self._engine, self.id, other.id)

    @needs("read")
    def merge_conflicts(self, unresolved: bool = True) -> list[dict[str, Any]]:
        """Keys of its state that merges could not settle: {id, branch, key, base, ours, theirs, readable, resolved,
        resolution, created_at}; None stands for no value. `unresolved` False: also those that were resolved.
        `readable` False: values of the branch are not there, since it is archived or was deleted.
        """
        from .trees.conflicts import conflicts

        return conflicts(self._engine, self.id, unresolved)

    @needs("write")
    def resolve(self, conflict: int, choice: Any, *, by: str = "person") -> Any:
        """Settle a merge conflict: "ours", "theirs", a function `(base, ours, theirs) -> value`, or any other value.

        Gives the value that holds from then on. Raises SessionError for a conflict that is not open.
        """
        from .trees.conflicts import resolve

        return resolve(self._engine, self.id, conflict, choice, by)


def _given(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else value
