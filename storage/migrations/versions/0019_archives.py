"""Sessions in archives, and what was erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("sealed", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("archived_at", sa.Double(), nullable=False),
        sa.Column("settled", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sqlite_with_rowid=False,
    )
    unsettled = sa.text("settled = 0")
    op.create_index(
        "archives_unsettled", "archives", ["session_id"], sqlite_where=unsettled, postgresql_where=unsettled
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_index("erasures_by_tenant", "erasures", ["tenant", "id"])
