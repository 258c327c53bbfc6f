"""Tables as streams of rows, from the declared metadata: what is declared is backed up, whoever declares it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from sqlalchemy import Column, Table, Text, bindparam, func, literal_column, or_, select, union_all
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.schema import MetaData

from ..database import Query
from ..schema import DECLARED
from ..session_state import scope_of
from ..tables import blobs, metadata
from .manifest import Chunk
from .wrapping import Bytes
from .writer import Writer

#: `metadata` knows a table once its module is imported.
assert DECLARED
Rows = Generator[Sequence[Any], None, None]
#: Who is at work is no part of what is remembered; nor which job is due, for epochs must never fall.
LEFT_OUT: Final = ("workers", "maintenance_jobs", "maintenance_runs")
#: Not declared with the others, because SQLite has it as a virtual table.
SEARCH: Final = Table("session_search", MetaData(), Column("session_id", Text), Column("body", Text))
#: Rows that PostgreSQL sends at once: some may be as large as the setting `inline_result_bytes`.
_FETCH: Final = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows: those of some sessions and of some scopes of keyed state; all where both are empty.

    `tenant`: whose the sessions are; None: it is not known, or they are of several.
    """

    sessions: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tenant: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether no row is left out."""
        return not self.sessions and not self.scopes

    def of(self, table: str, columns: Sequence[str]) -> Chosen | None:
        """What the chosen rows of a table have; None: no row of it is chosen."""
        if self.sessions and table == "sessions":
            return Chosen("id", self.sessions)
        if self.sessions and "session_id" in columns and table != "outbox":
            return Chosen("session_id", self.sessions)
        if table == "state_values" and self.tenant is not None:
            of = self.tenant
            return Chosen("scope", self.scopes + tuple(scope_of(one, of) for one in self.sessions))
        if table == "state_values":  # of a session also its own scope; those of a tenant begin with its name
            own = tuple(f"session:{one}" for one in self.sessions)
            return Chosen("scope", self.scopes + own, tuple(f"/{one}" for one in own))
        return None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A column of the chosen rows, and what it is, or what it ends with."""

    column: str
    values: tuple[str, ...]
    endings: tuple[str, ...] = ()

    def has(self, value: Any) -> bool:
        """Whether a row with that value in the column is chosen."""
        return value in self.values or (bool(self.endings) and str(value).endswith(self.endings))


def tables() -> tuple[Table, ...]:
    """All tables of a backup."""
    return _sorted(metadata)


@cache
def _sorted(declared: MetaData) -> tuple[Table, ...]:
    return (*(table for table in declared.sorted_tables if table.name not in LEFT_OUT), SEARCH)


def columns(table: Table) -> tuple[str, ...]:
    """The names of a table's columns."""
    return tuple(str(column.name) for column in table.columns)


def stream(connection: Any, dialect: Dialect, table: Table, chosen: Chosen | None = None) -> Rows:
    """The rows of a table, one by one, in the order of their key; of some columns' values (not endings) only those. To
    be closed before the connection, if not all are taken.
    """
    if chosen is None:
        yield from _streamed(connection, dialect, _ordered(table, dialect.name, "", 0))
        return
    values = {f"value_{n}": value for n, value in enumerate(chosen.values)}
    yield from _streamed(connection, dialect, _ordered(table, dialect.name, chosen.column, len(values)), values)


@lru_cache(1000)
def _ordered(table: Table, dialect: str, column: str, values: int) -> Query:
    """The rows of a table in order; with `values`, those that have one of so many in a column."""
    key: list[Any] = list(table.primary_key) or [table.c.session_id if dialect != "sqlite" else literal_column("rowid")]
    query = select(*table.columns).order_by(*key)
    if column:
        query = query.where(or_(*(table.c[column] == bindparam(f"value_{n}") for n in range(values))))
    return Query(query)


def referred_blobs(connection: Any, dialect: Dialect) -> Iterator[tuple[str, bool]]:
    """The names of all blobs, each once, and whether a row needs it: one that is only noted may be gone, or cached."""
    noted = select(blobs.c.hash.label("name"), literal_column("0").label("needed"))
    referring = [table.c.blob for table in metadata.sorted_tables if "blob" in table.c]
    needed = [select(column, literal_column("1")).where(column.is_not(None)) for column in referring]
    every = union_all(noted, *needed).subquery()
    found = select(every.c.name, func.max(every.c.needed)).group_by(every.c.name).order_by(every.c.name)
    for name, is_needed in _streamed(connection, dialect, Query(found)):
        yield name, bool(is_needed)


def _streamed(
    connection: Any, dialect: Dialect, query: Query, values: Mapping[str, Any] | None = None
) -> Iterator[Sequence[Any]]:
    text, carried = query.text(dialect)
    values = {**carried, **(values or {})}
    if dialect.name == "sqlite":
        yield from connection.execute(text, values)
        return
    with connection.cursor(name="celeriac_backup") as cursor:
        cursor.itersize = _FETCH
        cursor.execute(text, values)
        yield from cursor


def clear(connection: Any, dialect: Dialect, table: Table, choice: Choice) -> None:
    """Delete the chosen rows of a table."""
    name = dialect.identifier_preparer.quote(table.name)
    if choice.is_all:
        connection.execute(f"DELETE FROM {name}" if dialect.name == "sqlite" else f"TRUNCATE {name}")
        return
    chosen = choice.of(table.name, columns(table))
    if chosen is not None:
        mark = "?" if dialect.name == "sqlite" else "%s"
        for value in chosen.values:
            connection.execute(f"DELETE FROM {name} WHERE {chosen.column} = {mark}", (value,))
        for value in chosen.endings:
            connection.execute(f"DELETE FROM {name} WHERE {chosen.column} LIKE {mark}", (f"%{value}",))


def insert(connection: Any, dialect: Dialect, name: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Add rows to a table."""
    if dialect.name == "sqlite":
        connection.executemany(_inserting(dialect, name, names), rows)
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY {_into(dialect, name, names)} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def insert_chunk(
    writer: Writer, dialect: Dialect, name: str, names: Sequence[str], chunk: Chunk, bits: Iterable[Bytes]
) -> None:
    """Add a chunk, of which there are the bits, to a table as it is."""
    writer.insert(_inserting(dialect, name, names), len(names), chunk.rows, chunk.size, bits)


def _into(dialect: Dialect, name: str, names: Sequence[str]) -> str:
    quote = dialect.identifier_preparer.quote
    return f"{quote(name)} ({', '.join(map(quote, names))})"


def _inserting(dialect: Dialect, name: str, names: Sequence[str]) -> str:
    return f"INSERT INTO {_into(dialect, name, names)} VALUES ({', '.join('?' * len(names))})"


def insert_missing(
    connection: Any, dialect: Dialect, name: str, names: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Add those rows to a table whose keys are not there."""
    marks = ", ".join(["?" if dialect.name == "sqlite" else "%s"] * len(names))
    text = f"INSERT INTO {_into(dialect, name, names)} VALUES ({marks}) ON CONFLICT DO NOTHING"
    for row in rows:
        connection.execute(text, tuple(row))


def count(connection: Any, dialect: Dialect, table: Table) -> int:
    """How many rows a table has."""
    return int(
        connection.execute(f"SELECT count(*) FROM {dialect.identifier_preparer.quote(table.name)}").fetchone()[0]
    )


def has_rows(connection: Any, dialect: Dialect) -> list[str]:
    """The names of the tables that are not empty."""
    quote = dialect.identifier_preparer.quote
    return [
        table.name
        for table in tables()
        if connection.execute(f"SELECT 1 FROM {quote(table.name)} LIMIT 1").fetchone() is not None
    ]


def continue_numbers(connection: Any, dialect: Dialect) -> None:
    """See to it that numbers that the database gives come after those of the rows that were added."""
    if dialect.name == "sqlite":
        return  # it takes the highest there is
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        sequence = connection.execute("SELECT pg_get_serial_sequence(%s, %s)", (table.name, column.name)).fetchone()[0]
        if sequence is not None:
            connection.execute(
                f"SELECT setval('{sequence}', greatest((SELECT last_value FROM {sequence}),"
                f" (SELECT coalesce(max({column.name}), 1) FROM {table.name})))"
            )
