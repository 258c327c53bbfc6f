"""A full-text index over passages of text, for one search job: SQLite FTS5 with BM25, private to its object."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import StorageError

#: BM25 weights of the columns heading and text.
_WEIGHTS = (2.5, 1.0)


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage that matches: its id, and its BM25 score (higher is better)."""

    id: int
    score: float


def _connect() -> Any:
    """An empty private database: in memory while small, in a nameless temporary file when it grows."""
    try:
        library = import_module("pysqlite3.dbapi2")
    except ImportError:
        library = sqlite3
    return library.connect("", isolation_level=None)


class PassageIndex:
    """Passages by the words in them. Words match by their stem (Porter), whatever their case and accents.

    Only the index is kept, not the text. Raises StorageError where this SQLite has no FTS5. Not for several threads.
    """

    def __init__(self) -> None:
        self._connection = _connect()
        self.count = 0
        try:
            self._connection.execute(
                "CREATE VIRTUAL TABLE passages USING fts5(heading, text, content='', "
                "tokenize='porter unicode61 remove_diacritics 2')"
            )
        except Exception as error:
            self._connection.close()
            raise StorageError(f"this SQLite cannot search text (no FTS5): {error}") from error
        self._connection.execute("BEGIN")

    def add(self, passages: Iterable[tuple[str, str]]) -> range:
        """Index passages given as (heading, text); their ids count on from those there are."""
        first = self.count
        rows = [(first + number, heading, text) for number, (heading, text) in enumerate(passages)]
        self._connection.executemany("INSERT INTO passages (rowid, heading, text) VALUES (?, ?, ?)", rows)
        self.count += len(rows)
        return range(first, self.count)

    def search(self, terms: list[str], limit: int) -> list[PassageHit]:
        """The best passages that hold any of the terms, best first; ties in the order of their ids."""
        query = " OR ".join(filter(None, map(quoted, terms)))
        if not query:
            return []
        rows = self._connection.execute(
            f"SELECT rowid, bm25(passages, {_WEIGHTS[0]}, {_WEIGHTS[1]}) AS score FROM passages "
            "WHERE passages MATCH ? ORDER BY score, rowid LIMIT ?",
            (query, limit),
        )
        return [PassageHit(row, -score) for row, score in rows]

    def holding(self, term: str) -> set[int]:
        """The ids of all passages that hold the term."""
        query = quoted(term)
        if not query:
            return set()
        return {
            row for (row,) in self._connection.execute("SELECT rowid FROM passages WHERE passages MATCH ?", (query,))
        }

    def near(self, one: str, other: str, distance: int) -> set[int]:
        """The ids of all passages that hold both terms with at most `distance` words between them."""
        terms = [quoted(one), quoted(other)]
        if not all(terms):
            return set()
        query = f"NEAR({' '.join(terms)}, {distance})"
        rows = self._connection.execute("SELECT rowid FROM passages WHERE passages MATCH ?", (query,))
        return {row for (row,) in rows}

    def close(self) -> None:
        """Let the index go."""
        self._connection.close()


def quoted(term: str) -> str:
    """A term as an FTS5 string, so that nothing in it is read as an operator; "" where it holds no letter or digit."""
    plain = term.replace("\0", " ").replace('"', '""')
    return f'"{plain}"' if any(character.isalnum() for character in plain) else ""
