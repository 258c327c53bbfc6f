"""How much each session has recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _anew()
    else:
        op.add_column(
            "sessions", sa.Column("stored_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        )
        op.add_column("sessions", sa.Column("stored_blobs", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.execute(
        "UPDATE sessions SET"
        " stored_bytes = coalesce((SELECT sum(size) FROM results WHERE results.session_id = sessions.id), 0)"
        " + coalesce((SELECT sum(length(body)) FROM partial_results AS p WHERE p.session_id = sessions.id), 0),"
        " stored_blobs = (SELECT count(blob) FROM results WHERE results.session_id = sessions.id)"
    )


def _anew() -> None:
    """SQLite would put new columns behind the constraints, where a table that is made at once does not have them."""
    bind = op.get_bind()
    told = bind.execute(sa.text("SELECT type, sql FROM sqlite_master WHERE tbl_name = 'sessions' AND sql IS NOT NULL"))
    rows = [tuple(row) for row in told]
    (table,) = (sql for kind, sql in rows if kind == "table")
    columns = ", ".join(f'"{column["name"]}"' for column in sa.inspect(bind).get_columns("sessions"))
    more = "stored_bytes BIGINT DEFAULT 0 NOT NULL, \n\tstored_blobs INTEGER DEFAULT 0 NOT NULL, \n\tPRIMARY KEY"
    op.rename_table("sessions", "sessions_before")
    bind.exec_driver_sql(table.replace("PRIMARY KEY", more, 1))
    bind.exec_driver_sql(f"INSERT INTO sessions ({columns}) SELECT {columns} FROM sessions_before")
    op.drop_table("sessions_before")
    for kind, sql in rows:
        if kind == "index":
            bind.exec_driver_sql(sql)
