"""Forks, branches, attached sessions, templates; what results were made by, so that forks can take them over."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    _add("results", {"maker": sa.Text(), "added": sa.Text()}, "maker TEXT, \n\tadded TEXT")
    _add("findings", {"sole": sa.SmallInteger()}, "sole SMALLINT DEFAULT 1 NOT NULL")
    op.create_table(
        "reusable_results",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "branches",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("thawed", sa.Integer()),
        sa.Column("merged", sa.BigInteger(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("branches_by_parent", "branches", ["parent"])
    op.create_index("branches_by_root", "branches", ["root"])
    op.create_table(
        "merge_conflicts",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("branch", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("theirs", sa.Text(), nullable=False),
        sa.Column("resolved", sa.SmallInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("resolution", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "attached_sessions",
        sa.Column("session_id", sa.Text(), primary_key=True),
        sa.Column("other", sa.Text(), primary_key=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("attached_sessions_by_other", "attached_sessions", ["other"])
    op.create_table(
        "templates",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
    )


def _add(table: str, columns: dict[str, sa.types.TypeEngine[Any]], text: str) -> None:
    """Add columns; `text` is what SQLite is told, which would put them behind the constraints, where a table that is
    made at once does not have them.
    """
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        for name, kind in columns.items():
            default = sa.text("1") if "NOT NULL" in text else None
            op.add_column(table, sa.Column(name, kind, nullable=default is None, server_default=default))
        return
    found = sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = :name AND sql IS NOT NULL")
    told = bind.execute(found, {"name": table})
    rows = [tuple(row) for row in told]
    (made,) = (sql for kind, sql in rows if kind == "table")
    known = ", ".join(f'"{column["name"]}"' for column in sa.inspect(bind).get_columns(table))
    op.rename_table(table, f"{table}_before")
    bind.exec_driver_sql(made.replace("PRIMARY KEY", f"{text}, \n\tPRIMARY KEY", 1))
    bind.exec_driver_sql(f"INSERT INTO {table} ({known}) SELECT {known} FROM {table}_before")
    op.drop_table(f"{table}_before")
    for kind, sql in rows:
        if kind == "index":
            bind.exec_driver_sql(sql)
