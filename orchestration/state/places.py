"""Where state lives: the backend with copies at hand, and beside it the hot layer for values that may be lost."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from ...errors import CeleriacError, StorageError
from ...storage.database import Transaction
from ...storage.session_state import Value
from ...storage.states.copies import Copies
from ...storage.states.protocol import Backend, Changing, Entry, Origin, StateConflict, StateError, Write
from ...storage.states.sql import SqlBackend

logger = logging.getLogger("celeriac.state")
T = TypeVar("T")

#: A change is tried for so long, in seconds, before it gives up on a key that others keep changing.
PATIENCE_SECONDS: Final = 30.0
_LONGEST_PAUSE: Final = 0.05
#: Where the hot layer does not answer, it is not asked for so long, in seconds.
_REST_SECONDS: Final = 2.0

#: What becomes of the present entry.
Edit = Callable[[Entry | None], Write]


class Places:
    """One backend, and the hot layer for ephemeral values (None: the backend keeps them, with a time to live).

    A key is looked for in the backend first. A value in the hot layer may always be lost: where that does not answer
    to a look, there is none.
    """

    def __init__(self, backend: Backend, hot: Backend | None, copies: int) -> None:
        self.backend = backend
        self._hot = hot
        # Where only this process writes, the backend itself is as near as a copy.
        self._copies = Copies(backend, copies) if backend.capabilities.shared else None
        self._hot_rests_until = 0.0

    # -- reading -----------------------------------------------------------------------------------------------------

    def entry(self, name: str, key: str, consistent: bool = False) -> Entry | None:
        """The entry of a key; up to 100 ms old unless it has to be `consistent`."""
        if self._copies is not None and not consistent:
            known = self._copies.find(name, key)
            entry = known[0] if known is not None else self._copies.read(name, (key,)).get(key)
        else:
            entry = self._read(name, (key,)).get(key)
        if entry is None and self._hot is not None:
            return self._hot_entries(name, (key,)).get(key)
        return entry

    def entries(self, name: str, keys: Sequence[str]) -> dict[str, Entry]:
        """The present entries of those of the keys that exist, as of one moment."""
        found = self._read(name, keys)
        return found | self._hot_entries(name, [key for key in keys if key not in found])

    def keys(self, name: str, prefix: str, after: str, limit: int | None) -> list[str]:
        """As `Backend.keys`, over both."""
        found = self.backend.keys(name, prefix, after, limit)
        hot, more = self._hot, list[str]()
        if hot is not None:
            more = self._if_hot_answers(lambda: hot.keys(name, prefix, after, limit), more)
        return sorted({*found, *more})[:limit] if more else found

    def _read(self, name: str, keys: Sequence[str]) -> dict[str, Entry]:
        return self._copies.read(name, keys) if self._copies is not None else self.backend.get(name, keys)

    def _hot_entries(self, name: str, keys: Sequence[str]) -> dict[str, Entry]:
        hot, nothing = self._hot, dict[str, Entry]()
        return self._if_hot_answers(lambda: hot.get(name, keys), nothing) if hot is not None and keys else nothing

    def _if_hot_answers(self, ask: Callable[[], T], otherwise: T) -> T:
        if time.monotonic() < self._hot_rests_until:
            return otherwise
        try:
            return ask()
        except StorageError as fault:
            logger.warning("ephemeral state is out of reach: %s", fault)
            self._hot_rests_until = time.monotonic() + _REST_SECONDS
            return otherwise

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, name: str, writes: Sequence[Write], ephemeral: bool, origin: Origin | None) -> list[int]:
        """As `Backend.put`. Ephemeral values go to the hot layer, and are not hidden behind others of their keys."""
        if not ephemeral or self._hot is None:
            return self._put(name, writes, origin)
        versions = self._hot.put(name, writes)
        there = [write.key for write in writes if self._is_in_backend(name, write.key)]
        if there:
            self._put(name, [Write(key, None) for key in there], origin)
        return versions

    def _is_in_backend(self, name: str, key: str) -> bool:
        known = self._copies.find(name, key) if self._copies is not None else None
        return (known[0] if known is not None else self._read(name, (key,)).get(key)) is not None

    def _put(self, name: str, writes: Sequence[Write], origin: Origin | None) -> list[int]:
        copies = self._copies
        if copies is None:
            return self.backend.put(name, writes, origin)
        mark = copies.mark()
        try:
            versions = self.backend.put(name, writes, origin)
        except CeleriacError:  # others were quicker, or the outcome is unknown
            copies.forget([(name, write.key) for write in writes])
            raise
        for write, version in zip(writes, versions, strict=True):
            copies.written(name, write.key, kept(write, version), version, mark)
        return versions

    def change(self, name: str, key: str, edit: Edit, ephemeral: bool | None, origin: Origin) -> None:
        """Write what `edit` makes of the present entry; no other write is lost by it. `ephemeral` None: where the value
        is. Raises StateConflict, after 30 s, where others change the key again and again.
        """
        hot = self._hot
        if ephemeral is None and hot is not None:
            ephemeral = not self._is_in_backend(name, key) and key in self._hot_entries(name, (key,))
        if hot is not None and ephemeral:
            _try_on(hot, name, key, self._from_backend(name, key, edit), lambda w: self.put(name, w, True, origin))
            return
        edit = self._or_from_hot(name, key, edit)
        if not isinstance(self.backend, Changing):
            _try_on(self.backend, name, key, edit, lambda writes: self._put(name, writes, origin))
            return
        mark = self._copies.mark() if self._copies is not None else (0, 0.0)
        write, version = self.backend.change(name, key, edit, origin)
        if self._copies is not None:
            self._copies.written(name, key, kept(write, version), version, mark)

    # A value whose class changes is taken from where the class until now has it.

    def _from_backend(self, name: str, key: str, edit: Edit) -> Edit:
        return lambda entry: edit(self._read(name, (key,)).get(key) or entry)

    def _or_from_hot(self, name: str, key: str, edit: Edit) -> Edit:
        return lambda entry: edit(entry or self._hot_entries(name, (key,)).get(key))

    def delete(self, name: str, key: str, origin: Origin | None) -> bool:
        """Delete a key in both; whether it was there."""
        versions = self._put(name, [Write(key, None)], origin)
        if self._hot is not None:
            versions += self._hot.put(name, [Write(key, None)])
        return any(versions)

    def clear(self, name: str, origin: Origin | None) -> int:
        """Delete all keys of a scope in both; gives how many there were."""
        count = self.backend.clear(name, origin)
        if self._copies is not None:
            self._copies.forget_scope(name)
        return count + (self._hot.clear(name) if self._hot is not None else 0)

    # -- with the session's database -----------------------------------------------------------------------------------

    def write_in(self, tx: Transaction, name: str, key: str, edits: Sequence[Write | Edit], origin: Origin) -> None:
        """Make changes of one key in an open transaction of the sessions' database, one after the other, as one write.

        Raises StateConflict if a version is not the expected one; then the transaction must not be committed.
        """
        backend = self.backend
        if not isinstance(backend, SqlBackend) or not backend.capabilities.with_steps:
            raise StateError("this state does not live in the database of the sessions: it takes no part in steps")
        entry = backend.locked(tx, name, key)
        write, expected = Write(key, None), None
        for number, edit in enumerate(edits):
            write = edit if isinstance(edit, Write) else edit(entry)
            expected = write.expected if number == 0 else expected
            entry = kept(write, entry.version if entry is not None else 0)
        backend.put_in(tx, name, [replace(write, expected=expected)], origin)
        copies = self._copies
        if copies is not None:
            tx.after_commit.append(lambda: copies.forget([(name, key)]))

    def clear_with(self, tx: Transaction, name: str, origin: Origin) -> None:
        """Delete all keys of a scope if an open transaction of the sessions' database is committed: in it, where values
        lie in that database, else after it.
        """
        backend = self.backend
        if isinstance(backend, SqlBackend) and backend.capabilities.with_steps:
            backend.clear_in(tx, name, origin)

        def clear_rest() -> None:
            self.clear(name, origin)

        tx.after_commit.append(clear_rest)

    def put_back(
        self,
        tx: Transaction,
        name: str,
        values: Mapping[str, Value],
        origin: Origin,
        bind: Callable[[str, Value], Callable[[int], bytes] | None],
    ) -> int:
        """Put what a checkpoint kept in the place of all that a scope has, in an open transaction of the sessions'
        database; gives how many keys that changes. Where values lie elsewhere, checkpoints keep none: they stay.
        """
        backend = self.backend
        if not isinstance(backend, SqlBackend) or not backend.capabilities.with_steps:
            return 0
        count = backend.replace_in(tx, name, values, origin, bind)
        copies = self._copies
        if copies is not None:
            tx.after_commit.append(lambda: copies.forget_scope(name))
        return count

    def close(self) -> None:
        """Close what is open in both. A use after that opens it again."""
        if self._copies is not None:
            self._copies.close()
        self.backend.close()
        if self._hot is not None:
            self._hot.close()


def kept(write: Write, version: int) -> Entry | None:
    """The entry that a write leaves; None for a deletion."""
    return None if write.body is None else Entry(write.body, version, write.meta, write.ttl is not None)


def _try_on(place: Backend, name: str, key: str, edit: Edit, put: Callable[[list[Write]], list[int]]) -> None:
    """Write what `edit` makes of the present entry; again if another one was quicker."""
    until, pause = time.monotonic() + PATIENCE_SECONDS, 0.0005
    while True:
        entry = place.get(name, (key,)).get(key)
        write = replace(edit(entry), expected=entry.version if entry is not None else 0)
        try:
            put([write])
            return
        except StateConflict:
            if time.monotonic() > until:
                raise
        time.sleep(random.uniform(0, pause))
        pause = min(pause * 2, _LONGEST_PAUSE)
