"""Results shared by agent, request and permissions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    _results()
    _flights()
    _figures()


def _results() -> None:
    op.create_table(
        "cached_results",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("stored", sa.Integer(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("stale_until", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.Column("accesses", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("cached_by_agent", "cached_results", ["agent"])
    op.create_index("cached_by_content", "cached_results", ["content"])
    op.create_index("cached_by_end", "cached_results", ["stale_until", "stored"])
    op.create_index("cached_by_use", "cached_results", ["used_at"])
    op.create_table(
        "cached_tags",
        sa.Column("tag", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("cached_tags_by_key", "cached_tags", ["key"])
    op.create_table(
        "cache_cutoffs",
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), primary_key=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )


def _flights() -> None:
    op.create_table(
        "cache_flights",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("shared", sa.SmallInteger(), nullable=False, server_default=sa.text("1")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cache_waiters",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )


def _figures() -> None:
    op.create_table(
        "cache_counters",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cache_savings",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("cost", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
