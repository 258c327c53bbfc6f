"""What is erased: a user of a tenant, or one session; and how a receipt names it without saying who it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ...errors import ArchiveError
from ...storage import session_state
from ..guard.access import Caller
from ..state.scopes import Scope


@dataclass(frozen=True, slots=True)
class Subject:
    """Exactly one of `user` and `session`, of a tenant. Raises ArchiveError."""

    tenant: str
    user: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        if (self.user is None) == (self.session is None) or not (self.user or self.session):
            raise ArchiveError("erase takes exactly one of user and session, which is not empty")
        if self.user is not None:
            Caller(self.user, self.tenant)  # a name, or it is refused

    @property
    def kind(self) -> str:
        """user or session."""
        return "user" if self.user is not None else "session"

    def hashed(self, salt: str) -> str:
        """A hash by which a receipt can be found by who knows of whom it is."""
        made = hashlib.blake2b(digest_size=16, salt=bytes.fromhex(salt), person=b"celeriac-erased")
        made.update("\0".join((self.kind, self.tenant, self.user or self.session or "")).encode())
        return made.hexdigest()

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of keyed state that are named after the user, as their place calls them."""
        if self.user is None:
            return ()
        prefix = session_state.prefix_of(self.tenant)
        return tuple(prefix + str(Scope.custom(name)) for name in (self.user, f"user:{self.user}"))
