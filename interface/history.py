"""`celeriac history`: what is said in sessions."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .importing import import_
from .invocation import Invocation, pass_invocation
from .printing import clean, document, json_option, line, plain, say, sized, table, when
from .printing import entries as number_of
from .research import BadInput
from .sessions import session_argument, write_out
from .shown import words_of

if TYPE_CHECKING:
    from ..orchestration.session import Session


@click.group()
def history() -> None:
    """What is said in sessions: show, count, export, import, compact, clear and move it."""


history.add_command(import_)


@history.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the sessions in which something was said, and how many entries each has; with --json one a line."""
    with invocation.celeriac() as c:
        found = c.histories.list()
        if as_json:
            for session_id, entries in found:
                line({"id": session_id, "entries": entries})
            return
        rows = [(session_id, f"{entries:,}") for session_id, entries in found]
    if rows:
        table(("session", "entries"), rows, right=("entries",))
    else:
        say("nothing was said in any session")


@history.command()
@session_argument
@click.option("--last", type=click.IntRange(1, 10_000), default=20, show_default=True, help="So many entries.")
@click.option(
    "--from", "first", type=click.IntRange(1), metavar="NUMBER", help="From this entry on, in place of the last."
)
@click.option("--to", "until", type=click.IntRange(1), metavar="NUMBER", help="Up to this entry.")
@json_option
@pass_invocation
def show(
    invocation: Invocation, session_id: str, last: int, first: int | None, until: int | None, as_json: bool
) -> None:
    """Show the last entries of a session, or a range of them; with --json one a line."""
    with invocation.session(session_id) as (_, session):
        if first is None and until is None:
            found = session.history.last(last)
        else:
            found = session.history.range(first or 1, until)
        none = "" if found else _none(session)
    _show(found, as_json, none)


def _none(session: Session) -> str:
    """Why a session has no entries."""
    if session.status == "archived":
        return f"it is archived; celeriac archive show {session.id}"
    return "nothing was said in it"


@history.command()
@session_argument
@click.option("--last", type=click.IntRange(1, 10_000), metavar="NUMBER", help="Of so many entries (default: of all).")
@json_option
@pass_invocation
def summarize(invocation: Invocation, session_id: str, last: int | None, as_json: bool) -> None:
    """Sum up what was said in a session: by the model of the settings, else by the most telling sentences."""
    with invocation.session(session_id) as (_, session):
        found = session.history.summarize(last)
        none = "" if found.last else _none(session)
    if as_json:
        document(asdict(found))
        return
    print(plain(found.text))
    say(f"entries {found.first:,} to {found.last:,}, by {found.by}" if found.last else none)


def _show(entries: Iterable[dict[str, Any]], as_json: bool, none: str) -> None:
    if as_json:
        for entry in entries:
            line(entry)
        return
    rows = [
        (one["number"], when(one["timestamp"]), one.get("role") or one.get("agent"), clean(words_of(one), 400))
        for one in entries
    ]
    if rows:
        table(("entry", "time", "who", "said"), rows, right=("entry",), fold=("said",))
    else:
        say(none)


@history.command()
@session_argument
@json_option
@pass_invocation
def count(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Print how many entries a session has."""
    with invocation.session(session_id) as (_, session):
        found = session.history.count()
        away = _none(session) if not found and session.status == "archived" else ""
    if as_json:
        document({"id": session.id, "entries": found})
    else:
        click.echo(found)
    if away:
        say(away)


@history.command()
@session_argument
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@pass_invocation
def export(invocation: Invocation, session_id: str, file: Path | None, as_json: bool) -> None:
    """Write what was said in a session as JSON lines to a FILE, or to standard output: an entry a line."""
    write_out(invocation, session_id, file, True, as_json)


@history.command()
@session_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def clear(invocation: Invocation, session_id: str, yes: bool, as_json: bool) -> None:
    """Delete all that was said in a session, for good."""
    with invocation.session(session_id) as (_, session):
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("there is no terminal to ask on; pass --yes to clear")
            if not click.confirm(f"Delete {number_of(session.history.count())} of {session.id}?", err=True):
                raise click.exceptions.Exit(1)
        gone = session.history.clear()
    if as_json:
        document({"id": session.id, "deleted": gone})
    else:
        print(f"{session.id}  {number_of(gone)} deleted")


@history.command()
@click.argument("session_ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "everything", is_flag=True, help="Of all sessions.")
@click.option(
    "--to", required=True, metavar="URL", help="Where to, as `history_url` has it; `database` for its default."
)
@json_option
@pass_invocation
def move(invocation: Invocation, session_ids: tuple[str, ...], everything: bool, to: str, as_json: bool) -> None:
    """Move what was said in sessions from the place of `history_url` to another one; nothing is lost.

    Set `history_url` to the new place then: sessions whose history was moved look empty until that.
    """
    if bool(session_ids) == everything:
        raise BadInput("name sessions, or --all; not both")
    url = "" if to == "database" else to
    moved: list[dict[str, Any]] = []
    with invocation.celeriac() as c:
        found = [one for one, _ in c.histories.list()] if everything else [c.sessions.get(i).id for i in session_ids]
        for session_id in found:
            moved.append({"id": session_id, "entries": c.histories.move(session_id, url)})
            if not as_json:
                print(f"{session_id}  {number_of(moved[-1]['entries'])}")
    if as_json:
        document({"to": to, "moved": moved})


@history.command()
@session_argument
@click.option("--keep-last", type=click.IntRange(0), default=50, show_default=True, help="Leave so many as they are.")
@click.option("--dry-run", is_flag=True, help="Say how much would be put away, change nothing.")
@json_option
@pass_invocation
def compact(invocation: Invocation, session_id: str, keep_last: int, dry_run: bool, as_json: bool) -> None:
    """Sum up the older entries of a session in one, and put them away, compressed: `uncompact` puts them back.

    The summary is written by the model of the settings, else it is made of the most telling sentences. Important
    entries and system prompts stay.
    """
    with invocation.session(session_id) as (_, session):
        found = session.compact(keep_last, dry_run=dry_run)
    if as_json:
        document(asdict(found))
        return
    done = "would be put away" if dry_run else "put away"
    tokens = f"{found.tokens_before:,} tokens ({found.counted_by})"
    print(f"{number_of(found.entries)} of {sized(found.bytes_before)} and {tokens} {done}")
    if found.summaries:
        print(
            f"entry {found.summaries[-1]} sums them up, by {found.by}: {found.tokens_after:,} tokens; "
            f"they take {sized(found.cold_bytes)} now"
        )


@history.command()
@session_argument
@json_option
@pass_invocation
def uncompact(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Put back the entries that `compact` has put away, in the place of their summary."""
    with invocation.session(session_id) as (_, session):
        count = session.uncompact()
    if as_json:
        document({"id": session.id, "entries": count})
    else:
        print(f"{number_of(count)} put back")


@history.command()
@session_argument
@json_option
@pass_invocation
def cold(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Show the entries that `compact` has put away; with --json one a line."""
    with invocation.session(session_id) as (_, session):
        _show(session.cold(), as_json, "nothing of it was put away")
