"""Tables of keyed state: the values, and every change that was made to one."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, Table, Text, text

from ..tables import metadata

#: Text that is ordered by code points on every database.
_ordered = Text().with_variant(Text(collation="C"), "postgresql")

state_values = Table(
    "state_values",
    metadata,
    Column("scope", _ordered, primary_key=True),
    Column("key", _ordered, primary_key=True),
    Column("version", BigInteger, nullable=False),  # the number of the event that wrote it
    Column("body", Text),  # JSON, or
    Column("packed", LargeBinary),  # bytes that are not text, as sealed ones, or
    Column("blob", Text),  # the hash of a blob that holds it
    Column("size", BigInteger, nullable=False),  # bytes
    Column("meta", Text, nullable=False, server_default=""),
    Column("expires_at", Double),
    Column("updated_at", Double, nullable=False),
    Index(
        "state_values_blobs", "blob", sqlite_where=text("blob IS NOT NULL"), postgresql_where=text("blob IS NOT NULL")
    ),
    Index(
        "state_values_passing",
        "expires_at",
        sqlite_where=text("expires_at IS NOT NULL"),
        postgresql_where=text("expires_at IS NOT NULL"),
    ),
)

#: Append-only. Small values are kept as text, of others only {"bytes", "sha256"} or {"bytes", "sealed"}.
state_events = Table(
    "state_events",
    metadata,
    Column("version", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False, server_default=""),  # empty: all keys of the scope
    Column("operation", Text, nullable=False),  # set, update, delete, clear ...
    Column("old", Text),
    Column("new", Text),
    Column("correlation_id", Text),
    Column("session_id", Text),
    Column("step", Text),
    # in the first event of a transaction: its random name, to tell later whether its COMMIT went in
    Column("turn", BigInteger),
    Index(
        "state_events_by_session",
        "session_id",
        "version",
        sqlite_where=text("session_id IS NOT NULL"),
        postgresql_where=text("session_id IS NOT NULL"),
    ),
    Index(
        "state_events_by_correlation",
        "correlation_id",
        "version",
        sqlite_where=text("correlation_id IS NOT NULL"),
        postgresql_where=text("correlation_id IS NOT NULL"),
    ),
)
