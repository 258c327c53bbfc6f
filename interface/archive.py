"""`celeriac archive`: put sessions away into files, look into these, check them, bring sessions back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import SHORT_ID, clean, document, json_option, line, pairs, pretty, say, sized, table, when
from .research import BadInput
from .sessions import RESULT_CHARACTERS, session_argument

if TYPE_CHECKING:
    from ..orchestration.archives.archives import Archive
    from ..tasks.app import Celeriac


@click.group()
def archive() -> None:
    """Sessions put away into files. An ID may be cut short while it is the only one that starts so."""


def recursive_option(what: str) -> Callable[[Any], Any]:
    """The option `--recursive`."""
    return click.option("--recursive", is_flag=True, help=what)


@archive.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="ID...")
@recursive_option("Branches of them, and theirs, before them.")
@json_option
@pass_invocation
def create(invocation: Invocation, session_ids: tuple[str, ...], recursive: bool, as_json: bool) -> None:
    """Put ended or paused sessions with all that belongs to them into a file each, checked before anything goes."""
    with invocation.celeriac() as c:
        for session_id in session_ids:
            made = c.archives.create(session_id, recursive=recursive)
            if as_json:
                line(asdict(made))
            else:
                below = f", and {_below(c, made.id):,} below it" if recursive else ""
                print(f"{made.id}  archived: {sized(made.bytes)}{', sealed' if made.sealed else ''}{below}")


def _below(c: Celeriac, session_id: str) -> int:
    """How many sessions are below one in its tree."""
    front, count = [c.sessions.get(session_id)], -1
    while front:
        count += len(front)
        front = [child for one in front for child in one.children()]
    return count


@archive.command("list")
@click.option("--user", metavar="NAME", help="Only of this user.")
@click.option("--tag", metavar="WORD", help="Only with this tag.")
@click.option("--search", "words", metavar="WORDS", help="Only those whose query, title or notes hold these words.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--cursor", metavar="TEXT", help="Go on where the last page ended.")
@json_option
@pass_invocation
def list_(invocation: Invocation, /, as_json: bool, **chosen: Any) -> None:
    """List archives, those of the newest sessions first."""
    with invocation.celeriac() as c:
        page = c.archives.list(**chosen)
    if as_json:
        document([asdict(one) for one in page])
    else:
        rows = [
            (
                one.id[:SHORT_ID], one.status, when(one.created_at), when(one.archived_at), sized(one.bytes), one.user,
                clean(one.query or one.title, 200),
            )
            for one in page
        ]  # fmt: skip
        table(("session", "was", "created", "archived", "size", "user", "query"), rows, right=("size",))
    if page.cursor:
        say(f"more: --cursor {page.cursor}")


@archive.command()
@session_argument
@click.option("--history", "last", type=click.IntRange(0), default=50, show_default=True, help="Newest entries shown.")
@json_option
@pass_invocation
def show(invocation: Invocation, session_id: str, last: int, as_json: bool) -> None:
    """Look into an archive without restoring it: the session, its results and its history."""
    with invocation.celeriac() as c:
        found = c.archives.show(session_id, last)
    shown: Archive = found["archive"]
    if as_json:
        document({**found, "archive": asdict(shown)})
        return
    view = found["session"]
    rows = [(name, view[name]) for name in ("id", "status", "query", "title", "user", "error", "notes")]
    rows += [("tags", ", ".join(view["tags"])), ("archived", when(shown.archived_at)), ("size", sized(shown.bytes))]
    pairs([(name, value) for name, value in rows if value])
    print()
    steps = [(one["name"], one["agent"], one["status"], one["error"]) for one in view["steps"]]
    table(("step", "agent", "status", "error"), steps)
    if view["result"] is not None:
        print()
        pairs([("result", pretty(view["result"], RESULT_CHARACTERS) or "large (--json shows it)")])
    if found["entries"]:
        print()
        said = [
            (one["number"], one.get("role") or one.get("agent"), clean(_said(one), 200)) for one in found["history"]
        ]
        table(("entry", "who", "said"), said)


def _said(entry: dict[str, Any]) -> Any:
    return next((entry[name] for name in ("content", "user_request", "response") if entry.get(name)), "")


@archive.command()
@session_argument
@json_option
@pass_invocation
@click.pass_context
def verify(ctx: click.Context, invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Read and check all of an archive (exit code 1 if it is damaged)."""
    with invocation.celeriac() as c:
        found = c.archives.verify(session_id)
    if as_json:
        document({**asdict(found), "ok": found.ok})
    elif found.ok:
        print(f"{found.id}  whole: {found.objects:,} pieces, {sized(found.size)}")
    else:
        for problem in found.problems:
            say(f"celeriac: {problem}")
    ctx.exit(0 if found.ok else 1)


@archive.command()
@session_argument
@recursive_option("Also what is archived of its branches, and theirs.")
@json_option
@pass_invocation
def restore(invocation: Invocation, session_id: str, recursive: bool, as_json: bool) -> None:
    """Bring a session back as it was, all or nothing."""
    with invocation.celeriac() as c:
        view = c.archives.restore(session_id, recursive=recursive).to_dict()
    if as_json:
        document(view)
    else:
        print(f"{view['id']}  {view['status']}")


@archive.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="ID...")
@recursive_option("Also branches of them, and theirs.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def delete(invocation: Invocation, session_ids: tuple[str, ...], recursive: bool, yes: bool, as_json: bool) -> None:
    """Delete archives with what is known of their sessions, for good."""
    with invocation.celeriac() as c:
        found = [c.archives.get(one) for one in session_ids]
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("there is no terminal to ask on; pass --yes to delete")
            for one in found:
                say(f"{one.id}  {clean(one.query, 60)}")
            if not click.confirm(f"Delete {len(found)} archive{'s' if len(found) > 1 else ''}?", err=True):
                raise click.exceptions.Exit(1)
        for one in found:
            c.archives.delete(one.id, recursive=recursive)
    if as_json:
        document({"deleted": [one.id for one in found]})
    else:
        for one in found:
            print(f"{one.id}  deleted")


@archive.command()
@json_option
@pass_invocation
def tidy(invocation: Invocation, as_json: bool) -> None:
    """See to what processes left that were killed over an archive more than an hour ago."""
    with invocation.celeriac() as c:
        found = c.archives.tidy()
    if as_json:
        document(asdict(found))
    else:
        print(f"{found.settled} archives settled, {found.files} files deleted")
