"""Rows of archives: one for each session that is in one, beside the row of the session that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    SmallInteger,
    Table,
    Text,
    bindparam,
    insert,
    literal_column,
    select,
    text,
    update,
)

from ..database import Query, Transaction, now
from ..tables import metadata, sessions

archives = Table(
    "archives",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("file", Text, nullable=False),  # its name; the folder follows from it
    Column("bytes", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),  # of its manifest, which names all else in it by hashes
    Column("sealed", SmallInteger, nullable=False),
    Column("status", Text, nullable=False),  # of the session, before
    Column("archived_at", Double, nullable=False),
    # 1: what lies outside of the database's transaction (blobs, a history or state elsewhere) is gone, too
    Column("settled", SmallInteger, nullable=False, server_default=text("0")),
    Index("archives_unsettled", "session_id", sqlite_where=text("settled = 0"), postgresql_where=text("settled = 0")),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class Row:
    """Where a session's archive is. `status` is what the session had before."""

    session_id: str
    file: str
    bytes: int
    digest: str
    sealed: bool
    status: str
    archived_at: float
    settled: bool = False


_a = archives.c
#: Ids that are given at once.
_BATCH: Final = 200
_COLUMNS: Final = tuple(field.name for field in fields(Row))
_GET = Query(select(*(_a[name] for name in _COLUMNS)).where(_a.session_id == bindparam("session")))
_ADD = Query(
    insert(archives).values(
        {name: bindparam(name) for name in _COLUMNS if name != "archived_at"} | {"archived_at": now()}
    )
)
_SETTLE = Query(update(archives).where(_a.session_id == bindparam("session")).values(settled=bindparam("whether")))
_UNSETTLED = Query(select(_a.session_id).where(_a.settled == literal_column("0")).order_by(_a.session_id))
_FILES = Query(select(_a.file).where(_a.file >= bindparam("first")).order_by(_a.file))
_FOLLOWING = Query(
    select(_a.session_id).where(_a.session_id > bindparam("after")).order_by(_a.session_id).limit(_BATCH)
)
_MOVE = Query(
    update(archives)
    .where(_a.session_id == bindparam("session"), _a.file == bindparam("before"))
    .values({name: bindparam(f"new_{name}") for name in ("file", "bytes", "digest", "sealed")})
)
_STUB = Query(
    update(sessions)
    .where(sessions.c.id == bindparam("session"))
    .values(total_steps=0, open_steps=0, failed_steps=0, stored_bytes=0, stored_blobs=0)
)


def _row(found: Sequence[Any]) -> Row:
    session_id, file, size, digest, sealed, status, archived_at, settled = found
    return Row(session_id, file, size, digest, bool(sealed), status, archived_at, bool(settled))


def get(tx: Transaction, session_id: str) -> Row | None:
    """Where the archive of a session is; None for one that is in none."""
    found = tx.row(_GET, session=session_id)
    return None if found is None else _row(found)


def add(tx: Transaction, row: Row) -> None:
    """Note that a session is in an archive, as of now by the database's clock."""
    values = {name: getattr(row, name) for name in _COLUMNS if name != "archived_at"}
    tx.run(_ADD, **values | {"sealed": int(row.sealed), "settled": int(row.settled)})


def settle(tx: Transaction, session_id: str, settled: bool) -> None:
    """Note whether nothing of an archived session is left outside of its archive."""
    tx.run(_SETTLE, session=session_id, whether=int(settled))


def unsettled(tx: Transaction) -> list[str]:
    """Ids of archived sessions of which something may be left outside."""
    return [row[0] for row in tx.rows(_UNSETTLED)]


def files(tx: Transaction) -> set[str]:
    """The names of all files of archives."""
    return {row[0] for row in tx.rows(_FILES, first="")}


def following(tx: Transaction, after: str) -> list[str]:
    """Ids of some archived sessions, in order; none after the last."""
    return [row[0] for row in tx.rows(_FOLLOWING, after=after)]


def move(tx: Transaction, before: Row, after: Row) -> bool:
    """Note that an archive is in another file; False where it is not in the one that was known."""
    new = {"file": after.file, "bytes": after.bytes, "digest": after.digest, "sealed": int(after.sealed)}
    values = {f"new_{name}": value for name, value in new.items()}
    return bool(tx.run(_MOVE, session=before.session_id, before=before.file, **values))


def empty(tx: Transaction, session_id: str) -> None:
    """Let the row of a session say that nothing belongs to it any more."""
    tx.run(_STUB, session=session_id)
