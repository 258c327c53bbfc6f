"""Starting and finding sessions. A session itself is handled by a `Session`."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import SessionError, SessionNotFound
from ..storage import listing, serial, sessions
from . import control, streams
from .engine import Engine
from .guard.access import SESSIONS, Caller
from .plans import Plan
from .session import Session
from .sizes import check_id, check_text, mapping, words
from .states import SESSION_STATES
from .templates import Templates
from .trees import branching
from .views import Page

#: The largest page that `list` gives.
MOST_PER_PAGE = 1000
_START_OF_ID = re.compile("[0-9a-f-]{4,36}")


class Sessions:
    """Starting and finding sessions."""

    def __init__(
        self,
        engine: Engine,
        waker: streams.Waker | None = None,
        attend: Callable[[], None] | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._engine = engine
        self._waker = waker
        self._attend = attend
        self._caller = engine.caller if caller is None else caller

    def _handle(self, session_id: str, owner: str | None = None) -> Session:
        check_id(session_id)
        return Session(self._engine, session_id, self._waker, self._attend, self._caller, owner)

    def _started(self, plan: Plan | None, order: control.Order) -> Session:
        """Start a session for the caller, or for another user if the caller is admin of all sessions."""
        engine, caller = self._engine, self._caller
        order = replace(order, user=order.user or caller.principal, tenant=caller.tenant)
        owner = Caller(order.user, caller.tenant) if engine.access.on or caller.tenant else caller
        if not engine.access.on:
            return self._handle(control.start(engine, plan, order), order.user)
        engine.access.require(caller, "write", SESSIONS)
        if owner != caller:
            engine.access.require(caller, "admin", "session:*")
        key = order.key
        known = engine.database.read(lambda tx: sessions.by_key(tx, caller.tenant, key)) if key is not None else None
        if known is not None:
            self._handle(known[0])._require("read")
        found = self._handle(control.start(engine, plan, order))
        found._require("read")  # another one may have been quicker to use the key
        return found

    def start(
        self,
        plan: Plan | None = None,
        query: str = "",
        *,
        template: str | None = None,
        user: str = "",
        key: str | None = None,
        permissions: Iterable[str] | None = None,
        preferences: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        title: str = "",
        type: str = "research",
        priority: int = 0,
        notes: str = "",
        metadata: Mapping[str, Any] | None = None,
        file_paths: Sequence[str | Path] = (),
    ) -> Session:
        """Start a session on a plan; its steps run as soon as a worker is free. A `template` gives what is left out:
        plan, preferences by key, and tags; and what its state begins with.

        `user` is whose it is: the caller's principal where none is named; for another's, access asks for admin on
        `session:*`. `key` is an idempotency key: the same key gives the same session. `permissions` are those that the
        user holds; None grants all that the agents declare. Raises PlanError, SessionError; nothing is written then.
        """
        order = _order(
            query=query,
            user=user,
            key=key,
            permissions=permissions,
            preferences=preferences,
            tags=tags,
            title=title,
            type=type,
            priority=priority,
            notes=notes,
            metadata=metadata,
            file_paths=file_paths,
        )
        if template is not None:
            plan, order = Templates(self._engine, self._caller).applied(template, plan, order)
        if plan is None:
            named = f"; template {template!r} has no plan" if template is not None else ""
            raise SessionError(f"a session that is started needs a plan{named}")
        return self._started(plan, order)

    def create(
        self,
        query: str = "",
        user: str = "",
        preferences: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        template: str | None = None,
        **more: Any,
    ) -> Session:
        """A session without a plan: active, phase `initializing`. `session.run(plan)` starts it; `session.send_message`
        makes it a conversation with the `agent` that `more` names. The others of `more` and `template` as in `start`;
        the plan of a template is left aside.
        """
        order = _order(query=query, user=user, preferences=preferences, tags=tags, **more)
        if template is not None:
            _, order = Templates(self._engine, self._caller).applied(template, None, order)
        return self._started(None, order)

    def get(self, session_id: str) -> Session:
        """The session with that id, or with the only id that starts so. Raises SessionNotFound."""
        near: list[tuple[str, str]] = []
        if not isinstance(session_id, str):
            raise SessionNotFound(f"{session_id!r} is no id of a session; an id is text")
        if _START_OF_ID.fullmatch(session_id):
            found = self._engine.database.read(lambda tx: sessions.identity(tx, session_id))
            if found is not None and found[4] == self._caller.tenant:
                session = self._handle(session_id, owner=found[2])
                session._require("read")
                return session
            whose = self._engine.access.whose(self._caller)
            near = self._engine.database.read(lambda tx: listing.starting_with(tx, whose, session_id))
        if len(near) == 1:
            return self._handle(*near[0])
        hint = f"; {len(near)} ids start so" if near else ""
        raise SessionNotFound(f"no session {session_id!r}{hint}")

    def list(
        self,
        status: str | Sequence[str] | None = None,
        *,
        user: str | None = None,
        tag: str | None = None,
        type: str | None = None,
        pinned: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        order: str = "created",
        ascending: bool = False,
        cursor: str | None = None,
        limit: int = 100,
        words: str | None = None,
    ) -> Page:
        """A page of sessions, newest first, as a list with a `cursor` for the next page (None at the end).

        `order` is created, updated or priority. Archived ones are left out unless `status` names them. Each item is a
        `Session`. Only those are listed that the caller may read.
        """
        wanted = _statuses(status)
        if order not in listing.ORDERS:
            raise SessionError(f"order {order!r} is not allowed; allowed: {', '.join(listing.ORDERS)}")
        if not isinstance(limit, int) or not 1 <= limit <= MOST_PER_PAGE:
            raise SessionError(f"limit {limit!r:.60} is not allowed; allowed: 1 to {MOST_PER_PAGE}")
        for name, value in (("user", user), ("tag", tag), ("type", type), ("words", words)):
            if value is not None:
                check_text(name, value, 10_000)
        if words is not None and self._engine.settings.encrypt == "all":
            raise SessionError(
                'sessions cannot be searched by words, because encrypt = "all" seals their queries, titles and notes; '
                "list them by status, user, tag, type or time"
            )
        after, whose = _position(cursor, order), self._engine.access.whose(self._caller)
        rows = self._engine.database.read(
            lambda tx: listing.listing(
                tx,
                whose,
                status=wanted,
                user=user,
                tag=tag,
                type_=type,
                pinned=pinned,
                since=_seconds(since),
                until=_seconds(until),
                order=order,
                ascending=ascending,
                after=after,
                limit=limit + 1,
                words=words,
            )
        )
        column = listing.ORDERS[order].name
        more = _cursor(rows[limit - 1][column], rows[limit - 1]["id"]) if len(rows) > limit else None
        return Page([self._handle(row["id"], row["user"]) for row in rows[:limit]], more)

    def search(self, words: str, **filters: Any) -> Page:
        """Sessions whose query, title or notes hold all these words (the last one may be the start of a word)."""
        return self.list(words=words, **filters)

    def delete(self, session_id: str, recursive: bool = False) -> None:
        """Delete a session that is not active, with everything that belongs to it; with `recursive` also its branches,
        and theirs. Raises SessionError for one that has branches without it.
        """

        def may(one: str) -> None:
            self._handle(one)._require("admin")

        for one in branching.delete(self._engine, session_id, recursive, may):
            self._engine.copies.forget(one)

    def tree(self, session_id: str) -> dict[str, Any]:
        """The whole tree that a session is in: {id, parent, name, description, creator, status, at, entries, merged,
        current, created_at, children}; of archived sessions `entries` is None, and of those that the caller may not
        read there are only ids and children.
        """
        access, caller = self._engine.access, self._caller
        self._handle(session_id)._require("read")
        return branching.tree(
            self._engine, session_id, lambda one: access.allows(caller, "read", f"session:{one}", owner=None)
        )

    def current(self, session_id: str) -> Session:
        """The current session of the tree that a session is in: the root until another one was switched to."""
        self._handle(session_id)._require("read")
        root = branching.root_of(self._engine, session_id)
        return self._handle(self._engine.database.read(lambda tx: branching.current_in(tx, root)))

    def switch(self, source: str, target: str) -> Session:
        """Make another session of the same tree the current one; gives it. Raises SessionError."""
        for one in (source, target):
            self._handle(one)._require("write")
        self._handle(branching.root_of(self._engine, source))._require("write")  # which says which one is current
        branching.switch(self._engine, source, target)
        return self._handle(target)

    def compare(self, a: str, b: str) -> dict[str, Any]:
        """What two sessions differ in: {a, b, common, history: {shared, a, b}, state: [{key, a, b}], results: [{step,
        a, b}]}. `common` is the nearest session that both come from; `a` and `b` are the entries that only one has.
        """
        from .trees.comparing import compare

        handles = self._handle(a), self._handle(b)
        for one in handles:
            one._require("read")
        return compare(self._engine, self._engine.state_for(self._caller), *handles)

    def cache_stats(self) -> dict[str, Any]:
        """What this process keeps of sessions at hand: entries, most_entries, bytes, hits, misses, hit_rate."""
        self._engine.access.require(self._caller, "read", SESSIONS)
        return self._engine.copies.stats()

    def active_count(self) -> int:
        """How many sessions are active, of those that the caller may read."""
        whose = self._engine.access.whose(self._caller)
        return self._engine.database.read(lambda tx: listing.active_count(tx, whose))

    def cleanup_inactive(self, max_inactivity: float) -> Sequence[str]:
        """Cancel active and paused sessions that have not changed for so many seconds; pinned ones stay, and those that
        the caller may not write. Gives their ids.
        """
        cancelled, access, caller = [], self._engine.access, self._caller
        found = self._engine.database.read(lambda tx: sessions.inactive(tx, caller.tenant, max_inactivity))
        for session_id, user in found:
            if not access.allows(caller, "write", f"session:{session_id}", owner=user):
                continue
            with contextlib.suppress(SessionError, SessionNotFound):  # it has ended, or was deleted, just now
                control.cancel(self._engine, session_id)
                cancelled.append(session_id)
        return cancelled


def _order(
    *,
    permissions: Iterable[str] | None = None,
    preferences: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
    file_paths: Iterable[str | Path] = (),
    **more: Any,
) -> control.Order:
    """What a session is started with. Raises SessionError for what is no list or no object."""
    return control.Order(
        permissions=None if permissions is None else sorted(words("permissions", permissions)),
        preferences=mapping("preferences", preferences),
        tags=tuple(words("tags", tags)),
        metadata=mapping("metadata", metadata),
        file_paths=words("file_paths", file_paths, (str, Path)),
        **more,
    )


def _statuses(status: str | Sequence[str] | None) -> tuple[str, ...]:
    wanted = (status,) if isinstance(status, str) else tuple(status or (s for s in SESSION_STATES if s != "archived"))
    for one in wanted:
        if one not in SESSION_STATES:
            raise SessionError(f"status {one!r} is not allowed; allowed: {', '.join(SESSION_STATES)}")
    return wanted


def _seconds(when: datetime | None) -> float | None:
    if when is None:
        return None
    if when.tzinfo is None:
        raise SessionError(f"{when.isoformat()} has no time zone; pass an aware datetime such as datetime.now(UTC)")
    return when.astimezone(UTC).timestamp()


def _cursor(value: Any, session_id: str) -> str:
    return base64.urlsafe_b64encode(serial.encode([value, session_id])).decode()


def _position(cursor: str | None, order: str) -> tuple[Any, str] | None:
    if cursor is None:
        return None
    try:
        value, session_id = serial.decode(base64.urlsafe_b64decode(cursor))
    except Exception:
        value = session_id = None
    kinds = {"created": str, "updated": float, "priority": int}
    if not isinstance(session_id, str) or not isinstance(value, kinds[order]):
        raise SessionError(f"{cursor!r} is not a cursor that `list` gave for the order {order!r}")
    return value, session_id


__all__ = ["Session", "Sessions"]
