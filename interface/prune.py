"""`celeriac prune`: letting go sessions and messages by use, age, size and likeness."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, counted, document, json_option, pairs, say, sized, table, tell_room

if TYPE_CHECKING:
    from ..orchestration.keeping.pruning import Pruned

#: So many of what goes are shown to people.
_SHOWN = 20
#: Counts in the order in which they are told; others follow.
_FIRST = ("runs", "sessions", "messages", "tokens", "bytes")
_options = (
    click.option(
        "--strategy",
        required=True,
        type=click.Choice(["lru", "lfu", "ttl", "size", "semantic"]),
        help="lru, lfu: what is used least; ttl: whose time is over; size: the largest; semantic: near-duplicates.",
    ),
    click.option("--keep", type=click.IntRange(0), metavar="NUMBER", help="lru, lfu: leave at most so many."),
    click.option("--max-bytes", type=click.IntRange(0), metavar="BYTES", help="size: leave at most so many bytes."),
    click.option("--ttl", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="ttl: what is older goes."),
    click.option("--similarity", type=click.FloatRange(0, 1, min_open=True), help="semantic: how alike, 0 to 1."),
    click.option("--dry-run", is_flag=True, help="Say what would go, delete nothing."),
)


def limited(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both kinds share."""
    for option in reversed(_options):
        command = option(command)
    return command


@click.group()
def prune() -> None:
    """Let sessions and messages go by use, age, size and likeness; limits not given are those of the settings.

    Pinned sessions, sessions with work to be done and important messages stay.
    """


@prune.command()
@limited
@json_option
@pass_invocation
def sessions(invocation: Invocation, /, as_json: bool, **limits: Any) -> None:
    """Delete sessions with all that belongs to them."""
    with invocation.celeriac() as c:
        found = c.pruning.run(of="sessions", **limits)
    rows = [(one["id"], one["messages"], sized(one["bytes"]), one["why"]) for one in found.sessions]
    _tell(found, as_json, "session", ("session", "messages", "size", "why"), rows)


@prune.command()
@click.option("--session", metavar="ID", help="Only those of this session.")
@limited
@json_option
@pass_invocation
def messages(invocation: Invocation, /, session: str | None, as_json: bool, **limits: Any) -> None:
    """Delete messages of histories."""
    with invocation.celeriac() as c:
        named = None if session is None else c.sessions.get(session).id
        found = c.pruning.run(of="messages", session=named, **limits)
    rows = [(one["session"], one["number"], sized(one["bytes"]), clean(one["why"], 80)) for one in found.messages]
    _tell(found, as_json, "message", ("session", "entry", "size", "why"), rows)


@prune.command()
@json_option
@pass_invocation
def stats(invocation: Invocation, as_json: bool) -> None:
    """Show what pruning and retention have taken away so far."""
    with invocation.celeriac() as c:
        found = c.pruning.stats()
    if as_json:
        document(found)
    elif found:
        pairs([(source, _named(counts)) for source, counts in found.items()])
    else:
        say("nothing was taken away so far")


def _named(counts: dict[str, float]) -> str:
    names = sorted(counts, key=lambda name: (name not in _FIRST, _FIRST.index(name) if name in _FIRST else 0, name))
    return ", ".join(
        sized(counts[name]) if name == "bytes" else counted(round(counts[name]), name.removesuffix("s"))
        for name in names
    )


def _tell(found: Pruned, as_json: bool, thing: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if as_json:
        document(found.to_dict())
        return
    if rows:
        table(heads, rows[:_SHOWN], right=heads[1:3])
    if len(rows) > _SHOWN:
        print(f"... and {len(rows) - _SHOWN:,} more (--json names all)")
    done = "would go" if found.dry_run else "gone"
    what = f"{counted(len(rows), thing)} of {sized(found.bytes)}, {counted(found.tokens, 'token')} ({found.counted_by})"
    print(f"{what}, {done}")
    if found.strategy in ("lru", "lfu"):
        print(f"use is {found.by}")
    tell_room(*found.file_bytes)
    for note in found.notes:
        say(f"celeriac: {note}")
