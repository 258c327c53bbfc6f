"""Checkpoints keep the keyed state of a session's own scope."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "checkpoint_blobs",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("blob", sa.Text(), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("checkpoint_blobs_by_blob", "checkpoint_blobs", ["blob"])
    op.create_table(
        "state_changes",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sqlite_with_rowid=False,
    )
    # What sessions keep already counts as changed; the next checkpoint of each is a full one.
    op.execute(
        "INSERT INTO state_changes (session_id, key) SELECT sessions.id, state_values.key"
        " FROM sessions JOIN state_values ON state_values.scope = 'session:' || sessions.id"
    )
    op.execute("UPDATE sessions SET checkpoint_base = 0")
