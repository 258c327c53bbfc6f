"""Whose sessions are: tenants, with idempotency keys of their own; grants, and what was refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    _sessions()
    op.create_table(
        "grants",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("principal", sa.Text(), primary_key=True),
        sa.Column("resource", sa.Text(), primary_key=True),
        sa.Column("level", sa.Text(), primary_key=True),
        sa.Column("wild", sa.SmallInteger(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "grants_wild",
        "grants",
        ["tenant"],
        sqlite_where=sa.text("wild = 1"),
        postgresql_where=sa.text("wild = 1"),
    )
    op.create_table(
        "grant_marks",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("mark", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "refusals",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("refusals_by_time", "refusals", ["tenant", "last_at"])


def _sessions() -> None:
    op.drop_index("sessions_by_status", "sessions")
    op.drop_index("sessions_by_user", "sessions")
    if op.get_bind().dialect.name == "sqlite":
        _anew()  # SQLite cannot drop what a column is declared to be
    else:
        op.drop_constraint("sessions_key_key", "sessions")
        op.add_column("sessions", sa.Column("tenant", sa.Text(), nullable=False, server_default=""))
    op.create_index("sessions_by_key", "sessions", ["tenant", "key"], unique=True)
    op.create_index("sessions_by_status", "sessions", ["tenant", "status", "id"])
    op.create_index("sessions_by_user", "sessions", ["tenant", "user", "id"])


def _anew() -> None:
    op.rename_table("sessions", "sessions_before")
    made = op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text()),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False, server_default=""),
        sa.Column("type", sa.Text(), nullable=False, server_default="research"),
        sa.Column("title", sa.Text(), nullable=False, server_default=""),
        sa.Column("agent", sa.Text(), nullable=False, server_default=""),
        sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("pinned", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("plan_name", sa.Text(), nullable=False, server_default=""),
        sa.Column("fingerprint", sa.Text(), nullable=False, server_default=""),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("total_steps", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("open_steps", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failed_steps", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("event_seq", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("checkpoint_seq", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("checkpoint_base", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("epoch_floor", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("completed_at", sa.Double()),
        sa.Column("tenant", sa.Text(), nullable=False, server_default=""),
        sqlite_with_rowid=False,
    )
    names = [column.name for column in made.columns if column.name != "tenant"]
    listed = ", ".join(f'"{name}"' for name in names)
    op.execute(f"INSERT INTO sessions ({listed}) SELECT {listed} FROM sessions_before")
    op.drop_table("sessions_before")
