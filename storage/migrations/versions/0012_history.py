"""What is said in sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "history",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("mark", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("body", sa.Text()),
        sa.Column("blob", sa.Text()),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("turn", sa.BigInteger()),
    )
    for name, columns, where in (
        ("history_marked", ["session_id", "mark", "number"], "mark > 0"),
        ("history_blobs", ["blob"], "blob IS NOT NULL"),
    ):
        op.create_index(name, "history", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
