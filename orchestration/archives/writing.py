"""Writing the file of an archive: its pieces, its manifest; and reading it back."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, BinaryIO

from sqlalchemy import bindparam, select

from ...errors import StorageError
from ...storage import schema, tar
from ...storage.archives import tables as rows
from ...storage.archives.store import ArchiveStore
from ...storage.backup import tables, wrapping
from ...storage.backup.manifest import BLOBS, FORMAT, Manifest, Part, encode, hash_of, object_name
from ...storage.backup.transactions import alone
from ...storage.database import Query, Transaction
from ...storage.tables import blobs as blob_rows
from ..backups.creating import BLOB_COLUMNS, blob_object, part_of
from ..engine import Engine
from . import owned
from .verifying import opened, read_back

_BLOB = Query(select(*blob_rows.columns).where(blob_rows.c.hash == bindparam("wanted")))


@dataclass(slots=True)
class Writer:
    """Puts pieces into the spool of an archive, each once."""

    spool: BinaryIO
    archive: str
    naming: bytes
    engine: Engine
    put: set[str] = field(default_factory=set)

    def rows(self, data: bytes) -> str:
        """Put a chunk of rows; gives its name."""
        name = object_name("rows", data, self.naming)
        self._add(name, data, "zstd")
        return name

    def blobs(self, names: Iterable[str]) -> Iterator[tuple[str, str, int]]:
        """Put blobs as they lie there; gives name, the id of the key that it is sealed with, and bytes of each."""
        store = self.engine.blobs
        for name in names:
            key = store.key_of(name) or ""
            self._add(blob_object(self.naming, name, key), store.stored(name), "none")
            yield name, key, store.size(name)

    def _add(self, name: str, data: bytes, compression: str) -> None:
        if name not in self.put:
            self.put.add(name)
            stored = wrapping.wrap(data, compression, f"object {name}", self.engine.keyring)
            tar.write(self.spool, name, len(stored), [stored])


def write(
    engine: Engine,
    store: ArchiveStore,
    session_id: str,
    status: str,
    parts_of: Callable[[Writer], list[Part]],
    key: str = "",
    whole: bool = False,
) -> tuple[rows.Row, Manifest]:
    """Write an archive of what `parts_of` puts, and read it back; `status` is what the session had before. Only while
    it is held.
    """
    file = store.new(session_id)
    sealed = engine.keyring is not None
    naming = secrets.token_bytes(32) if sealed else b""
    with contextlib.closing(store.spool(session_id)) as spool:
        parts = parts_of(Writer(spool, file, naming, engine))
        manifest = Manifest(
            format=FORMAT,
            id=file,
            number=0,
            kind="archive",
            previous=None,
            previous_hash=None,
            created_at=time.time(),
            label=session_id,
            celeriac=version("celeriac"),
            revision=schema.HEAD,
            database=engine.database.dialect.name,
            compression="zstd",
            sealed=sealed,
            naming=naming,
            parts=tuple(parts),
            written=spool.tell(),
            key=key,
            whole=whole,
        )
        stored = wrapping.wrap(encode(manifest), "zstd", f"manifest {file}", engine.keyring)
        size = store.publish(file, stored, spool)
    row = rows.Row(session_id, file, size, hash_of(stored), sealed, status, 0.0)
    with opened(engine, store, row) as archive:
        if (found := read_back(archive)).problems:
            raise StorageError(f"the archive of session {session_id} cannot be read back: {found.problems[0]}")
    return row, manifest


def row_parts(engine: Engine, session_id: str, tenant: str, writer: Writer) -> list[Part]:
    """Put the rows of a session, in one snapshot, and the blobs that they refer to. Raises BlobNotFound for one that is
    gone.
    """
    database, of = engine.database, owned.choice(session_id, tenant)
    parts: list[Part] = []
    needed: set[str] = set()
    with alone(database) as connection:
        for table, chosen in owned.kept_tables(of):
            with contextlib.closing(tables.stream(connection, database.dialect, table, chosen)) as found:
                part = part_of(str(table.name), tables.columns(table), _noting(table, found, needed), writer)
            if part.rows:
                parts.append(part)
        tx = Transaction(connection.cursor(), database.dialect, database.codec)
        noted = [row for name in sorted(needed) for row in tx.rows(_BLOB, wanted=name)]
        parts.append(part_of("blobs", tables.columns(blob_rows), noted, writer))
    parts.append(part_of(BLOBS, BLOB_COLUMNS, writer.blobs(sorted(needed)), writer))
    return parts


def _noting(table: Any, found: Iterable[Any], needed: set[str]) -> Iterator[Any]:
    """The rows, noting which blobs they refer to."""
    place = tables.columns(table).index("blob") if "blob" in table.c else None
    for row in found:
        if place is not None and row[place] is not None:
            needed.add(row[place])
        yield row
