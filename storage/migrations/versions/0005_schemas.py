"""Runs of migrations of state, and what agents keep in parts."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def _ordered() -> Any:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _runs()
    op.create_table(
        "agent_parts",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("agent", sa.Text(), primary_key=True),
        sa.Column("part", _ordered(), primary_key=True),
        sa.Column("body", sa.Text(), nullable=False),
    )
    _split_states()


def _runs() -> None:
    op.create_table(
        "migration_runs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("schema", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("through", sa.Text(), nullable=False, server_default=""),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("at_scope", sa.Text(), nullable=False, server_default=""),
        sa.Column("at_key", sa.Text(), nullable=False, server_default=""),
        sa.Column("total", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("looked", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("summary", sa.Text()),
        sa.Column("owner", sa.Text()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "migrated_values",
        sa.Column("run_id", sa.Text(), primary_key=True),
        sa.Column("scope", _ordered(), primary_key=True),
        sa.Column("key", _ordered(), primary_key=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("packed", sa.LargeBinary()),
        sa.Column("meta", sa.Text(), nullable=False, server_default=""),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("new_version", sa.BigInteger()),
        sa.Column("error", sa.Text()),
    )
    op.create_index("migrated_values_by_status", "migrated_values", ["run_id", "status"])
    op.create_index("migrated_values_by_scope", "migrated_values", ["scope"])


def _split_states() -> None:
    """An agent's one object becomes parts of its `execution`, and its row says how the parts are numbered."""
    connection = op.get_bind()
    states = sa.table("agent_states", *map(sa.column, ("session_id", "agent", "body")))
    parts = sa.table("agent_parts", *map(sa.column, ("session_id", "agent", "part", "body")))
    head = '{"schema_version":"1.0.0","last":0}'
    for session_id, agent, body in connection.execute(sa.select(*states.c)).fetchall():
        for key, value in json.loads(body).items():
            part = "execution/" + key.replace("%", "%25").replace("\0", "%00")
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            connection.execute(sa.insert(parts).values(session_id=session_id, agent=agent, part=part, body=text))
    connection.execute(sa.update(states).values(body=head))
    # The next checkpoints of these sessions are whole ones: changes of parts do not follow on changes of the object.
    sessions = sa.table("sessions", sa.column("id"), sa.column("checkpoint_base"))
    concerned = sessions.c.id.in_(sa.select(states.c.session_id))
    connection.execute(sa.update(sessions).where(concerned).values(checkpoint_base=0))
