"""How much was said in each session."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _anew()
    else:
        op.add_column("conversations", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.execute(
        "UPDATE conversations SET bytes ="
        " coalesce((SELECT sum(size) FROM history WHERE history.session_id = conversations.session_id), 0)"
    )


def _anew() -> None:
    """SQLite would put the new column behind the constraints, where a table that is made at once does not have it."""
    bind = op.get_bind()
    table = bind.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = 'conversations'")).scalar_one()
    op.rename_table("conversations", "conversations_before")
    bind.exec_driver_sql(table.replace("PRIMARY KEY", "bytes BIGINT DEFAULT 0 NOT NULL, \n\tPRIMARY KEY", 1))
    bind.exec_driver_sql(
        "INSERT INTO conversations (session_id, entries, updated_at)"
        " SELECT session_id, entries, updated_at FROM conversations_before"
    )
    op.drop_table("conversations_before")
