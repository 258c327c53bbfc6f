"""Keyed state and its changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _values()
    _events()


def _values() -> None:
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "state_values",
        sa.Column("scope", ordered, primary_key=True),
        sa.Column("key", ordered, primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("packed", sa.LargeBinary()),
        sa.Column("blob", sa.Text()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("meta", sa.Text(), nullable=False, server_default=""),
        sa.Column("expires_at", sa.Double()),
        sa.Column("updated_at", sa.Double(), nullable=False),
    )
    _partial_index("state_values_blobs", "state_values", ["blob"])
    _partial_index("state_values_passing", "state_values", ["expires_at"])


def _events() -> None:
    op.create_table(
        "state_events",
        sa.Column(
            "version", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, server_default=""),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("old", sa.Text()),
        sa.Column("new", sa.Text()),
        sa.Column("correlation_id", sa.Text()),
        sa.Column("session_id", sa.Text()),
        sa.Column("step", sa.Text()),
        sa.Column("turn", sa.BigInteger()),
    )
    _partial_index("state_events_by_session", "state_events", ["session_id", "version"])
    _partial_index("state_events_by_correlation", "state_events", ["correlation_id", "version"])


def _partial_index(name: str, table: str, columns: list[str]) -> None:
    """An index over the rows whose first column is set."""
    only = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(name, table, columns, sqlite_where=only, postgresql_where=only)
