"""Pruning: letting go sessions and messages by use, age, size and likeness. Pinned sessions, sessions with work to be
done, important messages and system prompts always stay; and of messages the newest, so many by the session's type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from ...config.urls import masked
from ...errors import CeleriacError
from ...storage import aging, pruning, reclaimed, vacuum
from ...storage.batches import Batches
from ...storage.histories import reads, rows
from ...storage.histories.sql import SqlPlace
from ..engine import Engine
from ..guard.access import Caller
from ..history.reading import reads_of
from ..history.tokens import ESTIMATE, tokens_of
from . import room
from .messages import Messages, by_session
from .removing import remove
from .strategies import STRATEGIES, Given, Item, Limits, choose, limit

_DAY: Final = 86400.0


@dataclass(slots=True)
class Pruned:
    """What pruning took away, or (a dry run) would: sessions as {id, bytes, messages, why}, messages as {session,
    number, bytes, tokens, why}; bytes and tokens of all of them. `counted_by` names a tokenizer or an estimate; `by`:
    what use is measured by; `file_bytes`: of SQLite's file, before and after.
    """

    strategy: str
    dry_run: bool
    by: str
    counted_by: str
    sessions: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    tokens: int = 0
    file_bytes: tuple[int, int] = (0, 0)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data, with `counts`."""
        counts = {"sessions": len(self.sessions), "messages": len(self.messages)}
        return {
            **asdict(self),
            "file_bytes": dict(zip(("before", "after"), self.file_bytes, strict=True)),
            "counts": counts,
        }


class Pruning:
    """Pruning of the sessions of a caller's tenant."""

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine = engine
        self._caller = caller

    def run(
        self,
        strategy: str | None = None,
        *,
        of: str | None = None,
        session: str | None = None,
        keep: int | None = None,
        max_bytes: int | None = None,
        ttl: float | None = None,
        similarity: float | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Prune `sessions` or `messages` (None: both), or the messages of one session.

        `strategy`: lru, lfu (until at most `keep` are left), ttl (those whose time is over: `ttl` seconds, of messages
        that have one their own), size (the largest, until at most `max_bytes` are left), semantic (older ones that say
        nearly the same as others: `similarity`, 0 to 1). What is not given is as the settings `prune_...` have it; with
        no strategy all of it is, and what they do not limit stays. Raises AccessDenied without admin, CeleriacError.
        """
        scheduled = strategy is None
        name = self._engine.settings.prune_strategy if strategy is None else strategy
        given = Given(keep, max_bytes, ttl, similarity)
        self._check(name, of, session, scheduled, given)
        self._require("session:*" if session is None else f"session:{session}", session)
        counter = tokens_of(self._engine.settings.model)
        report = Pruned(name, dry_run, self._by, counter.how)
        if name == "off":
            return report
        if (counted := reads_of(self._engine)) is not None:
            counted.flush()
        database = self._engine.database
        batches = Batches(database)
        size = vacuum.file_bytes(database) if dry_run else room.measured(database)
        if of != "messages" and session is None:
            self._sessions(report, batches, given, scheduled)
        if of != "sessions":
            going = {one["id"] for one in report.sessions}
            self._messages(report, batches, given, scheduled, session, going)
        if not dry_run:
            self._count(report)
            if report.sessions or report.messages:
                room.give_back(database, batches)
                report.notes += [why] if (why := room.kept_back(database)) is not None else []
        report.file_bytes = (size, vacuum.file_bytes(database))
        return report

    def stats(self) -> dict[str, dict[str, float]]:
        """What was taken away so far: {pruning, retention: {runs, sessions, messages, bytes, tokens}}."""
        self._require("session:*", None)
        return self._engine.database.read(lambda tx: reclaimed.totals(tx, self._caller.tenant))

    def _check(self, name: str, of: str | None, session: str | None, scheduled: bool, given: Given) -> None:
        if name not in STRATEGIES and not (scheduled and name == "off"):
            raise CeleriacError(f"no strategy {name!r:.40} of pruning; allowed: {', '.join(STRATEGIES)}")
        if of not in (None, "sessions", "messages") or (session is not None and of == "sessions"):
            raise CeleriacError(f"pruning of {of!r:.40} is not allowed; allowed: sessions, messages, or None for both")
        given.check(name)
        if (of, name, given.ttl) == ("sessions", "ttl", None) and not self._engine.settings.prune_session_days:
            raise CeleriacError("pruning sessions by ttl needs to know what is old (ttl, or prune_session_days)")

    def _require(self, resource: str, session: str | None) -> None:
        access = self._engine.access
        owner = None if session is None else access.owner_of(self._caller, session)
        if owner is None:
            access.require(self._caller, "admin", resource)
        else:
            access.require(self._caller, "admin", resource, owner=owner)

    @property
    def _by(self) -> str:
        counts = self._engine.settings.prune_count_reads == "on"
        return "what is read and written" if counts else "what is written (prune_count_reads is off)"

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _sessions(self, report: Pruned, batches: Batches, given: Given, scheduled: bool) -> None:
        settings, database, tenant = self._engine.settings, self._engine.database, self._caller.tenant
        count, now = database.read(lambda tx: (pruning.count(tx, tenant), tx.now()))
        needs_size = report.strategy == "size"
        items = list(self._session_items(report.strategy, given))
        limits = Limits(
            count,
            limit(given.keep, settings.prune_sessions),
            sum(one.size for one in items) + self._staying(items) if needs_size else 0,
            limit(given.max_bytes, settings.prune_session_bytes),
            given.similarity or settings.prune_similarity,
        )
        if scheduled and _unlimited(report.strategy, limits):
            return
        for item, why in list(choose(report.strategy, items, limits, now)):
            size, said = database.read(partial(aging.bytes_of, session_id=item.key[0]))
            messages = database.read(partial(rows.count, session_id=item.key[0]))
            if not report.dry_run and not self._remove(batches, item):
                continue
            report.sessions.append({"id": item.key[0], "bytes": size, "messages": messages, "why": why})
            report.bytes += size
            report.tokens += -(-said // 4)
        if report.sessions and report.counted_by != ESTIMATE.how:
            report.counted_by += f"; of sessions {ESTIMATE.how}"

    def _session_items(self, strategy: str, given: Given) -> Iterator[Item]:
        settings, database = self._engine.settings, self._engine.database
        days = settings.prune_session_days
        ttl = given.ttl if given.ttl is not None else days * _DAY if days else None
        found = pruning.candidates(database, self._caller.tenant)
        for one in sorted(found, key=lambda one: (one.user, -one.changed_at)) if strategy == "semantic" else found:
            times, at = database.read(partial(reads.total, session_id=one.id))
            size = 0
            if strategy == "size":
                size = database.read(partial(aging.bytes_of, session_id=one.id))[0]
            used = max(at, one.changed_at)
            uses = times if settings.prune_count_reads == "on" else one.changes
            text = f"{one.query}\n{one.title}"
            yield Item((one.id, 0), used, uses, size, ttl, used, text, group=one.user, changed=one.changed_at)

    def _staying(self, items: list[Item]) -> int:
        """Bytes of the sessions that pruning leaves alone."""
        database, known = self._engine.database, {one.key[0] for one in items}
        ids = database.read(lambda tx: pruning.ids(tx, self._caller.tenant))
        return sum(database.read(partial(aging.bytes_of, session_id=one))[0] for one in ids if one not in known)

    def _remove(self, batches: Batches, item: Item) -> bool:
        session_id = item.key[0]
        return remove(
            self._engine, batches, session_id, lambda tx: pruning.unchanged_since(tx, session_id, item.changed)
        )

    # -- messages ----------------------------------------------------------------------------------------------------

    def _messages(
        self, report: Pruned, batches: Batches, given: Given, scheduled: bool, session: str | None, going: set[str]
    ) -> None:
        place = self._engine.conversations
        if not isinstance(place, SqlPlace) and (scheduled or session is None):
            where = masked(self._engine.settings.history_url)
            report.notes.append(
                f"no messages were looked at: they live in {where}, and only the database gives some up"
            )
            return
        messages = Messages(self._engine, self._caller.tenant, session, going)
        limits = messages.limits(report.strategy, given)
        if scheduled and _unlimited(report.strategy, limits):
            return
        chosen = messages.choose(report.strategy, given, limits)
        for session_id, choices in by_session(chosen):
            found = messages.shown(session_id, choices)
            if not report.dry_run:
                gone = messages.remove(batches, session_id, [one["number"] for one in found])
                found = [one for one in found if one["number"] in gone]
            report.messages += found
        report.bytes += sum(one["bytes"] for one in report.messages)
        report.tokens += sum(one["tokens"] for one in report.messages)

    def _count(self, report: Pruned) -> None:
        told = {"runs": 1, "sessions": len(report.sessions), "messages": len(report.messages)}
        told["messages"] += sum(one["messages"] for one in report.sessions)
        told |= {"bytes": report.bytes, "tokens": report.tokens}
        tenant = self._caller.tenant
        self._engine.database.write(lambda tx: reclaimed.add(tx, tenant, "pruning", told))


def _unlimited(strategy: str, limits: Limits) -> bool:
    """Whether the settings set no limit for that strategy."""
    return (strategy in ("lru", "lfu") and limits.most is None) or (strategy == "size" and limits.most_size is None)
