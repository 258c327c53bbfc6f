"""The first schema.

A revision is never changed once it was released: it says what was done then, whatever `storage.tables` says now.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _sessions()
    _steps()
    _outcomes()
    _records()
    _housekeeping()
    _search()


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), unique=True),
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
        sqlite_with_rowid=False,
    )
    op.create_index("sessions_by_status", "sessions", ["status", "id"])
    op.create_index("sessions_by_user", "sessions", ["user", "id"])
    op.create_table(
        "session_documents",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "session_tags",
        sa.Column("tag", sa.Text(), primary_key=True),
        sa.Column("session_id", sa.Text(), primary_key=True),
        sqlite_with_rowid=False,
    )


def _steps() -> None:
    op.create_table(
        "steps",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False, server_default=""),
        sa.Column("phase", sa.Text(), nullable=False, server_default=""),
        sa.Column("member_of", sa.Integer()),
        sa.Column("position", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("held", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("doomed", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("guarded", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("pending", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("retries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("backoff", sa.Double(), nullable=False, server_default=sa.text("1")),
        sa.Column("timeout", sa.Double()),
        sa.Column("epoch", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("claim", sa.Text()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("run_at", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("hinted_at", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("progress", sa.Double(), nullable=False, server_default=sa.text("0")),
        sa.Column("task", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("result_epoch", sa.Integer()),
        sa.Column("cached", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sqlite_with_rowid=False,
    )
    op.create_index("steps_by_name", "steps", ["session_id", "name"], unique=True)
    op.create_index(
        "steps_members",
        "steps",
        ["session_id", "member_of"],
        sqlite_where=sa.text("member_of IS NOT NULL"),
        postgresql_where=sa.text("member_of IS NOT NULL"),
    )
    op.create_index(
        "steps_ready",
        "steps",
        ["session_id", "queue"],
        sqlite_where=sa.text("status = 'ready'"),
        postgresql_where=sa.text("status = 'ready'"),
    )
    op.create_index(
        "steps_running",
        "steps",
        ["lease_until"],
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "step_inputs",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "edges",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("source", sa.Integer(), primary_key=True),
        sa.Column("target", sa.Integer(), primary_key=True),
        sqlite_with_rowid=False,
    )


def _outcomes() -> None:
    op.create_table(
        "results",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("body", sa.Text()),
        sa.Column("blob", sa.Text()),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double()),
        sa.Column("cost", sa.Double()),
    )
    op.create_index(
        "results_blobs",
        "results",
        ["blob"],
        sqlite_where=sa.text("blob IS NOT NULL"),
        postgresql_where=sa.text("blob IS NOT NULL"),
    )
    op.create_table(
        "blobs",
        sa.Column("hash", sa.Text(), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "agent_states",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("agent", sa.Text(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "partial_results",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )


def _records() -> None:
    op.create_table(
        "findings",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_index("findings_by_step", "findings", ["session_id", "number"])
    op.create_index("findings_by_subject", "findings", ["session_id", "subject"])
    op.create_table(
        "conflicts",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("second", sa.Integer(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("resolved", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("resolution", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoints",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False, server_default=""),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("base", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("marked", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("component", sa.Text(), nullable=False),
        sa.Column("step", sa.Text()),
        sa.Column("data", sa.Text()),
        sa.Column("correlation_id", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text()),
        sa.Column("turn", sa.BigInteger()),
        sqlite_with_rowid=False,
    )


def _housekeeping() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("hints", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
    )


def _search() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE VIRTUAL TABLE session_search USING fts5(session_id UNINDEXED, body, tokenize = 'unicode61')")
    else:
        op.execute("CREATE TABLE session_search (session_id TEXT PRIMARY KEY, body TEXT NOT NULL)")
        op.execute("CREATE INDEX session_search_words ON session_search USING gin (to_tsvector('simple', body))")
