"""`celeriac db`: the schema of the database, and the room that it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .faults import Unreachable, first_line
from .invocation import Invocation, pass_invocation
from .printing import document, json_option, pairs, sized

if TYPE_CHECKING:
    from ..storage.database import Database


@click.group()
def db() -> None:
    """The schema of the database, and the room that it takes."""


@contextlib.contextmanager
def opened(invocation: Invocation) -> Iterator[Database]:
    """The database as it is, whatever its schema. Raises Unreachable."""
    from sqlalchemy.exc import SQLAlchemyError

    from ..storage.database import Database

    database = Database(invocation.settings().database)
    try:
        yield database
    except SQLAlchemyError as fault:
        text = first_line(getattr(fault, "orig", None) or fault)
        raise Unreachable(f"the database {database.shown} cannot be used: {text}") from fault
    finally:
        database.dispose()


def state_of(found: str | None, head: str) -> str:
    """What a schema revision means: empty, current, older or newer."""
    if found is None:
        return "empty"
    return "current" if found == head else "older" if found < head else "newer"


@db.command()
@json_option
@pass_invocation
@click.pass_context
def status(ctx: click.Context, invocation: Invocation, as_json: bool) -> None:
    """Say which schema the database has, and whether this Celeriac can use it (exit code 1 if not)."""
    from ..storage import schema

    with opened(invocation) as database:
        found = schema.revision(database)
        shown = database.shown
    state = state_of(found, schema.HEAD)
    view = {"database": shown, "revision": found, "needed": schema.HEAD, "state": state}
    if as_json:
        document(view)
    else:
        advice = {"older": "run `celeriac db upgrade`", "newer": "a newer Celeriac made it; upgrade this one"}.get(
            state
        )
        pairs([*((name, value or "none") for name, value in view.items()), *([("advice", advice)] if advice else [])])
    ctx.exit(0 if state in ("empty", "current") else 1)


@db.command()
@json_option
@pass_invocation
def upgrade(invocation: Invocation, as_json: bool) -> None:
    """Bring the database to the schema that this Celeriac needs; an empty one gets it whole."""
    from ..storage import schema

    with opened(invocation) as database:
        before, after = schema.upgrade(database)
    if as_json:
        document({"before": before, "after": after})
    elif before == after:
        print(f"nothing to do: the schema is at {after}")
    else:
        print(f"upgraded from {before or 'nothing'} to {after}")


@db.command()
@json_option
@pass_invocation
def vacuum(invocation: Invocation, as_json: bool) -> None:
    """Write an SQLite file anew, without its free pages; who writes waits meanwhile.

    Needed once for a file that an older Celeriac made: from then on `celeriac retention` gives room back by itself.
    PostgreSQL does so without it.
    """
    from ..storage import vacuum as room

    with opened(invocation) as database:
        if not database.is_sqlite:
            note = "PostgreSQL gives room back by itself (autovacuum); nothing was done"
            document({"before": None, "after": None, "note": note}) if as_json else print(note)
            return
        before, after = room.vacuum(database)
    if as_json:
        document({"before": before, "after": after, "note": None})
    else:
        print(f"{sized(before)} before, {sized(after)} now")
