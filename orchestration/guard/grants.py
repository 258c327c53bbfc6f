"""Grants: giving them, taking them back, listing them, and what was refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import AccessError
from ...storage import access, serial
from ...storage.database import Database, Transaction
from ..state.scopes import KINDS, Scope, ScopeError
from ..views import moment
from .access import CACHE, EVERYTHING, LONGEST_NAME, RIGHTS, SESSIONS, Access, Caller, Right

#: Longest resource, in bytes of UTF-8.
MOST_RESOURCE_BYTES = 1024
#: So many refusals are looked through for who is not admin of all.
MOST_LOOKED_AT = 1000
_FORMS = "session:ID, sessions, cache, global, agent:ID, workflow:ID, step:WORKFLOW/STEP, custom:NAME, *"


class Grants:
    """The grants of a caller's tenant: `read`, `write` (and read) or `admin` (all) on a resource, to a principal.

    In names of principals and resources `*` stands for any characters. A grant is given and taken back by who has admin
    on all of its resource: the user of the session that it is, or who was granted that. It is in force at once.
    """

    def __init__(self, access: Access, database: Database, caller: Caller) -> None:
        self._access = access
        self._database = database
        self._caller = caller

    def add(self, principal: str, right: Right, resource: str) -> bool:
        """Give a grant; False if it was there. Raises AccessError for what is none, AccessDenied."""
        given = _checked(principal, right, resource)
        self._access.require(self._caller, "admin", given[2])
        caller = self._caller
        return self._database.write(lambda tx: access.add(tx, caller.tenant, *given, by=caller.principal))

    def remove(self, principal: str, right: Right, resource: str) -> bool:
        """Take back a grant, as it was given; False if there is none. Raises AccessError, AccessDenied."""
        given = _checked(principal, right, resource)
        self._access.require(self._caller, "admin", given[2])
        return self._database.write(lambda tx: access.remove(tx, self._caller.tenant, *given))

    def list(self) -> Sequence[dict[str, Any]]:
        """The grants on resources that the caller has admin on, and those that were given to it: principal, right,
        resource, granted_by, at.
        """
        caller = self._caller
        rows = self._database.read(lambda tx: access.listing(tx, caller.tenant))
        held, admin = self._access.holds(caller), self._access.admin_of(caller, (row[2] for row in rows))
        return [
            {"principal": who, "right": right, "resource": what, "granted_by": by, "at": moment(at)}
            for who, right, what, by, at in rows
            if what in admin or (who, what, right) in held
        ]

    def refused(self, limit: int = 100) -> Sequence[dict[str, Any]]:
        """What was refused of resources that the caller has admin on, the latest first: principal, right, resource,
        times, first_at, last_at. Of a tenant the newest 10,000 are kept; of these, who is not admin of `*` sees none
        but the newest 1,000.
        """
        caller = self._caller
        most = limit if self._access.allows(caller, "admin", EVERYTHING) else MOST_LOOKED_AT
        rows = self._database.read(lambda tx: access.refused(tx, caller.tenant, most))
        admin = self._access.admin_of(caller, (row[2] for row in rows))
        return [
            {
                "principal": who,
                "right": right,
                "resource": what,
                "times": times,
                "first_at": moment(first),
                "last_at": moment(last),
            }
            for who, right, what, times, first, last in rows
            if what in admin
        ][:limit]


def bootstrap(database: Database, tenant: str, principal: str) -> None:
    """Make a principal the first admin of a tenant. Nobody is asked: it is for who holds the database.

    Raises AccessError if the tenant has an admin.
    """
    given = _checked(principal, "admin", EVERYTHING)

    def work(tx: Transaction) -> None:
        there = access.admins(tx, tenant)
        if there and there != [principal]:
            raise AccessError(f"there is an admin already: {', '.join(there[:5])}; ask there for a grant")
        access.add(tx, tenant, *given, by="")

    database.write(work)


def _checked(principal: str, right: str, resource: str) -> tuple[str, Right, str]:
    """A grant as it is stored. Raises AccessError."""
    if not isinstance(principal, str) or not principal or not serial.is_storable(principal):
        raise AccessError(f"principal {principal!r:.80} is not allowed; allowed: text, in which * may stand for any")
    if len(principal) > LONGEST_NAME or len(principal.encode()) > 512:
        raise AccessError(f"principal has {len(principal)} characters; at most {LONGEST_NAME} are allowed")
    found = next((one for one in RIGHTS if one == right), None)
    if found is None:
        raise AccessError(f"right {right!r} is not allowed; allowed: {', '.join(RIGHTS)}")
    return principal, found, _resource(resource)


def _resource(text: str) -> str:
    if text in (SESSIONS, CACHE, EVERYTHING, "global"):
        return text
    if not isinstance(text, str) or not serial.is_storable(text) or len(text.encode()) > MOST_RESOURCE_BYTES:
        raise AccessError(f"resource {text!r:.80} is not allowed; allowed: {_FORMS}, of {MOST_RESOURCE_BYTES} bytes")
    kind, _, name = text.partition(":")
    if not KINDS.get(kind) or not name:  # * may stand for a part of the name only
        raise AccessError(f"resource {text!r:.80} is not allowed; allowed: {_FORMS}")
    if "*" in name:
        return text
    try:
        return str(Scope.parse(text))
    except ScopeError as fault:
        raise AccessError(f"resource {text!r:.80} is not allowed: {fault}") from None
