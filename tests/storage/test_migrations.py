"""Both ways to the schema lead to the same one: made at once for an empty database, or by the migrations."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from servers import PostgresServer
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from celeriac.errors import StorageError
from celeriac.storage import migrations, schema
from celeriac.storage.database import Database
from celeriac.storage.tables import metadata

#: The newest revision of this Celeriac.
LAST = schema.HEAD


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty database."""
    made = Database(database_url)
    yield made
    made.dispose()


@pytest.fixture
def other(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A second empty database of the same kind."""
    if database.is_sqlite:
        made = Database(f"sqlite:///{tmp_path / 'other.db'}")
        yield made
        made.dispose()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"test_{uuid.uuid4().hex}"
    made = Database(server.create_database(name))
    yield made
    made.dispose()
    server.drop_database(name)


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations with one more revision as a later Celeriac has them; gives the new revision's file."""
    scripts = tmp_path / "scripts"
    shutil.copytree(Path(migrations.__file__).parent, scripts)
    file = scripts / "versions" / "9999_next.py"
    file.write_text(
        textwrap.dedent(
            """\
            import sqlalchemy as sa
            from alembic import op

            revision, down_revision = "9999", "%s"


            def upgrade() -> None:
                op.add_column("session_tags", sa.Column("why", sa.Text()))
                op.create_table("extra", sa.Column("id", sa.Integer(), primary_key=True))
            """
        )
        % LAST
    )
    monkeypatch.setattr(schema, "SCRIPTS", str(scripts))
    monkeypatch.setattr(schema, "HEAD", "9999")
    return file


_POSTGRESQL = (
    "SELECT 'column', table_name, ordinal_position::text, column_name, data_type || is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
)
_SQLITE = ("SELECT type, tbl_name, name, sql FROM sqlite_master",)


def whole_schema(database: Database) -> list[tuple[Any, ...]]:
    """Every table, column, index and constraint as the database itself tells it, but for Alembic's own table."""
    with database.engine.connect() as connection:
        queries = _SQLITE if database.is_sqlite else _POSTGRESQL
        rows = [tuple(row) for query in queries for row in connection.execute(text(query))]
    return sorted((row for row in rows if row[1] != "alembic_version"), key=repr)


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", schema.SCRIPTS)
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_the_migrations_make_what_ensure_makes(database: Database, other: Database) -> None:
    assert schema.upgrade(database) == (None, schema.HEAD)
    schema.ensure(other)
    migrated = whole_schema(database)
    assert migrated == whole_schema(other)
    assert any("steps_ready" in map(str, row) and "status = 'ready'" in str(row[-1]) for row in migrated)


def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    schema.upgrade(database)

    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "index" and database.is_sqlite and name == "steps_ready":
            return False  # SQLAlchemy does not read that a column of an index descends; nor does Alembic then
        return kind != "table" or not str(name).startswith(("session_search", "alembic"))

    # Alembic takes SQLite's '' for another default than ''; the test before this one compares them exactly.
    options = {"include_name": ours, "compare_type": True, "compare_server_default": not database.is_sqlite}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_sessions_of_before_tenants_keep_their_rows_and_their_keys(database: Database) -> None:
    schema.upgrade(database, "0007")
    rows = [("a", "k", 3), ("b", None, 4), ("c", None, 5)]
    with database.engine.begin() as connection:
        for session_id, key, priority in rows:
            connection.execute(
                text(
                    'INSERT INTO sessions (id, key, query, "user", priority, status, phase, correlation_id, created_at,'
                    " updated_at) VALUES (:id, :key, 'q', 'ana', :priority, 'active', 'x', 'c', 1.5, 2.5)"
                ),
                {"id": session_id, "key": key, "priority": priority},
            )
    schema.upgrade(database)
    add = "INSERT INTO sessions (id, key, tenant, query, status, phase, correlation_id, created_at, updated_at)"
    with database.engine.begin() as connection:
        found = connection.execute(text("SELECT id, key, priority, tenant, updated_at FROM sessions ORDER BY id"))
        assert [tuple(row) for row in found] == [(*row, "", 2.5) for row in rows]
        connection.execute(text(f"{add} VALUES ('d', 'k', 'acme', 'q', 'active', 'x', 'c', 1, 1)"))
    with pytest.raises(IntegrityError), database.engine.begin() as connection:
        connection.execute(text(f"{add} VALUES ('e', 'k', '', 'q', 'active', 'x', 'c', 1, 1)"))


def test_upgrading_again_changes_nothing(database: Database) -> None:
    schema.upgrade(database)
    before = whole_schema(database)
    assert schema.upgrade(database) == (schema.HEAD, schema.HEAD)
    assert whole_schema(database) == before


def test_a_database_that_ensure_made_is_at_the_newest_revision(database: Database) -> None:
    schema.ensure(database)
    assert schema.upgrade(database) == (schema.HEAD, schema.HEAD)


def test_ensure_accepts_a_migrated_database(database: Database) -> None:
    schema.upgrade(database)
    before = whole_schema(database)
    schema.ensure(database)
    assert whole_schema(database) == before


def test_an_older_database_is_refused_until_it_is_upgraded_and_keeps_its_rows(
    database: Database, next_revision: Path
) -> None:
    schema.upgrade(database, LAST)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO session_tags (tag, session_id) VALUES ('sweep', 'me')")
    with pytest.raises(StorageError, match=rf"at schema revision {LAST}.*needs 9999.*celeriac db upgrade"):
        schema.ensure(database)
    assert schema.upgrade(database) == (LAST, "9999")
    schema.ensure(database)
    with database.engine.connect() as connection:
        row = connection.execute(text("SELECT tag, session_id, why FROM session_tags")).one()
        assert tuple(row) == ("sweep", "me", None)


def test_a_newer_database_is_refused_and_left_alone(database: Database) -> None:
    schema.ensure(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    before = whole_schema(database)
    with pytest.raises(StorageError, match=r"at schema revision 9999.*upgrade this one"):
        schema.ensure(database)
    with pytest.raises(StorageError, match=r"at schema revision 9999, cannot be upgraded to head: .*9999"):
        schema.upgrade(database)
    assert schema.revision(database) == "9999"
    assert whole_schema(database) == before


def test_an_upgrade_that_breaks_midway_leaves_nothing_behind(database: Database, next_revision: Path) -> None:
    whole = next_revision.read_text()
    next_revision.write_text(whole + '    op.execute("SELECT * FROM there_is_no_such_table")\n')
    schema.upgrade(database, LAST)
    before = whole_schema(database)
    with pytest.raises(Exception, match="there_is_no_such_table"):
        schema.upgrade(database)
    assert schema.revision(database) == LAST
    assert whole_schema(database) == before
    next_revision.write_text(whole)
    assert schema.upgrade(database) == (LAST, "9999")


def test_an_upgrade_that_is_killed_midway_leaves_nothing_behind(database: Database, next_revision: Path) -> None:
    whole = next_revision.read_text()
    next_revision.write_text(whole + "    import os\n    os.kill(os.getpid(), 9)\n")
    schema.upgrade(database, LAST)
    before = whole_schema(database)
    assert upgrading(database, schema.SCRIPTS).wait(60) == -9
    assert schema.revision(database) == LAST
    assert whole_schema(database) == before
    next_revision.write_text(whole)
    assert schema.upgrade(database) == (LAST, "9999")


def test_processes_that_upgrade_at_once_do_it_once(database: Database) -> None:
    started = [upgrading(database, schema.SCRIPTS) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    befores = sorted(process.stdout.read().strip() for process in started if process.stdout)
    assert befores == [LAST, LAST, "None"]
    assert {"sessions", "steps", "session_search"} <= set(inspect(database.engine).get_table_names())


def upgrading(database: Database, scripts: str) -> subprocess.Popen[str]:
    """Another process that upgrades the database and prints the revision that it found."""
    code = (
        "import sys\n"
        "from celeriac.storage import schema\n"
        "from celeriac.storage.database import Database\n"
        "schema.SCRIPTS = sys.argv[2]\n"
        "print(schema.upgrade(Database(sys.argv[1]))[0])\n"
    )
    url = database.url.render_as_string(hide_password=False)
    return subprocess.Popen([sys.executable, "-c", code, url, scripts], stdout=subprocess.PIPE, text=True)
