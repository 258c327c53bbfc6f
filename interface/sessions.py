"""`celeriac sessions`: find, show, follow and steer sessions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import CeleriacError
from . import attaching, trees
from .board import Board
from .cache import savings
from .following import Interrupts, Manner, finish, follow
from .forking import fork
from .importing import import_
from .invocation import Invocation, pass_invocation, reach_broker
from .printing import SHORT_ID, clean, document, entries, json_option, line, pairs, pretty, say, sized, table, when
from .research import BadInput, quiet_option

STATUSES = ("active", "paused", "completed", "failed", "cancelled", "archived")
#: A result of more characters than this is not printed for people.
RESULT_CHARACTERS = 1500
CONFLICTS_SHOWN = 10

session_argument = click.argument("session_id", metavar="ID")


@click.group()
def sessions() -> None:
    """Find, show, follow and steer sessions. An ID may be cut short while it is the only one that starts so."""


for command in (fork, import_, *trees.COMMANDS, *attaching.COMMANDS):
    sessions.add_command(command)


def filters(command: Any) -> Any:
    """The options by which `list` and `search` choose, order and cut."""
    for option in (
        click.option("--ascending", is_flag=True, help="Lowest first instead of highest first."),
        click.option(
            "--order", type=click.Choice(["created", "updated", "priority"]), default="created", show_default=True
        ),
        click.option("--cursor", metavar="TEXT", help="Go on where the last page ended."),
        click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True),
        click.option("--type", "type_", type=click.Choice(["dm", "group", "research"]), help="Only of this type."),
        click.option("--tag", metavar="WORD", help="Only with this tag."),
        click.option("--user", metavar="NAME", help="Only of this user."),
        click.option(
            "--status",
            "statuses",
            type=click.Choice(STATUSES),
            multiple=True,
            help="Only in this status; may be given again.",
        ),
    ):
        command = option(command)
    return command


@sessions.command("list")
@filters
@json_option
@pass_invocation
def list_(invocation: Invocation, /, as_json: bool, **chosen: Any) -> None:
    """List sessions, the newest first; archived ones only with --status archived."""
    _list(invocation, None, as_json, chosen)


@sessions.command()
@click.argument("words", nargs=-1, required=True)
@filters
@json_option
@pass_invocation
def search(invocation: Invocation, /, words: tuple[str, ...], as_json: bool, **chosen: Any) -> None:
    """List sessions whose query, title or notes hold all these WORDS; the last one may be the start of a word."""
    _list(invocation, " ".join(words), as_json, chosen)


def _list(invocation: Invocation, words: str | None, as_json: bool, chosen: dict[str, Any]) -> None:
    chosen["status"] = chosen.pop("statuses") or None
    chosen["type"] = chosen.pop("type_")
    with invocation.celeriac() as c:
        page = c.sessions.list(words=words, **chosen)
        found = [session.to_dict(details=False) for session in page]
    if as_json:
        document(found)
    elif found:
        rows = [
            (
                one["id"][:SHORT_ID],
                one["status"],
                f"{one['progress']:.0%}",
                when(one["created_at"]),
                one["user"],
                clean(one["query"] or one["title"] or one["plan"], 200),
            )
            for one in found
        ]
        table(("session", "status", "done", "created", "user", "query"), rows, right=("done",))
    else:
        say("no session")
    if page.cursor:
        say(f"more: --cursor {page.cursor}")


@sessions.command()
@session_argument
@json_option
@pass_invocation
def show(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Show a session: what it is, how far its steps are, its result, conflicts and checkpoints."""
    with invocation.session(session_id) as (_, session):
        view = session.to_dict()
        if as_json:
            document(view)
            return
        board, above, said = Board(session), session.parent, 0
        with contextlib.suppress(CeleriacError):  # it may live elsewhere, and the rest is worth showing
            said = session.history.count()
    rows = [(name, view[name]) for name in ("id", "status", "query", "title", "user", "plan", "error", "key", "notes")]
    rows[2:2] = [("progress", f"{view['progress']:.0%}, {view['phase']}")]
    rows += [(name, when(view[f"{name}_at"])) for name in ("created", "updated", "completed")]
    rows += [("tags", ", ".join(view["tags"]))]
    rows += [("branch of", above.id if above is not None else ""), ("history", entries(said) if said else "")]
    rows += [("archive", in_archive(view["archive"]))] if view["archive"] else []
    rows += [("saved", f"{savings(view['saved'])}, by cached results")] if view["saved"]["runs"] else []
    pairs([(name, value) for name, value in rows if value])
    lines = [
        (one.name, one.state, f"{one.count('done')}/{one.total or '?'}", one.error) for one in board.lines.values()
    ]
    if lines:
        print()
        table(("step", "status", "done", "error"), lines, right=("done",))
    _show_conflicts(view["conflicts"])
    _show_result(view)


def in_archive(archive: dict[str, Any]) -> str:
    """Where an archived session is, for people."""
    where = f"{sized(archive['bytes'])} of {when(archive['archived_at'])}, {archive['status']} before"
    return f"{where}; celeriac archive show or restore"


def _show_conflicts(conflicts: list[dict[str, Any]]) -> None:
    if not conflicts:
        return
    print()
    rows = [
        (c["id"], c["severity"], c["entity"], c["attribute"], " / ".join(clean(f["value"], 60) for f in c["findings"]))
        for c in conflicts[:CONFLICTS_SHOWN]
    ]
    table(("conflict", "severity", "entity", "attribute", "values"), rows, fold=("values",))
    if len(conflicts) > CONFLICTS_SHOWN:
        print(f"and {len(conflicts) - CONFLICTS_SHOWN} more (--json shows all)")


def _show_result(view: dict[str, Any]) -> None:
    if view["result"] is not None or view["checkpoints"]:
        print()
    if view["result"] is not None:
        text = pretty(view["result"], RESULT_CHARACTERS)
        pairs([("result", text or "large (--json shows it)")])
    if view["checkpoints"]:
        last = view["checkpoints"][-1]
        pairs([("checkpoints", f"{len(view['checkpoints'])}, the last {last['id']}")])


@sessions.command()
@session_argument
@click.option(
    "--from", "offset", type=click.IntRange(0, 2**62), default=0, help="With --json: only events after this number."
)
@json_option
@pass_invocation
@click.pass_context
def watch(ctx: click.Context, invocation: Invocation, session_id: str, offset: int, as_json: bool) -> None:
    """Follow a session live until it has ended or is paused; with --json print its events, one a line, to its end.

    Ctrl-C stops watching; the session goes on.
    """
    from .summary import summarise

    if offset and not as_json:
        raise BadInput("--from belongs to --json")
    with invocation.session(session_id) as (c, session):
        if as_json:
            _print_events(session, offset)
            return
        with Interrupts() as interrupts:
            code = follow(c, session, Manner(pause=False), interrupts)
        if not interrupts.count:
            summarise(session)
    ctx.exit(code)


def _print_events(session: Any, offset: int, follow: bool = True) -> None:
    from ..orchestration.views import moment

    for event in session.stream(offset, follow=follow):
        line({**event.to_dict(), "at": moment(event.at)})
        sys.stdout.flush()


@sessions.command()
@session_argument
@json_option
@pass_invocation
def pause(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Start no further step of a session; those that run may finish."""
    _act(invocation, session_id, as_json, lambda session: session.pause())


@sessions.command()
@session_argument
@json_option
@pass_invocation
def cancel(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Stop a session and its running steps; what is done stays."""
    _act(invocation, session_id, as_json, lambda session: session.cancel())


def _act(invocation: Invocation, session_id: str, as_json: bool, act: Callable[[Any], Any]) -> None:
    with invocation.session(session_id) as (_, session):
        act(session)
        view = session.to_dict()
    if as_json:
        document(view)
        return
    running = sum(step["status"] == "running" for step in view["steps"])
    print(f"{view['id']}  {view['status']}" + (f", {running} steps are finishing" if running else ""))


@sessions.command()
@session_argument
@json_option
@quiet_option
@pass_invocation
@click.pass_context
def resume(ctx: click.Context, invocation: Invocation, session_id: str, as_json: bool, quiet: bool) -> None:
    """Go on with a session that was paused, or that a crash left. What is done is not done again.

    Without a broker its steps run in this process, to its end; else on the workers.
    """
    _go_on(ctx, invocation, session_id, Manner(as_json=as_json, quiet=quiet), lambda session: session.resume())


@sessions.command()
@session_argument
@json_option
@quiet_option
@pass_invocation
@click.pass_context
def retry(ctx: click.Context, invocation: Invocation, session_id: str, as_json: bool, quiet: bool) -> None:
    """Run a session's failed, dead and cancelled steps again, and those that were skipped because of them.

    Without a broker its steps run in this process, to its end; else on the workers.
    """
    _go_on(ctx, invocation, session_id, Manner(as_json=as_json, quiet=quiet), lambda session: session.retry())


def _go_on(
    ctx: click.Context, invocation: Invocation, session_id: str, manner: Manner, act: Callable[[Any], Any]
) -> None:
    with invocation.session(session_id) as (c, session):
        if c.broker:
            reach_broker(c)
            act(session)
            if manner.as_json:
                document(session.to_dict())
            else:
                print(f"{session.id}  {session.status}; to follow it:  celeriac sessions watch {session.id[:SHORT_ID]}")
            return
        with Interrupts() as interrupts:
            act(session)
            code = finish(c, session, manner, interrupts)
    ctx.exit(code)


@sessions.command()
@click.argument("session_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--recursive", is_flag=True, help="With all their branches.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def delete(invocation: Invocation, session_ids: tuple[str, ...], recursive: bool, yes: bool, as_json: bool) -> None:
    """Delete sessions with all that belongs to them, for good. An active one is refused, as is one with branches."""
    with invocation.celeriac() as c:
        found = [c.sessions.get(one) for one in session_ids]
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("there is no terminal to ask on; pass --yes to delete")
            for session in found:
                say(f"{session.id}  {session.status}  {clean(session.query, 60)}")
            if not click.confirm(f"Delete {len(found)} session{'s' if len(found) > 1 else ''}?", err=True):
                raise click.exceptions.Exit(1)
        for session in found:
            c.sessions.delete(session.id, recursive)
    if as_json:
        document({"deleted": [session.id for session in found]})
    else:
        for session in found:
            print(f"{session.id}  deleted")


@sessions.command()
@session_argument
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--history", is_flag=True, help="Only what was said in it, an entry a line.")
@json_option
@pass_invocation
def export(invocation: Invocation, session_id: str, file: Path | None, history: bool, as_json: bool) -> None:
    """Write a session as JSON lines to a FILE, or to standard output.

    Each line is an object whose `record` says what it is: session, step, result, finding, conflict, partial, entry,
    event.
    """
    write_out(invocation, session_id, file, history, as_json)


def write_out(invocation: Invocation, session_id: str, file: Path | None, history: bool, as_json: bool) -> None:
    """Export a session, or only its history."""
    from .exporting import write_file, write_lines

    with invocation.session(session_id) as (_, session):
        if session.status == "archived":
            say(f"most of it is in its archive: celeriac archive show {session.id}")
        if file is None or str(file) == "-":
            write_lines(session, sys.stdout, history)
            return
        counts = write_file(session, file, history)
    if as_json:
        document({"file": str(file), "records": counts})
    else:
        print(f"{file}: " + ", ".join(f"{count} {_many(record, count)}" for record, count in counts.items()))


def _many(record: str, count: int) -> str:
    if count == 1:
        return record
    return "entries" if record == "entry" else f"{record}s"
