"""Which keys archives need: those that their files are sealed with, and those of what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from ...errors import CeleriacError, KeyMissing
from ...storage.archives import tables as rows
from ...storage.archives.file import ArchiveFile, damaged, sealed_with
from ...storage.archives.store import ArchiveStore
from ...storage.keys.rewrapping import DAMAGED, keys_in
from ..backups.content import Kept
from ..engine import Engine
from .verifying import opened

#: What a field that a rule sealed begins with, in JSON.
_FIELD = b'{"$sealed":"'


def counted(engine: Engine) -> Counter[str]:
    """How many archives need each key; `(damaged)`: those of which that cannot be told."""
    store = ArchiveStore(engine.settings.data_dir / "archives")
    found: Counter[str] = Counter()
    for session_id in archived(engine):
        row = engine.database.read(partial(rows.get, session_id=session_id))
        if row is not None:
            found.update(needed(engine, store, row))
    return found


def archived(engine: Engine) -> Iterator[str]:
    """Ids of all archived sessions, in order; those that come or go meanwhile may be missed."""
    after = ""
    while ids := engine.database.read(partial(rows.following, after=after)):
        yield from ids
        after = ids[-1]


def needed(engine: Engine, store: ArchiveStore, row: rows.Row) -> set[str]:
    """The keys that an archive needs; none for one that is gone."""
    try:
        with opened(engine, store, row) as archive:
            return keys_of(archive, sealed_with(store.path(row.file)))
    except CeleriacError as fault:
        if engine.database.read(lambda tx: rows.get(tx, row.session_id)) != row:
            return set()  # it was restored or brought under another key while it was looked at
        known = sealed_with(store.path(row.file))
        return {known} if known is not None and isinstance(fault, KeyMissing) else {DAMAGED}


def keys_of(archive: ArchiveFile, outer: str | None) -> set[str]:
    """The keys of an open archive, whose file is sealed with `outer`. Raises ArchiveDamaged, KeyMissing."""
    if archive.manifest.key:
        return {archive.manifest.key}
    found = set() if outer is None else {outer}
    with damaged(archive.id):
        kept = Kept(archive, archive.manifest)
        for part in archive.manifest.parts:
            for some in kept.rows(part.name):
                found.update(keys_in_rows(some))
        found.update(key for _, key in kept.blobs() if key)
    return found


def keys_in_rows(some: list[Any]) -> set[str]:
    """The keys of what is sealed in rows; what is inside of it is not looked at."""
    found: set[str] = set()
    for row in some:
        for value in row:
            if isinstance(value, str | bytes):
                found.update(keys_in(value))
            if isinstance(value, bytes) and _FIELD in value:
                found.update(keys_in(value.decode("utf-8", "replace")))
    return found
