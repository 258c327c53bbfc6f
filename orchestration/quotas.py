"""Quotas: how much one session and one user may have. What a step records is counted in its session's row, in the
statement that writes that row anyway, and what is said in the row of its conversation; who sets no quota pays nothing
more. What lives outside of the database is counted only where a quota is set.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ..config import Settings
from ..errors import QuotaExceeded
from ..storage import results, sessions
from ..storage.database import Transaction
from ..storage.histories import rows as history
from ..storage.histories.protocol import Item
from ..storage.sessions import Hot
from .turn import Turn

if TYPE_CHECKING:
    from .engine import Engine

#: What a user has in all sessions is summed up again after so many seconds, and before anything is refused.
KNOWN_SECONDS: Final = 2.0
_MOST_USERS: Final = 10_000


class Quotas:
    """The quotas of the settings (0: none). Safe in threads: a count that is lost is read anew."""

    def __init__(self, settings: Settings) -> None:
        self._sessions = settings.quota_user_sessions
        self._user_bytes = settings.quota_user_bytes
        self._bytes = settings.quota_session_bytes
        self._blobs = settings.quota_session_blobs
        #: Whether what a step records has to be looked at.
        self.on = bool(self._user_bytes or self._bytes or self._blobs)
        self._users: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def admit(self, tx: Transaction, tenant: str, user: str) -> None:
        """Raise QuotaExceeded if a user may not have one more open session."""
        if not self._sessions:
            return
        count = sessions.open_of(tx, tenant, user)
        if count >= self._sessions:
            raise QuotaExceeded(
                f"quota_user_sessions: user {user!r} has {count} active or paused sessions; at most {self._sessions} "
                "are allowed"
            )

    def check(self, tx: Transaction, hot: Hot, owner: tuple[str, str], size: int, blob: bool, said: int = 0) -> None:
        """Raise QuotaExceeded if a session may not record so many bytes more, in a blob or not. Of them, `said` are in
        its history already.
        """
        if self._bytes:
            used = hot.stored_bytes + history.bytes_of(tx, hot.id) - said
            if used + size > self._bytes:
                raise _refused("quota_session_bytes", f"session {hot.id}", used, size, self._bytes, "bytes")
        if self._blobs and blob and hot.stored_blobs >= self._blobs:
            raise _refused("quota_session_blobs", f"session {hot.id}", hot.stored_blobs, 1, self._blobs, "blobs")
        if self._user_bytes:
            used = self._used_by(tx, owner, size, said)
            if used + size > self._user_bytes:
                raise _refused("quota_user_bytes", f"user {owner[1]!r}", used, size, self._user_bytes, "bytes")

    def note(self, owner: tuple[str, str], size: int) -> None:
        """Count bytes that a session of a user records."""
        if owner in self._users:
            at, used = self._users[owner]
            self._users[owner] = (at, used + size)

    def _used_by(self, tx: Transaction, owner: tuple[str, str], size: int, said: int) -> int:
        """Bytes that a user has in all sessions, as of some seconds ago with what was recorded here since; as of now
        where that would be too many.
        """
        known = self._users.get(owner)
        now = time.monotonic()
        if known is not None and now - known[0] < KNOWN_SECONDS and known[1] + size <= self._user_bytes:
            return known[1]
        used = sessions.bytes_of(tx, *owner) - said
        self._users[owner] = (now, used)
        if len(self._users) > _MOST_USERS:
            self._users.popitem(last=False)
        return used


def store(engine: Engine, session_id: str, data: bytes) -> results.Stored:
    """An output, as JSON, ready to be recorded in a session: large ones are written as blobs. Raises QuotaExceeded."""
    inline, quotas = engine.settings.inline_result_bytes, engine.quotas
    if quotas.on and len(data) > inline:  # before a blob is written for nothing

        def look(tx: Transaction) -> None:
            hot = sessions.look(tx, session_id)
            if hot is not None:
                quotas.check(tx, hot, engine.owner_of(tx, session_id), len(data), blob=True)

        engine.database.read(look)
    return results.store(data, engine.blobs, inline)


def count(engine: Engine, turn: Turn, stored: results.Stored) -> None:
    """Count an output that a turn records. Raises QuotaExceeded."""
    hot, quotas = turn.hot, engine.quotas
    if quotas.on:
        owner = engine.owner_of(turn.tx, hot.id)
        quotas.check(turn.tx, hot, owner, stored.size, stored.blob is not None)
        turn.tx.after_commit.append(lambda: quotas.note(owner, stored.size))
    hot.stored_bytes += stored.size
    hot.stored_blobs += stored.blob is not None


def admitting(engine: Engine, session_id: str) -> history.Admit | None:
    """What asks whether entries may be appended to a session's history in the database; None: no quota is set."""
    quotas = engine.quotas
    if not quotas.on:
        return None

    def admit(tx: Transaction, size: int) -> None:
        hot = sessions.look(tx, session_id)
        if hot is not None:
            owner = engine.owner_of(tx, session_id)
            quotas.check(tx, hot, owner, size, blob=False, said=size)
            tx.after_commit.append(lambda: quotas.note(owner, size))

    return admit


def count_elsewhere(engine: Engine, session_id: str, items: Iterable[Item]) -> None:
    """Count entries that are about to be appended to a history outside of the database, where a quota is set. Raises
    QuotaExceeded.
    """
    quotas = engine.quotas
    if not quotas.on:
        return
    size = sum(len(item.body) for item in items)

    def work(tx: Transaction) -> None:
        hot = sessions.lock(tx, session_id)
        if hot is not None:
            owner = engine.owner_of(tx, session_id)
            quotas.check(tx, hot, owner, size, blob=False)
            sessions.add_bytes(tx, session_id, size)
            tx.after_commit.append(lambda: quotas.note(owner, size))

    engine.database.write(work)


def _refused(quota: str, whose: str, used: int, more: int, allowed: int, unit: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"{quota}: {whose} uses {used:,} {unit} and needs {more:,} more; at most {allowed:,} are allowed"
    )
