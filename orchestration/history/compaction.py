"""Compaction: older entries of a history become one that sums them up; what they were is put away, compressed, and can
be read and put back.

A compaction of many entries is done some at a time: each time the summary of before is among what is summed up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import SessionError
from ...storage import results, serial, sessions, trees
from ...storage.histories import cold, rows, thinning
from ...storage.histories.cold import Stored
from ...storage.histories.protocol import HistoryConflict, HistoryError, Kept
from ...storage.histories.sql import SqlPlace
from ..engine import Engine
from ..guard.doors import place_of
from ..turn import Turn
from .entries import all_shown, body_of, item_of, whole
from .summaries import summarise
from .tokens import tokens_of

#: Entries that are summed up at once.
_PASS: Final = 2000
_PAGE: Final = 200


@dataclass(slots=True)
class Compacted:
    """What a compaction did, or (a dry run) would do. `summaries`: the numbers of the entries that it wrote; of them
    the last one sums up all. `tokens` before and after, `counted_by` a tokenizer or an estimate; `bytes` likewise,
    `cold_bytes` what is kept of them; `by`: who wrote the summary, a model or `sentences`.
    """

    dry_run: bool
    entries: int = 0
    summaries: list[int] = field(default_factory=list)
    by: str = ""
    tokens_before: int = 0
    tokens_after: int = 0
    counted_by: str = ""
    bytes_before: int = 0
    bytes_after: int = 0
    cold_bytes: int = 0


def of_database(engine: Engine, session_id: str) -> SqlPlace:
    """The place of histories. Raises HistoryError where it is not the database."""
    place = engine.conversations
    if not isinstance(place, SqlPlace):
        raise HistoryError(
            f"the history of {session_id} cannot be thinned out: it lives outside of the database (history_url), and "
            f"only there are entries taken out; celeriac history move {session_id} --to database"
        )
    return place


def compact(engine: Engine, session_id: str, keep_last: int, dry_run: bool = False) -> Compacted:
    """Sum up all but the newest `keep_last` entries. Important ones and system prompts stay as well; and calls of
    tools, as long as their results stay.

    Raises HistoryError, HistoryConflict if entries were taken out meanwhile, SessionError where it is archived.
    """
    keep_last = whole("keep_last", keep_last)
    place, counter = of_database(engine, session_id), tokens_of(engine.settings.model)
    found = engine.database.read(lambda tx: sessions.status(tx, session_id))
    if found is not None and found[0] == "archived":  # its entries are in its file
        raise _is_archived(session_id)
    if engine.database.read(lambda tx: trees.get(tx, session_id) is not None or trees.shared(tx, session_id) > 0):
        raise HistoryError(f"the history of {session_id} is not summed up: it shares entries with branches")
    report = Compacted(dry_run, counted_by=counter.how)
    border, after = _border(place, session_id, keep_last), 0
    while True:
        batch = _older(engine, session_id, after, border)
        if sum(not one.is_summary for one in batch) < (1 if after or report.summaries else 2):
            return report
        plain = [one for one in batch if not (one.is_summary and report.summaries)]
        report.entries += len(plain)
        report.bytes_before += sum(one.stored.size for one in plain)
        report.tokens_before += sum(counter.of(one.shown) for one in plain)
        if dry_run:
            after = batch[-1].stored.number
            continue
        written = _written(engine, session_id, batch)
        parts = list(cold.packed(one.stored for one in batch))
        engine.in_turn(session_id, lambda turn: _replace(engine, turn, batch, parts, written, report))  # noqa: B023
        report.summaries.append(batch[-1].stored.number)
        report.by = written["metadata"]["summary"]["by"]
        report.tokens_after, report.bytes_after = counter.of(written), len(serial.encode(written))


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry as its row has it, and as it is shown."""

    stored: Stored
    shown: dict[str, Any]

    @property
    def is_summary(self) -> bool:
        """Whether a compaction wrote it."""
        return summed_up(self.shown) is not None


def _shown(engine: Engine, entries: Sequence[Stored]) -> list[dict[str, Any]]:
    bodies = [one.body if one.body is not None else engine.blobs.get(one.blob or "") for one in entries]
    return all_shown([Kept(one.number, one.at, body) for one, body in zip(entries, bodies, strict=True)])


def summed_up(entry: dict[str, Any]) -> dict[str, Any] | None:
    """What the summary of a compaction says of what it sums up; None of any other entry."""
    found = (entry.get("metadata") or {}).get("summary")
    return found if isinstance(found, dict) and found.get("last") == entry["number"] else None


def _border(place: SqlPlace, session_id: str, keep_last: int) -> int:
    """The number of the first entry that stays: a result of a tool does not stay without its call."""
    kept = place.load(session_id, limit=keep_last, newest=True) if keep_last else []
    if not kept:
        newest = place.load(session_id, limit=1, newest=True)
        return newest[0].number + 1 if newest else 1
    first = kept[0]
    while serial.decode(first.body).get("role") == "tool":
        before = place.load(session_id, 1, first.number - 1, limit=1, newest=True)
        if not before:
            break
        first = before[0]
    return first.number


def _older(engine: Engine, session_id: str, after: int, border: int) -> list[_Entry]:
    """The first entries between two numbers that a compaction takes, at most so many as a pass sums up."""
    found: list[_Entry] = []
    while len(found) < _PASS:
        page = engine.database.read(lambda tx: thinning.stored(tx, session_id, after, border, _PAGE))  # noqa: B023
        if not page:
            break
        after = page[-1].number
        entries = (_Entry(one, entry) for one, entry in zip(page, _shown(engine, page), strict=True))
        found += [one for one in entries if not one.stored.mark or one.is_summary]
    return found[:_PASS]


def _written(engine: Engine, session_id: str, batch: list[_Entry]) -> dict[str, Any]:
    """The entry that sums up others. It is important: windows show it before what is not, and nothing prunes it."""
    summary = summarise([one.shown for one in batch], engine.settings.model)
    plain = [one for one in batch if not one.is_summary]
    about: dict[str, Any] = {"first": batch[0].stored.number, "last": batch[-1].stored.number, "entries": len(batch)}
    about |= {"by": summary.by, "messages": len(plain)}
    entry = {"role": "assistant", "content": summary.text, "metadata": {"important": True, "summary": about}}
    guard = engine.guard
    return guard.apply(entry, place_of(session_id)) if guard.active else entry


def _replace(
    engine: Engine,
    turn: Turn,
    batch: list[_Entry],
    parts: list[cold.Part],
    written: dict[str, Any],
    report: Compacted,
) -> None:
    tx, session_id, last = turn.tx, turn.hot.id, batch[-1].stored
    _held(turn)
    numbers = [one.stored.number for one in batch]
    gone, _ = thinning.take_out(tx, session_id, numbers)
    if gone != numbers:
        raise HistoryConflict(f"the history of {session_id} was changed meanwhile; it is as it was")
    kept = sum(cold.add(tx, session_id, last.number, part) for part in parts)
    item = item_of(*_body_at(written, last.at), engine.settings.max_result_bytes)
    inline = engine.settings.inline_result_bytes
    new = thinning.as_stored(tx, engine.blobs, last.number, last.at, item.mark, item.body, inline)
    thinning.put_in(tx, session_id, [new])
    about = {"summary": last.number, "entries": len(batch), "by": written["metadata"]["summary"]["by"]}
    turn.event("history.compacted", component="history", data=about)
    tx.after_commit.append(lambda: _add(report, kept))


def _add(report: Compacted, kept: int) -> None:
    report.cold_bytes += kept


def _body_at(entry: dict[str, Any], at: float) -> tuple[dict[str, Any], float]:
    return body_of(entry)[0], at


def _held(turn: Turn) -> None:
    """Keep others from appending; refuse an archived session."""
    if turn.hot.status == "archived":
        raise _is_archived(turn.hot.id)
    rows.hold(turn.tx, turn.hot.id)


def _is_archived(session_id: str) -> SessionError:
    return SessionError(f"session {session_id} is archived and cannot be changed; allowed: nothing")


def uncompact(engine: Engine, session_id: str) -> int:
    """Put back all that was put away, in the place of the summaries; gives how many entries that is.

    Raises HistoryError, and puts nothing of a compaction back, where retention has deleted some of it.
    """
    of_database(engine, session_id)
    total = 0
    while (compaction := engine.database.read(lambda tx: cold.newest(tx, session_id))) is not None:
        total += engine.in_turn(session_id, lambda turn: _put_back(engine, turn, compaction))
    return total


def _put_back(engine: Engine, turn: Turn, compaction: int) -> int:
    tx, session_id = turn.tx, turn.hot.id
    _held(turn)
    parts = cold.of_compaction(tx, session_id, compaction)
    entries = [one for part in parts for one in part]
    summary = thinning.stored(tx, session_id, compaction - 1, compaction + 1, 1)
    expected = _expected(engine, summary)
    if len(entries) != expected:
        raise HistoryError(
            f"the messages that entry {compaction} of {session_id} sums up cannot be put back: "
            f"{len(entries)} of {expected} are there; retention has deleted the others"
        )
    _, freed = thinning.take_out(tx, session_id, [compaction])
    thinning.put_in(tx, session_id, entries)
    cold.drop(tx, session_id, compaction)
    results.let_go(tx, engine.database, engine.blobs, freed)
    turn.event("history.uncompacted", component="history", data={"summary": compaction, "entries": len(entries)})
    return sum(summed_up(entry) is None for entry in _shown(engine, entries))


def _expected(engine: Engine, summary: list[Stored]) -> int:
    about = summed_up(_shown(engine, summary)[0]) if summary else None
    return int(about["entries"]) if about else 0


def put_away(engine: Engine, session_id: str) -> Iterator[dict[str, Any]]:
    """The entries that compactions have put away, in order, without the summaries among them."""
    of_database(engine, session_id)
    place = (0, 0)
    while parts := engine.database.read(lambda tx: cold.load(tx, session_id, place)):  # noqa: B023
        for at, entries in parts:
            place = at
            yield from (entry for entry in _shown(engine, entries) if summed_up(entry) is None)
