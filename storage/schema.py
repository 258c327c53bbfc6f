"""Bringing a database to the current schema. A new one is made at once; an older one is migrated by Alembic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, inspect, text

from ..errors import StorageError
from . import (
    access,
    agent_parts,
    attached,
    erasures,
    maintenance,
    migration_runs,
    paces,
    reclaimed,
    removals,
    reuse,
    statistics,
    templates,
    trees,
)
from .archives import tables as _archives
from .cache import tables as _cache
from .database import Database
from .histories import tables as _histories
from .keys import keymarks
from .states import tables as _states
from .tables import metadata

#: Where tables are declared beside `tables`: `metadata` knows them once they are imported.
DECLARED = (
    access,
    agent_parts,
    erasures,
    keymarks,
    maintenance,
    migration_runs,
    paces,
    reclaimed,
    removals,
    statistics,
    _archives,
    reuse,
    attached,
    templates,
    trees,
    _cache,
    _histories,
    _states,
)
#: The newest revision in `migrations/versions`; a test holds the two together.
HEAD = "0020"
#: Where Alembic finds them, also when the package is installed: package:folder.
SCRIPTS = "celeriac.storage:migrations"

#: Full-text search over sessions is the one thing that the two databases do not share the words for.
SEARCH = {
    "sqlite": ["CREATE VIRTUAL TABLE session_search USING fts5(session_id UNINDEXED, body, tokenize = 'unicode61')"],
    "postgresql": [
        "CREATE TABLE session_search (session_id TEXT PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE INDEX session_search_words ON session_search USING gin (to_tsvector('simple', body))",
    ],
}
#: Two processes that meet on an empty PostgreSQL database make the schema one after the other.
_LOCK_KEY = 7_201_461


def revision(database: Database) -> str | None:
    """The schema revision of a database, None for an empty one."""
    with database.engine.connect() as connection:
        return _revision(connection)


def _revision(connection: Any) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()  # type: ignore[no-any-return]


def ensure(database: Database) -> None:
    """Make the schema in an empty database; refuse one that is not at the current revision.

    Raises StorageError that says to run `celeriac db upgrade` (an older database) or to upgrade Celeriac (a newer one).
    """
    found = revision(database)
    if found is None:
        _create(database)
    elif found != HEAD:
        raise StorageError(
            f"the database {database.shown} is at schema revision {found}, this Celeriac needs {HEAD}: "
            + ("run `celeriac db upgrade`" if found < HEAD else "a newer Celeriac made it; upgrade this one")
        )


def _create(database: Database) -> None:
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            # The driver is in autocommit mode: say the transaction ourselves, so that a crash leaves nothing half made.
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if _revision(connection) is None:
                metadata.create_all(connection)
                for statement in SEARCH[connection.dialect.name]:
                    connection.exec_driver_sql(statement)
                connection.exec_driver_sql(
                    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
                )
                connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


@contextlib.contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A connection in a transaction of its own, with nobody else at the schema; rolled back if anything is raised."""
    with database.engine.connect() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # neither the wait nor a big table is a fault
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        try:
            yield connection
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise


def upgrade(database: Database, to: str = "head") -> tuple[str | None, str | None]:
    """Migrate to a revision with Alembic, in one transaction; gives the revisions before and after.

    An empty database is made from nothing. Raises StorageError, and changes nothing, if this Celeriac does not know the
    database's revision, or `to`.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    with _alone(database) as connection:
        before = _revision(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, to)
        except CommandError as fault:
            raise StorageError(
                f"the database {database.shown}, at schema revision {before}, cannot be upgraded to {to}: {fault}"
            ) from fault
        return before, _revision(connection)
