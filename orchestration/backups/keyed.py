"""Which keys backups need. A rotation does not rewrite them, and they share objects that were sealed at other times."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from ...errors import BackupNotFound, CeleriacError, KeyMissing
from ...storage.archives.file import ArchiveFile, sealed_with
from ...storage.archives.tables import Row
from ...storage.backup.manifest import ARCHIVES, BLOBS, Chunk, Part
from ...storage.backup.store import BackupStore
from ...storage.keys.rewrapping import DAMAGED
from ...storage.keys.sealing import is_sealed, key_of
from ..archives.keyed import keys_in_rows, keys_of
from ..engine import Engine
from . import archived
from .backups import folder_of, keyring_of
from .content import Kept
from .creating import blob_object

#: The table in which it is noted which archives there are.
_NOTED: Final = "archives"


def needed(engine: Engine) -> dict[str, list[str]]:
    """The ids of the backups that need each key of the engine's ring, the oldest first; `(damaged)`: those of which
    that cannot be told. What is inside of sealed texts is not looked at.

    Keys of a ring that backups have of their own (`backup_keys_file`) are not among them.
    """
    look = _Look(engine)
    found: dict[str, list[str]] = {}
    for backup_id in look.store.ids():
        with look.store.reading(), contextlib.suppress(BackupNotFound):  # it was deleted meanwhile
            for key in sorted(look.at(backup_id)):
                found.setdefault(key, []).append(backup_id)
    return found


class _Look:
    """Looks at one backup after the other, and at each object once."""

    def __init__(self, engine: Engine) -> None:
        folder = folder_of(engine.settings)
        self.store = BackupStore(folder, keyring_of(engine, folder))
        self._keyring = engine.keyring
        #: Whether the objects of backups are sealed with the same keys as what is in them.
        self._own = not engine.settings.backup_keys_file
        #: The keys of chunks, and of archives by the names of their files.
        self._chunks: dict[str, set[str]] = {}
        self._archives: dict[str, set[str]] = {}

    def at(self, backup_id: str) -> set[str]:
        """The keys that a backup needs. Raises BackupNotFound."""
        stored = self.store.stored(backup_id)
        found = {key_of(stored)} if self._own and is_sealed(stored) else set()
        try:
            kept = Kept(self.store, self.store.opened(stored, backup_id))
            for part in kept.manifest.parts:
                for chunk in part.chunks:
                    found |= self._chunk(kept, part, chunk)
            if kept.columns(ARCHIVES) == archived.COLUMNS:
                found |= self._in_archives(kept)
        except KeyMissing:
            return found or {DAMAGED}
        except CeleriacError:
            found.add(DAMAGED)
        return found

    def _chunk(self, kept: Kept, part: Part, chunk: Chunk) -> set[str]:
        if chunk.name not in self._chunks:
            found = self._outer(chunk.name)
            try:
                if part.name == BLOBS:
                    for name, key, _ in kept.chunk(part, chunk):
                        found |= self._outer(blob_object(kept.manifest.naming, name, key)) | ({key} if key else set())
                elif part.name != ARCHIVES:
                    found |= keys_in_rows(kept.chunk(part, chunk))
            except KeyMissing:
                found |= set() if self._own else {DAMAGED}  # which key that is has been said
            self._chunks[chunk.name] = found
        return self._chunks[chunk.name]

    def _outer(self, name: str) -> set[str]:
        key = self.store.key_of(name)
        return {key} if self._own and key is not None else set()

    def _in_archives(self, kept: Kept) -> set[str]:
        """The keys of the archives in a backup."""
        columns = kept.columns(_NOTED) or ()
        noted = [dict(zip(columns, row, strict=True)) for some in kept.rows(_NOTED) for row in some]
        known = {one["file"]: (one["session_id"], one["digest"]) for one in noted}
        found: set[str] = set()
        pieces = (row for some in kept.rows(ARCHIVES) for row in some)
        for file, rows in groupby(pieces, itemgetter(0)):
            if file not in self._archives:
                session_id, digest = known.get(file, ("", ""))
                self._archives[file] = self._archive(Row(session_id, file, 0, digest, False, "", 0.0), rows)
            found |= self._archives[file]
        return found

    def _archive(self, row: Row, pieces: Iterable[Any]) -> set[str]:
        with tempfile.TemporaryDirectory(prefix="celeriac-keys-") as folder:
            path = Path(folder) / "archive"
            with path.open("wb") as out:
                out.writelines(bytes(piece[2]) for piece in pieces)
            outer = sealed_with(path)
            try:
                with contextlib.closing(ArchiveFile(path, row, self._keyring)) as archive:
                    return keys_of(archive, outer)
            except KeyMissing:
                return {DAMAGED if outer is None else outer}
