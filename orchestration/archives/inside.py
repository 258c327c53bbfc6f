"""Looking into an archive without restoring it: its rows in a database of their own, read as those of any session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ...storage.archives.file import damaged
from ...storage.archives.store import ArchiveStore
from ...storage.archives.tables import Row, get
from ...storage.backup.manifest import HISTORIES
from ...storage.blobs import BlobStore
from ...storage.histories.opening import open_place
from ...storage.histories.protocol import Place
from ..agents import Registry
from ..backups.content import Kept, Staged
from ..engine import Engine
from ..session import Session
from ..trees.lines import Part, Shared, Trees
from .restoring import Entries, staged
from .verifying import opened_now

#: What an engine over the rows of an archive needs not.
_WITHOUT = {"history_url": "", "state_url": "", "redis_url": "", "access": "off", "tenant": ""}


@contextlib.contextmanager
def look(engine: Engine, store: ArchiveStore, row: Row) -> Iterator[Session]:
    """The session as it was, to be read, for the length of the `with` block; of a branch also what it shares, from
    where that is. Raises ArchiveDamaged, KeyMissing.
    """
    with contextlib.ExitStack() as stack:
        inner = stack.enter_context(_engine_over(engine, store, row))
        line = engine.trees.line(row.session_id)
        if line:
            inner.trees = _Known(inner, _Joined(inner, line, engine, store, stack))
        yield Session(inner, row.session_id, owner="")


@contextlib.contextmanager
def _engine_over(engine: Engine, store: ArchiveStore, row: Row) -> Iterator[Engine]:
    """An engine over what is in an archive. Raises ArchiveDamaged, KeyMissing."""
    with opened_now(engine, store, row) as archive, damaged(archive.id):
        kept = Kept(archive, archive.manifest)
        with staged(store, row.session_id, kept) as content:
            inner = over(engine, content)
            inner.blobs = _Blobs(kept, inner)
            inner.conversations = open_place("", inner.database, inner.blobs, inner.settings.inline_result_bytes)
            part = archive.manifest.part(HISTORIES)
            if part is not None and part.rows:
                inner.conversations.append(row.session_id, Entries(kept))
            yield inner


class _Joined(Shared):
    """The history of a branch: its own entries out of its archive, and those that it shares from above it, wherever
    these are: they are opened where they are asked for.
    """

    def __init__(
        self, inner: Engine, line: Sequence[Part], engine: Engine, store: ArchiveStore, stack: contextlib.ExitStack
    ) -> None:
        super().__init__(inner.conversations, line, lambda _: False)
        self.line = tuple(line)
        self._engine = engine
        self._store = store
        self._stack = stack
        self._above: dict[str, Place] = {}

    def _of(self, part: Part) -> Place:
        if part.last is None:
            return self._place
        if part.session_id not in self._above:
            row = self._engine.database.read(lambda tx: get(tx, part.session_id))
            self._above[part.session_id] = (
                self._engine.conversations
                if row is None
                else self._stack.enter_context(_engine_over(self._engine, self._store, row)).conversations
            )
        return self._above[part.session_id]


class _Known(Trees):
    """What is known of the one branch that is looked into."""

    def __init__(self, inner: Engine, place: _Joined) -> None:
        super().__init__(inner)
        self._joined = place

    def place(self, session_id: str) -> Place:
        """Where the history of the branch is."""
        return self._joined

    def line(self, session_id: str) -> tuple[Part, ...]:
        """The parts of its history."""
        return self._joined.line


def over(engine: Engine, content: Staged) -> Engine:
    """An engine over the rows of an archive, with the keys of another one."""
    settings = engine.settings.model_copy(update={"data_dir": content.folder, **_WITHOUT})
    return Engine(settings, Registry(), content.database)


class _Blobs(BlobStore):
    """The blobs of an archive."""

    def __init__(self, kept: Kept, inner: Engine) -> None:
        super().__init__(inner.settings.data_dir / "blobs", codec=inner.database.codec)
        self._kept = kept
        self._keys = dict(kept.blobs())

    def get(self, name: str) -> bytes:
        if name not in self._keys:
            return super().get(name)
        with damaged(self._kept.manifest.id):
            return self.opened(name, self._kept.blob(name, self._keys[name]))
