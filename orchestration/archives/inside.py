"""Looking into an archive without restoring it: its rows in a database of their own, read as those of any session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...storage.archives.file import damaged
from ...storage.archives.store import ArchiveStore
from ...storage.archives.tables import Row
from ...storage.backup.manifest import HISTORIES
from ...storage.blobs import BlobStore
from ...storage.histories.opening import open_place
from ..agents import Registry
from ..backups.content import Kept, Staged
from ..engine import Engine
from ..session import Session
from .restoring import Entries, staged
from .verifying import opened_now

#: What an engine over the rows of an archive needs not.
_WITHOUT = {"history_url": "", "state_url": "", "redis_url": "", "access": "off", "tenant": ""}


@contextlib.contextmanager
def look(engine: Engine, store: ArchiveStore, row: Row) -> Iterator[Session]:
    """The session as it was, to be read, for the length of the `with` block. Raises ArchiveDamaged, KeyMissing."""
    with opened_now(engine, store, row) as archive, damaged(archive.id):
        kept = Kept(archive, archive.manifest)
        with staged(store, row.session_id, kept) as content:
            inner = over(engine, content)
            inner.blobs = _Blobs(kept, inner)
            inner.conversations = open_place("", inner.database, inner.blobs, inner.settings.inline_result_bytes)
            part = archive.manifest.part(HISTORIES)
            if part is not None and part.rows:
                inner.conversations.append(row.session_id, Entries(kept))
            yield Session(inner, row.session_id, owner="")


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
        return self.opened(name, self._kept.blob(name, self._keys[name]))
