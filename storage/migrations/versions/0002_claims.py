"""Ready steps are found in the order in which they are claimed, and others by their number, however many there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_index("steps_ready", "steps")
    op.create_index(
        "steps_ready",
        "steps",
        ["session_id", sa.text("priority DESC"), "number"],
        sqlite_where=sa.text("status = 'ready'"),
        postgresql_where=sa.text("status = 'ready'"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("steps_by_name", "steps")
        op.create_index(
            "steps_by_name",
            "steps",
            ["session_id", "name"],
            unique=True,
            postgresql_where=sa.text("name IS NOT NULL"),
        )
