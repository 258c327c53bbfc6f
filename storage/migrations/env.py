"""Run by Alembic. The connection and its transaction are those of `storage.schema.upgrade`."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
