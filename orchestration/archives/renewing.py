"""Bringing archives under the active key: all that is in one, at whatever depth, and its file.

An archive is written anew into a file of another name, read back, and takes the place of the one before in one
transaction. So whenever a process is killed, the row of the session names a file that is whole; what it left is deleted
as what others leave is. An archive that is under the active key says so, and is passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, select, update

from ...errors import ArchiveDamaged, ArchiveError, CeleriacError, StorageError
from ...storage import sessions
from ...storage.archives import tables as rows
from ...storage.archives.file import ArchiveFile, damaged
from ...storage.archives.store import ArchiveStore
from ...storage.backup.manifest import HISTORIES, STATE, Manifest, Part
from ...storage.blobs import BlobStore
from ...storage.database import Query, Transaction
from ...storage.faults import point
from ...storage.histories.opening import open_place
from ...storage.keys.codec import Codec
from ...storage.keys.rewrapping import Tally, fields_rewrapped
from ...storage.keys.sealing import KeyRing
from ...storage.session_state import Value
from ...storage.states.tables import state_values
from ..backups.content import Kept, Staged
from ..backups.creating import part_of
from ..backups.source import STATE_COLUMNS
from ..engine import Engine
from ..state.covering import KeptState
from . import owned
from .inside import over
from .keyed import archived
from .making import file_of, folder
from .restoring import staged
from .settling import settle
from .verifying import opened, read_back
from .writing import Writer, row_parts, write

#: Brings all that an engine has under the active key of a ring.
Bring = Callable[[Engine, KeyRing], Tally]
Told = Callable[[Tally], None]

_v = state_values.c
_IN_BLOBS: Final = Query(
    select(_v.scope, _v.key, _v.version, _v.blob, _v.size, _v.meta, _v.expires_at)
    .where(_v.blob.is_not(None))
    .order_by(_v.scope, _v.key)
)
_PUT: Final = Query(
    update(state_values)
    .where(_v.scope == bindparam("owner"), _v.key == bindparam("name"))
    .values(blob=bindparam("file"), size=bindparam("length"), meta=bindparam("about"))
)


def renew_all(engine: Engine, keyring: KeyRing, bring: Bring, told: Told = lambda tally: None) -> Tally:
    """Bring all archives under the active key of a ring, one after the other, while work goes on.

    One that is damaged, or whose key is missing, stays as it is and is named in `refused`.
    """
    store, tally = folder(engine), Tally()
    for session_id in archived(engine):
        try:
            _renew(engine, store, session_id, keyring, bring, tally)
        except (CeleriacError, OSError) as fault:
            tally.refused.append(f"the archive of session {session_id} stays as it is: {fault}")
        told(tally)
    return tally


def _renew(engine: Engine, store: ArchiveStore, session_id: str, keyring: KeyRing, bring: Bring, tally: Tally) -> None:
    with store.holding(session_id):
        row, hot = engine.database.read(lambda tx: (rows.get(tx, session_id), sessions.look(tx, session_id)))
        if row is None or hot is None:
            return  # it was restored or deleted meanwhile
        with opened(engine, store, row) as archive, damaged(archive.id):
            if _is_done(archive.manifest, keyring, _is_whole(engine)):
                return
            if (found := read_back(archive)).problems:
                raise ArchiveDamaged(found.problems[0])
            settle(engine, store, session_id)  # what is left outside is known by the names that blobs have in this one
            with _only_one(engine, store, row):
                new = _written(engine, store, row, hot.tenant, archive, keyring, bring)
                point("before-archive-row")
                if engine.database.write(partial(_move, before=row, after=new)):
                    tally.renewed += 1
                point("after-archive-row")


def _is_whole(engine: Engine) -> bool:
    codec = engine.database.codec
    return codec is not None and codec.whole


def _is_done(manifest: Manifest, keyring: KeyRing, whole: bool) -> bool:
    return manifest.sealed and manifest.key == keyring.active and (manifest.whole or not whole)


def _move(tx: Transaction, before: rows.Row, after: rows.Row) -> bool:
    """Let the row name the other file; also True where the COMMIT that seemed to break went in."""
    if sessions.lock(tx, before.session_id) is None:
        return False
    if rows.move(tx, before, after):
        return True
    found = rows.get(tx, before.session_id)
    return found is not None and found.file == after.file


@contextlib.contextmanager
def _only_one(engine: Engine, store: ArchiveStore, row: rows.Row) -> Iterator[None]:
    """In the end, delete the files of a session's archive that its row does not name."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(StorageError):  # nobody can say which file is needed: all stay
            store.clean(row.session_id, file_of(engine, row.session_id))
        raise
    store.clean(row.session_id, file_of(engine, row.session_id))


def _written(
    engine: Engine,
    store: ArchiveStore,
    row: rows.Row,
    tenant: str,
    archive: ArchiveFile,
    keyring: KeyRing,
    bring: Bring,
) -> rows.Row:
    """Write what is in an archive under the active key; gives where it is."""
    kept = Kept(archive, archive.manifest)
    with staged(store, row.session_id, kept) as content:
        inner = _engine(engine, content, keyring)
        for name, key in kept.blobs():
            inner.blobs.put_stored(name, kept.blob(name, key))
        inner.database.write(partial(_state_in_blobs, state=KeptState(inner.state, keyring, inner.blobs)))
        found = bring(inner, keyring)
        if found.refused:
            raise ArchiveError(found.refused[0])
        point("archive-staged")

        def parts(writer: Writer) -> list[Part]:
            elsewhere = _elsewhere(kept, inner, keyring, writer)
            return [*row_parts(inner, row.session_id, tenant, writer), *elsewhere]

        return write(inner, store, row.session_id, row.status, parts, keyring.active, _is_whole(inner))[0]


def _engine(engine: Engine, content: Staged, keyring: KeyRing) -> Engine:
    """An engine over what is in an archive, with that ring: keys from a passphrase are not derived once more."""
    inner = over(engine, content)
    inner.keyring, inner.guard = keyring, engine.guard
    inner.database.codec = codec = Codec(keyring, _is_whole(engine))
    inner.blobs = BlobStore(inner.settings.data_dir / "blobs", codec=codec)
    inner.conversations = open_place("", inner.database, inner.blobs, inner.settings.inline_result_bytes)
    return inner


def _state_in_blobs(tx: Transaction, state: KeptState) -> None:
    """Keyed state in blobs keeps its versions: one that is given here could be given once more where it goes back."""
    for scope, key, version, blob, size, meta, expires_at in tx.rows(_IN_BLOBS):
        before = Value(version, None, blob, size, meta, expires_at)
        after = state.renewed(tx, scope, key, before)
        if after != before:
            tx.run(_PUT, owner=scope, name=key, file=after.blob, length=after.size, about=after.meta)


def _elsewhere(kept: Kept, inner: Engine, keyring: KeyRing, writer: Writer) -> list[Part]:
    """Put what the session had in other places than the database. Raises ArchiveError for what is not understood."""
    state = KeptState(inner.state, keyring, inner.blobs)
    place = f"an entry of the history of {kept.manifest.label}"

    def entries() -> Iterator[tuple[Any, ...]]:
        for found in kept.rows(HISTORIES):
            for number, at, body in found:
                yield number, at, fields_rewrapped(bytes(body).decode(), place, keyring).encode()

    def values() -> Iterator[tuple[Any, ...]]:
        for found in kept.rows(STATE):
            for scope, key, body, meta in found:
                yield scope, key, *state.elsewhere(scope, key, bytes(body), meta)

    parts = []
    for name, columns, renewed in (
        (HISTORIES, owned.HISTORY_COLUMNS, entries),
        (STATE, STATE_COLUMNS, values),
    ):
        if (there := kept.columns(name)) is not None:
            if there != columns:
                raise ArchiveError(f"{kept.manifest.id}: its part {name!r} has the columns {', '.join(there)}")
            parts.append(part_of(name, columns, renewed(), writer))
    return parts
