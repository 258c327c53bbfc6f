"""The tables of histories: what is said in sessions, in order; entries are never changed, but may go."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, SmallInteger, Table, Text, text

from ..tables import metadata

#: One row a conversation: who appends holds it, so that numbers are without a gap and in the order of the commits.
conversations = Table(
    "conversations",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("entries", BigInteger, nullable=False),  # also the number of the last one
    Column("updated_at", Double, nullable=False),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),  # of all entries, as JSON
    sqlite_with_rowid=False,
)

history = Table(
    "history",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("mark", SmallInteger, nullable=False, server_default=text("0")),  # 1: important; 2: a system prompt
    Column("body", Text),  # JSON, or
    Column("blob", Text),  # the hash of a blob that holds it
    Column("size", Integer, nullable=False),
    # in the first entry of a transaction: its random name, to tell later whether its COMMIT went in
    Column("turn", BigInteger),
    Index(
        "history_marked",
        "session_id",
        "mark",
        "number",
        sqlite_where=text("mark > 0"),
        postgresql_where=text("mark > 0"),
    ),
    Index("history_blobs", "blob", sqlite_where=text("blob IS NOT NULL"), postgresql_where=text("blob IS NOT NULL")),
)

#: Numbers that no entry has any more, because it was pruned or put away: none but where there is a row.
history_gaps = Table(
    "history_gaps",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("gone", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: Entries that were put away: see `cold`.
cold_history = Table(
    "cold_history",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("compaction", BigInteger, primary_key=True, autoincrement=False),  # the number of its summary
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes of the entries as they were
    Column("body", LargeBinary, nullable=False),  # zstd over msgpack: [[number, at, mark, body] ...]
    Column("blob", Text),  # of a single large entry: the blob that holds it
    Column("at", Double, nullable=False),
    Index(
        "cold_history_blobs", "blob", sqlite_where=text("blob IS NOT NULL"), postgresql_where=text("blob IS NOT NULL")
    ),
)

#: How often entries were read, by blocks of some numbers, and when last; where the setting asks for it.
history_reads = Table(
    "history_reads",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("reads", BigInteger, nullable=False),
    Column("read_at", Double, nullable=False),
    sqlite_with_rowid=False,
)
