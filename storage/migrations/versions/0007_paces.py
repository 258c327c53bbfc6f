"""How fast the steps of an agent may begin."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "agent_paces",
        sa.Column("agent", sa.Text(), primary_key=True),
        sa.Column("interval", sa.Double(), nullable=False),
        sa.Column("free_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "agent_turns",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("agent_turns_by_agent", "agent_turns", ["agent", "at"])
