"""What was put away, pruned and counted; sessions whose rest is still to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "history_gaps",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("gone", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cold_history",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("compaction", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("first", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("blob", sa.Text()),
        sa.Column("at", sa.Double(), nullable=False),
    )
    where = sa.text("blob IS NOT NULL")
    op.create_index("cold_history_blobs", "cold_history", ["blob"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "history_reads",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("block", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("reads", sa.BigInteger(), nullable=False),
        sa.Column("read_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "removals",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reclaimed",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("session_tags_by_session", "session_tags", ["session_id"])
