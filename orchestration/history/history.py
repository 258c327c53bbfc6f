"""The history of a session: what was said in it, in order."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TextIO

from ...errors import SessionError, SessionNotFound
from ...storage import serial, sessions, trees
from ...storage.database import Transaction
from ...storage.histories import thinning
from ...storage.histories.protocol import HistoryError, Item, Place
from ...storage.histories.sql import SqlPlace
from .. import quotas
from ..engine import Engine
from ..guard.access import Right, needs
from ..guard.doors import place_of
from ..turn import Turn
from .compaction import Compacted, compact, put_away, summed_up, uncompact
from .entries import IMPORTANT, all_shown, body_of, item_of, whole
from .lines import BadLine, Lines, check, entries_of
from .pages import pages
from .reading import reads_of
from .summaries import Summary, summarise
from .tokens import tokens_of
from .windows import Limits, Window, window

#: The document of a session that says up to which entry windows leave out what is not important.
_PRUNED: Final = "history"


class History:
    """What was said in a session: JSON objects (see `entries`), numbered 1, 2, 3 ... in the order in which they were
    appended. Each append is whole or not there, and durable where the place is; none waits for the session's steps.
    """

    def __init__(self, engine: Engine, session_id: str, require: Callable[[Right], None]) -> None:
        self._engine = engine
        self._require = require  # raises AccessDenied, as the session's handle does
        self._id = session_id
        self._reads = reads_of(engine)

    def __repr__(self) -> str:
        return f"<History of {self._id}>"

    @property
    def _place(self) -> Place:
        return self._engine.trees.place(self._id)

    # -- writing -----------------------------------------------------------------------------------------------------

    @needs("write")
    def append(self, entry: Mapping[str, Any]) -> int:
        """Append an entry; gives its number.

        Raises HistoryError for what is no entry, NotSerializable, TooLarge, QuotaExceeded, and SessionError where the
        session is archived.
        """
        return self._append([self._item(entry)])[0]

    @needs("write")
    def add(self, role: str, content: Any = None, **more: Any) -> int:
        """Append a message: `add("user", "Hello")`, further fields by name; gives its number. Raises as `append`."""
        return self.append({"role": role, "content": content, **more})

    @needs("write")
    def extend(self, entries: Iterable[Mapping[str, Any]]) -> int:
        """Append entries next to each other, all of them or none; gives how many. Raises as `append`."""
        if not isinstance(entries, Iterable):
            raise HistoryError(f"entries are {entries!r:.100}; allowed: a list of objects")
        items = [self._item(entry) for entry in entries]
        self._append(items)
        return len(items)

    @needs("write")
    def pour(self, source: Callable[[], Iterator[Mapping[str, Any]]]) -> int:
        """As `extend`, for more entries than fit into memory: `source()` begins again from the start, and may be asked
        to. In the database this is one transaction, so others who write wait meanwhile (SQLite) or not (PostgreSQL).
        """
        items = _Poured(lambda: map(self._item, source()))
        first, last = self._append(items)
        return last - first + 1

    def _item(self, entry: Mapping[str, Any]) -> Item:
        body, at = body_of(entry)
        guard = self._engine.guard
        if guard.active:
            body = guard.apply(body, place_of(self._id))
        return item_of(body, at, self._engine.settings.max_result_bytes)

    def _append(self, items: Iterable[Item]) -> tuple[int, int]:
        own = self._engine.conversations
        if isinstance(own, SqlPlace):
            line = self._engine.trees.line(self._id)
            first, last = own.append(self._id, items, quotas.admitting(self._engine, self._id))
            offset = line[-1].offset if line else 0
            return first + offset, last + offset
        self._check_open()
        quotas.count_elsewhere(self._engine, self._id, items)
        return self._place.append(self._id, items)

    def _check_open(self) -> None:
        found = self._engine.database.read(lambda tx: sessions.status(tx, self._id))
        if found is None:
            raise SessionNotFound(f"no session {self._id!r}")
        if found[0] == "archived":
            raise SessionError(f"session {self._id} is archived and cannot be changed; allowed: nothing")

    @needs("admin")
    def clear(self) -> int:
        """Delete all entries, which is an event of the session; gives how many there were. Numbers begin at 1 again.

        Of a branch, those go that are its own. Raises HistoryError where branches share some.
        """
        own = self._engine.conversations
        rows = own if isinstance(own, SqlPlace) else None
        gone = 0 if rows else own.count(self._id)
        line = self._engine.trees.line(self._id)

        def work(turn: Turn) -> None:
            nonlocal gone
            if turn.hot.status == "archived":
                raise SessionError(f"session {self._id} is archived and cannot be changed; allowed: nothing")
            if trees.shared(turn.tx, self._id) > (line[-1].offset if line else 0):
                raise HistoryError(
                    f"entries of session {self._id} are shared by branches, and stay while there are any"
                )
            if rows:
                gone = rows.delete_with(turn.tx, self._id)
            if self._pruned(turn.tx):
                sessions.put_document(turn.tx, self._id, _PRUNED, serial.encode({"pruned": 0}).decode())
            turn.event("history.cleared", component="history", data={"entries": gone})

        self._engine.in_turn(self._id, work)
        return gone if rows else own.delete(self._id)

    # -- reading -----------------------------------------------------------------------------------------------------

    def __call__(self, last: int | None = None, *, cold: bool = False) -> list[dict[str, Any]]:
        """The last so many entries in order, or all of them. `cold`: what `compact` has put away in the place of its
        summaries.
        """
        if cold:
            entries = list(self.whole())
            return entries if last is None else entries[max(len(entries) - last, 0) :]
        return list(self.all()) if last is None else self.last(last)

    @needs("read")
    def last(self, n: int) -> list[dict[str, Any]]:
        """The last `n` entries, in order."""
        n = whole("entries to be read", n)
        if isinstance(self._place, SqlPlace):
            return self._shown(self._place.newest(self._id, n))
        return self._shown(self._place.load(self._id, limit=n, newest=True))

    @needs("read")
    def range(self, first: int, last: int | None = None) -> list[dict[str, Any]]:
        """The entries with the numbers `first` to `last` (both are in; None: to the end)."""
        first = whole("the first number of a range", first)
        last = None if last is None else whole("the last number of a range", last)
        return self._shown(self._place.load(self._id, first, last))

    @needs("read")
    def all(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """Entries in order, read page by page; those with numbers over `after`."""
        after = whole("after", after)
        for kept in pages(self._place, self._id, after):
            self._require("read")  # it may have been taken back since the last page
            yield from self._shown(kept)

    @needs("read")
    def cold(self) -> Iterator[dict[str, Any]]:
        """The entries that `compact` has put away, in order. Raises HistoryError outside of the database."""
        for entry in put_away(self._engine, self._id):
            self._require("read")
            yield entry

    def whole(self) -> Iterator[dict[str, Any]]:
        """All entries in order, those that were put away in the place of the summaries."""
        if not self._has_gaps():
            return self.all()
        hot = (entry for entry in self.all() if summed_up(entry) is None)
        return heapq.merge(self.cold(), hot, key=itemgetter("number"))

    @needs("read")
    def count(self) -> int:
        """How many entries there are."""
        return self._place.count(self._id)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.all()

    def _shown(self, kept: Sequence[tuple[int, float, Any]]) -> list[dict[str, Any]]:
        if self._reads is not None:
            self._reads.note(self._id, kept)
        return all_shown(kept)

    # -- as JSON lines -----------------------------------------------------------------------------------------------

    @needs("read")
    def export_lines(self, stream: TextIO) -> int:
        """Write all entries to a stream as JSON lines in ASCII, also those that were put away; gives how many."""
        if not hasattr(stream, "write"):
            raise HistoryError(f"{stream!r:.100} is nothing to write to; allowed: an open text file")
        count = 0
        for entry in self.whole():
            stream.write(json.dumps(entry) + "\n")
            count += 1
        return count

    @needs("write")
    def import_lines(self, file: Path | str, skip_bad: bool = False) -> tuple[int, list[BadLine]]:
        """Append the entries of a file of JSON lines, all of them or none; gives how many, and the lines that are none.

        They are what `export_lines` writes, or any objects that are entries, as `{"role": ..., "content": ...}`. The
        file is read twice, in constant memory. Raises BadLines, which names the lines, unless they are to be skipped.
        """
        if not isinstance(file, Path | str):
            raise HistoryError(f"{file!r:.100} is no file of JSON lines; allowed: a path")
        lines = Lines(Path(file), self._engine.settings.max_result_bytes)
        count, bad = check(lines, self._item, skip_bad)
        return self.pour(lambda: entries_of(lines, count, {one.line for one in bad})), bad

    # -- what a model is shown ---------------------------------------------------------------------------------------

    @needs("read")
    def window(
        self,
        max_entries: int | None = None,
        max_tokens: int | None = None,
        since: datetime | None = None,
        until: int | None = None,
    ) -> Window:
        """What a model would be shown, of all or of the entries up to number `until`: see `windows.window`. Tokens are
        counted for the model of the settings.
        """
        limits = Limits(max_entries, max_tokens, since, self._engine.database.read(self._pruned), until)
        return window(self._place, self._id, limits, tokens_of(self._engine.settings.model))

    def _pruned(self, tx: Transaction) -> int:
        text = sessions.document(tx, self._id, _PRUNED)
        return int(serial.decode(text)["pruned"]) if text else 0

    @needs("write")
    def prune(self, keep: int = 0) -> int:
        """Let windows leave out entries that are not important, but for the newest `keep`; gives how many more they
        leave out now. All of them stay in the history.
        """
        keep = whole("keep", keep)
        border = self._border(keep)

        def work(turn: Turn) -> tuple[int, int]:
            before = self._pruned(turn.tx)
            upto = max(before, border)
            if upto > before:
                sessions.put_document(turn.tx, self._id, _PRUNED, serial.encode({"pruned": upto}).decode())
                turn.event("history.pruned", component="history", data={"up_to": upto})
            return before, upto

        before, upto = self._engine.in_turn(self._id, work)
        kept = self._place.load(self._id, before + 1, upto, mark=IMPORTANT)
        return self._between(before, upto) - len(kept)

    def _has_gaps(self) -> bool:
        return isinstance(self._place, SqlPlace) and self._place.gaps(self._id) > 0

    def _border(self, keep: int) -> int:
        """The number of the last entry before the newest `keep`."""
        if not self._has_gaps():
            return max(self._place.count(self._id) - keep, 0)
        newest = self._place.load(self._id, limit=keep + 1, newest=True)
        return newest[0].number if len(newest) > keep else 0

    def _between(self, after: int, last: int) -> int:
        """How many entries there are with numbers over `after`, up to `last`."""
        if not self._has_gaps():
            return last - after
        return self._engine.database.read(lambda tx: thinning.there(tx, self._id, after, last))

    @needs("admin")
    def compact(self, keep_last: int = 50, *, dry_run: bool = False) -> Compacted:
        """Sum up all but the newest `keep_last` entries in one, and put them away; see `compaction.compact`."""
        return compact(self._engine, self._id, keep_last, dry_run)

    @needs("admin")
    def uncompact(self) -> int:
        """Put back all that `compact` has put away; gives how many entries that is. Raises HistoryError."""
        return uncompact(self._engine, self._id)

    @needs("read")
    def summarize(self, last_n: int | None = None) -> Summary:
        """A summary of the last `last_n` entries, or of all: by the model of the settings, else of the most telling
        sentences, word for word. It is not written anywhere. Raises HistoryError where the model does not answer.
        """
        return summarise(self(last_n), self._engine.settings.model)


class _Poured:
    """Items that can be gone through again, without being kept."""

    def __init__(self, source: Callable[[], Iterator[Item]]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Item]:
        return self._source()
