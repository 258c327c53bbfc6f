"""Access: who may do what. Every door, of sessions, state, the cache and grants, asks `Access.require`."""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, Final, Literal, TypeVar, cast, get_args

from ...errors import AccessDenied, CeleriacError, SessionNotFound, SettingsError
from ...storage import access, serial, sessions
from ...storage.database import Database, Transaction
from ...storage.listing import Whose
from ..schemas.registry import Pattern
from ..state.scopes import Scope

logger = logging.getLogger("celeriac.access")

F = TypeVar("F", bound=Callable[..., Any])

Right = Literal["read", "write", "admin"]
#: From the least to the most; each holds those before it.
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
RANK: Final[dict[str, int]] = {right: number for number, right in enumerate(RIGHTS, 1)}
#: Names of principals and tenants have at most so many characters.
LONGEST_NAME: Final = 200
#: What starting and counting sessions is a right on; and what it is for cached results.
SESSIONS: Final = "sessions"
CACHE: Final = "cache"
EVERYTHING: Final = "*"
#: So many callers, owners of sessions, and resources of a caller are kept at hand.
_MOST_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a principal (empty: nobody) of a tenant (empty: the one without a name). Raises SettingsError."""

    principal: str = ""
    tenant: str = ""

    def __post_init__(self) -> None:
        for what, name in (("principal", self.principal), ("tenant", self.tenant)):
            if not isinstance(name, str) or not serial.is_storable(name):
                raise SettingsError(f"{what} {name!r:.80} is not allowed; allowed: text without a null byte")
            if len(name) > LONGEST_NAME or len(name.encode()) > 512:
                raise SettingsError(
                    f"{what} has {len(name)} characters; at most {LONGEST_NAME} of 512 bytes in UTF-8 are allowed"
                )


@dataclass(frozen=True, slots=True)
class Housekeeper(Caller):
    """Celeriac itself, at what nobody asks for: maintenance. It may do everything; a principal of its name may not."""

    principal: str = "celeriac"


@dataclass(slots=True)
class _Held:
    """What a caller was granted as of a mark, and what that came to for resources that were asked for."""

    mark: int | None
    grants: list[tuple[int, Pattern]]
    ranks: dict[str, int] = field(default_factory=dict)

    def rank(self, resource: str) -> int:
        known = self.ranks.get(resource)
        if known is None:
            # The pattern `custom:a*` as a resource is all that it stands for: what matches its text covers that.
            known = max((rank for rank, pattern in self.grants if pattern.matches(resource)), default=0)
            if len(self.ranks) >= _MOST_KEPT:
                self.ranks.clear()
            self.ranks[resource] = known
        return known


class Access:
    """Decides what callers may do, by the grants that are in the database now. Safe in threads and across forks.

    Resources are `session:ID`, scopes of state as text (`agent:reader`, `custom:plans` ...), `sessions` (starting and
    counting them), `cache` and `*`. Grants of a caller are kept at hand; each check asks the database whether they have
    changed, so that a grant that was taken back in any process counts for no operation that begins after it.
    """

    def __init__(self, database: Database, on: bool) -> None:
        self.on = on
        self._database = database
        self._mark = database.glance(access.MARK)
        self._known: OrderedDict[Caller, _Held] = OrderedDict()
        self._owners: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def require(
        self, caller: Caller, right: Right, resource: str, *, owner: str | None = None, tx: Transaction | None = None
    ) -> None:
        """Raise AccessDenied, and note that, unless the caller holds that right; nothing while access is off.

        `owner` is the user of the session that the resource is (None: it is looked up), who may do everything with it.
        In a transaction `tx` nothing is noted.
        """
        if self.allows(caller, right, resource, owner=owner, tx=tx):
            return
        if tx is None:
            self._note(caller, right, resource)
        raise AccessDenied(_said(caller, right, resource))

    def allows(
        self, caller: Caller, right: Right, resource: str, *, owner: str | None = None, tx: Transaction | None = None
    ) -> bool:
        """Whether the caller holds that right on a resource, or on all that a pattern stands for."""
        if not self.on or isinstance(caller, Housekeeper):
            return True
        if not caller.principal:
            return False
        if owner == caller.principal or self._held(caller, tx).rank(resource) >= RANK[right]:
            return True
        return owner is None and self._owns(caller, resource, tx)

    def _owns(self, caller: Caller, resource: str, tx: Transaction | None) -> bool:
        kind, _, session_id = resource.partition(":")
        if kind != "session" or "*" in session_id:
            return False
        return self._whose(session_id, tx) == (caller.tenant, caller.principal)

    def owner_of(self, caller: Caller, session_id: str) -> str:
        """The user of a session of the caller's tenant. Raises SessionNotFound, also for one of another tenant."""
        found = self._whose(session_id, None)
        if found is None or found[0] != caller.tenant:
            raise SessionNotFound(f"no session {session_id!r}")
        return found[1]

    def whose(self, caller: Caller) -> Whose:
        """The sessions that the caller may read."""
        if not self.on or self.allows(caller, "read", "session:*"):
            return Whose(caller.tenant)
        held = self._held(caller, None).grants if caller.principal else []
        patterns = tuple(one.text.removeprefix("session:") for _, one in held if one.text.startswith("session:"))
        return Whose(caller.tenant, caller.principal, patterns)

    def admin_of(self, caller: Caller, resources: Iterable[str]) -> set[str]:
        """Those of the resources that the caller has admin on."""
        wanted = set(resources)
        if not self.on:
            return wanted
        held = self._held(caller, None) if caller.principal else None
        if held is None:
            return set()
        return {one for one in wanted if held.rank(one) >= RANK["admin"] or self._owns(caller, one, None)}

    def holds(self, caller: Caller) -> set[tuple[str, str, str]]:
        """(principal or pattern, resource, right) of the grants that the caller was given."""
        rows = self._database.read(lambda tx: access.meant(tx, caller.tenant, caller.principal))
        return {(row[0], row[1], row[2]) for row in rows if Pattern(row[0]).matches(caller.principal)}

    def _whose(self, session_id: str, tx: Transaction | None) -> tuple[str, str] | None:
        """(tenant, user) of a session, which never change."""
        known = self._owners.get(session_id)
        if known is None:

            def look(tx: Transaction) -> sessions.Identity | None:
                return sessions.identity(tx, session_id)

            found = self._database.read(look) if tx is None else look(tx)
            if found is None:
                return None
            known = self._owners[session_id] = (found[4], found[2])
            if len(self._owners) > _MOST_KEPT:
                self._owners.popitem(last=False)
        return known

    def _held(self, caller: Caller, tx: Transaction | None) -> _Held:
        """What the caller holds now."""
        mark = self._mark(of=caller.tenant) if tx is None else access.mark(tx, caller.tenant)
        held = self._known.get(caller)
        if held is None or held.mark != mark:
            held = self._database.read(lambda tx: _read(tx, caller)) if tx is None else _read(tx, caller)
            self._known[caller] = held
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return held

    def _note(self, caller: Caller, right: Right, resource: str) -> None:
        logger.info("refused: %r of tenant %r lacks %s on %s", caller.principal, caller.tenant, right, resource)
        try:
            self._database.write(lambda tx: access.refuse(tx, caller.tenant, caller.principal, right, resource))
        except CeleriacError as fault:  # it is refused all the same
            logger.warning("a refusal was not noted: %s", fault)


def _read(tx: Transaction, caller: Caller) -> _Held:
    mark = access.mark(tx, caller.tenant)  # first, so that what is read after it is never older than it
    rows = access.meant(tx, caller.tenant, caller.principal)
    mine = [row for row in rows if Pattern(row[0]).matches(caller.principal)]
    return _Held(mark, [(RANK[level], Pattern(resource)) for _, resource, level in mine])


def _said(caller: Caller, right: Right, resource: str) -> str:
    of = f" of tenant {caller.tenant!r}" if caller.tenant else ""
    if not caller.principal:
        return (
            f"access denied: nobody is named{of}, and {resource} needs the grant {right}; "
            "name a principal (the setting `principal`, --as, or acting_as)"
        )
    words = f"{f'--tenant {quote(caller.tenant)} ' if caller.tenant else ''}grants add {quote(caller.principal)}"
    return (
        f"access denied: {caller.principal!r}{of} lacks the grant {right} on {resource}; who has admin on it can give "
        f"it: celeriac {words} {right} {quote(resource)}"
    )


def needs(right: Right) -> Callable[[F], F]:
    """Of a method of a handle: it is called only after the handle's `_require(right)`."""

    def mark(method: F) -> F:
        @functools.wraps(method)
        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            self._require(right)
            return method(self, *args, **kwargs)

        return cast(F, checked)

    return mark


@dataclass(frozen=True, slots=True)
class StateDoor:
    """What a `State` asks before each operation. Scopes in `free` are open to whoever holds it."""

    access: Access
    caller: Caller
    free: Collection[str] = ()

    def __call__(self, action: str, scope: Scope, keys: Sequence[str]) -> None:
        """Raise AccessDenied if the caller may not."""
        name = str(scope)
        if name not in self.free:
            self.access.require(self.caller, "read" if action == "read" else "write", name)

    def again(self, tx: Transaction, name: str) -> None:
        """The same for a write that was held, in the transaction that makes it."""
        if name not in self.free:
            self.access.require(self.caller, "write", name, tx=tx)
