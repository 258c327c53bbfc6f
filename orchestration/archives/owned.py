"""What belongs to a session: the rows that an archive takes, and what of it lives elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from sqlalchemy import Table

from ...storage import session_state
from ...storage.archives.tables import archives
from ...storage.backup import tables
from ...storage.backup.tables import Choice, Chosen
from ...storage.histories.protocol import Place
from ...storage.states.protocol import Origin
from ..backups.source import elsewhere, scope_rows
from ..engine import Engine
from ..history.pages import pages
from ..trees.apart import Own

#: Rows that mean something only while work goes on: they are deleted, not kept.
PASSING: Final = ("outbox", "cache_flights", "cache_waiters", "agent_turns")
#: Rows by which an archived session is found; they are kept in the archive, too, but for the words. Its place in a tree
#: stays as well: so what it shares is kept above it, and what is above it is not deleted.
STAYING: Final = ("sessions", "session_tags", "branches", tables.SEARCH.name)
#: Of an entry of a history that lives elsewhere.
HISTORY_COLUMNS: Final = ("number", "at", "body")


def choice(session_id: str, tenant: str) -> Choice:
    """The rows of a session."""
    return Choice((session_id,), tenant=tenant)


def kept_tables(of: Choice) -> Iterator[tuple[Table, Chosen]]:
    """The tables that an archive has rows of, and which."""
    for table in tables.tables():
        chosen = of.of(table.name, tables.columns(table))
        if chosen is not None and table not in (archives, tables.SEARCH) and table.name not in PASSING:
            yield table, chosen


def history_elsewhere(engine: Engine) -> Place | None:
    """Where what is said in sessions lives, if not in rows beside them."""
    return None if engine.conversations.capabilities.with_steps else engine.conversations


def history_rows(place: Place, session_id: str) -> Iterator[tuple[Any, ...]]:
    """The entries of a session's history."""
    return ((one.number, one.at, one.body) for one in chain.from_iterable(pages(place, session_id)))


def has_state_elsewhere(engine: Engine) -> bool:
    """Whether keyed state lives where it has to be taken from beside the rows."""
    return elsewhere(engine.state.places.backend) is not None


def scope(session_id: str, tenant: str) -> str:
    """How the place of keyed state calls a session's own scope."""
    return session_state.scope_of(session_id, tenant)


def state_rows(engine: Engine, session_id: str, tenant: str) -> Iterator[tuple[Any, ...]]:
    """The values of a session's own scope elsewhere, and what its tree keeps beside them."""
    own = scope(session_id, tenant)
    for one in (own, session_state.beside(own)):
        yield from scope_rows(engine.state.places.backend, one)


def clear_state(engine: Engine, session_id: str, tenant: str) -> None:
    """Delete what `state_rows` gives."""
    engine.state.places.clear(scope(session_id, tenant), Origin())
    Own(engine, session_id, tenant).forget_kept()
