"""`celeriac sessions tree|branch|switch|merge|conflicts|resolve|compare`: branches of sessions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import SHORT_ID, STYLES, clean, console, counted, document, entries, json_option, pairs, table
from .research import BadInput
from .shown import words_of

if TYPE_CHECKING:
    from rich.tree import Tree

session_argument = click.argument("session_id", metavar="ID")
#: Characters of a value that are shown to people.
_SHOWN = 60
#: Entries that only one of two sessions has, that are shown to people.
_ENTRIES = 10


@click.command()
@session_argument
@json_option
@pass_invocation
def tree(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """Draw the tree that session ID is in: its branches, where they begin, and the current one."""
    with invocation.session(session_id) as (c, session):
        found = c.sessions.tree(session.id)
    if as_json:
        document(found)
    else:
        console().print(_drawn(found, session.id))


def _drawn(node: dict[str, Any], asked: str) -> Tree:
    """The tree of a session, drawn."""
    from rich.text import Text
    from rich.tree import Tree

    drawn = Tree(Text())
    drawn.label = _label(node, asked)
    for child in node["children"]:
        drawn.children.append(_drawn(child, asked))
    return drawn


def _label(node: dict[str, Any], asked: str) -> Any:
    from rich.text import Text

    if "status" not in node:
        return Text.assemble((node["id"][:SHORT_ID], "dim"), ("  (not yours to read)", "dim"))
    name = "(root)" if node["parent"] is None else clean(node["name"], 40)
    said = ""
    if node["entries"] is not None:  # else they are in its archive
        own = node["entries"] - node["at"]
        said = f"  {entries(own)}" if node["parent"] is None else f"  +{entries(own)} from {node['at']:,} on"
    merged = node["merged"] - node["at"] if node["parent"] is not None else 0
    return Text.assemble(
        (node["id"][:SHORT_ID], "bold" if node["id"] == asked else ""),
        "  ",
        (name, "cyan"),
        "  ",
        (str(node["status"]), STYLES.get(str(node["status"]), "")),
        said,
        f", {merged:,} merged" if merged else "",
        ("  * current", "green") if node["current"] else "",
        (f"  {clean(node['description'], 60)}", "dim") if node["description"] else "",
    )


@click.command()
@session_argument
@click.argument("name")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--at", metavar="POINT", help="Number of the last entry that it has, or the id of a checkpoint.")
@click.option("--creator", metavar="NAME", help="Who made it (default: the principal that acts).")
@click.option("--switch", "switches", is_flag=True, help="Make it the current one of its tree.")
@json_option
@pass_invocation
def branch(
    invocation: Invocation,
    session_id: str,
    name: str,
    description: str,
    at: str | None,
    creator: str | None,
    switches: bool,
    as_json: bool,
) -> None:
    """Make a branch NAME of session ID: with its history and state, of which nothing is copied."""
    point: int | str | None = int(at) if at is not None and at.removeprefix("-").isdecimal() else at
    with invocation.session(session_id) as (c, session):
        made = session.branch(name, description, creator, at=point)
        if switches:
            c.sessions.switch(session.id, made.id)
        if as_json:
            document({"id": made.id, "parent": session.id, "name": name, "entries": made.history.count()})
        else:
            click.echo(made.id)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@json_option
@pass_invocation
def switch(invocation: Invocation, source: str, target: str, as_json: bool) -> None:
    """Make session TO the current one of the tree that FROM is in."""
    with invocation.celeriac() as c:
        made = c.sessions.switch(*(c.sessions.get(one).id for one in (source, target)))
    if as_json:
        document({"current": made.id})
    else:
        click.echo(f"{made.id}  current")


@click.command()
@session_argument
@click.argument("branch_id", metavar="BRANCH")
@json_option
@pass_invocation
def merge(invocation: Invocation, session_id: str, branch_id: str, as_json: bool) -> None:
    """Bring what is new in BRANCH into session ID. What both have changed is left as it is in ID, as a conflict.

    Exit codes: 0 done, 1 with conflicts.
    """
    with invocation.celeriac() as c:
        session, other = c.sessions.get(session_id), c.sessions.get(branch_id)
        found = session.merge(other)
        open_ = session.merge_conflicts() if found.conflicts else []
    if as_json:
        document(asdict(found))
    else:
        click.echo(f"{session.id}  {entries(found.entries)} and {counted(len(found.keys), 'key')} brought in")
        _tell(session.id, open_)
    if found.conflicts:
        raise click.exceptions.Exit(1)


def _tell(session_id: str, conflicts: list[dict[str, Any]]) -> None:
    if not conflicts:
        return
    sides = ("base", "ours", "theirs")
    rows = [
        (
            one["id"],
            one["branch"][:SHORT_ID],
            one["key"],
            *(_side(one, side) if side != "ours" or not one["resolved"] else "" for side in sides),
            _settled(one),
        )
        for one in conflicts
    ]
    table(("conflict", "branch", "key", *sides, "resolved"), rows, fold=sides)
    if not all(one["resolved"] for one in conflicts):
        pairs([("resolve", f"celeriac sessions resolve {session_id[:SHORT_ID]} CONFLICT ours|theirs|JSON")])


def _words(entry: dict[str, Any]) -> str:
    return clean(f"{entry.get('role') or entry.get('agent') or 'entry'}: {words_of(entry)}", _SHOWN)


def _settled(one: dict[str, Any]) -> str:
    how = one["resolution"] or {}
    return clean(f"{how.get('choice')}, by {how.get('by')}", 40) if one["resolved"] else ""


def _side(conflict: dict[str, Any], side: str) -> str:
    is_away = side != "ours" and conflict[side] is None and not conflict["readable"]
    return "(with the branch)" if is_away else _short(conflict[side])


def _short(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False), _SHOWN)


@click.command()
@session_argument
@click.option("--all", "whole", is_flag=True, help="Also those that were resolved.")
@json_option
@pass_invocation
def conflicts(invocation: Invocation, session_id: str, whole: bool, as_json: bool) -> None:
    """List what merges into session ID could not settle."""
    with invocation.session(session_id) as (_, session):
        found = session.merge_conflicts(unresolved=not whole)
    if as_json:
        document(found)
    elif found:
        _tell(session.id, found)
    else:
        click.echo("no conflict")


@click.command()
@session_argument
@click.argument("conflict", type=click.IntRange(1))
@click.argument("choice", metavar="ours|theirs|JSON")
@click.option("--by", default="person", show_default=True, metavar="NAME", help="Who resolves it.")
@json_option
@pass_invocation
def resolve(invocation: Invocation, session_id: str, conflict: int, choice: str, by: str, as_json: bool) -> None:
    """Settle CONFLICT of session ID: keep ours, take theirs, or set a value, written as JSON."""
    value: Any = choice
    if choice not in ("ours", "theirs"):
        try:
            value = json.loads(choice)
        except ValueError:
            raise BadInput(f"{choice!r:.60} is neither ours, nor theirs, nor JSON") from None
        if (chosen := value) in ("ours", "theirs"):
            value = lambda *_: chosen  # noqa: E731 - the text itself
    with invocation.session(session_id) as (_, session):
        holds = session.resolve(conflict, value, by=by)
    if as_json:
        document({"conflict": conflict, "value": holds})
    else:
        click.echo(f"conflict {conflict} is resolved: {_short(holds)}")


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@json_option
@pass_invocation
def compare(invocation: Invocation, a: str, b: str, as_json: bool) -> None:
    """Show what sessions A and B differ in: history, state, results."""
    with invocation.celeriac() as c:
        found = c.sessions.compare(*(c.sessions.get(one).id for one in (a, b)))
    if as_json:
        document(found)
        return
    said = found["history"]
    pairs(
        [
            ("common", found["common"] or "none: they are not of one tree"),
            ("entries", f"{said['shared']:,} shared, {len(said['a']):,} only in A, {len(said['b']):,} only in B"),
        ]
    )
    rows = [
        ("history", entry["number"], *((_words(entry), "") if side == "a" else ("", _words(entry))))
        for side in ("a", "b")
        for entry in said[side][:_ENTRIES]
    ]
    rows += [
        (kind, one[name], _short(one["a"]), _short(one["b"]))
        for kind, name in (("state", "key"), ("results", "step"))
        for one in found[kind]
    ]
    if rows:
        table(("differs", "what", "A", "B"), rows, fold=("A", "B"))


COMMANDS = (tree, branch, switch, merge, conflicts, resolve, compare)
