"""`celeriac checkpoints`: list, look into, compare, restore and make checkpoints of sessions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, document, json_option, pairs, pretty, sized, table, when
from .research import BadInput

if TYPE_CHECKING:
    from ..orchestration.session import Session

checkpoint_argument = click.argument("checkpoint_id", metavar="SESSION:NUMBER")


@click.group()
def checkpoints() -> None:
    """Checkpoints of sessions. Their ids are SESSION:NUMBER; the session's id may be cut short."""


@checkpoints.command("list")
@click.argument("session_id", metavar="SESSION")
@json_option
@pass_invocation
def list_(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """List a session's checkpoints, the oldest first."""
    with invocation.session(session_id) as (_, session):
        found = session.checkpoints()
    if as_json:
        document(found)
        return
    rows = [(one["id"], one["kind"], sized(one["size"]), when(one["created_at"]), one["label"]) for one in found]
    table(("checkpoint", "kind", "size", "created", "label"), rows, right=("size",))


@checkpoints.command()
@checkpoint_argument
@json_option
@pass_invocation
def show(invocation: Invocation, checkpoint_id: str, as_json: bool) -> None:
    """Show what a checkpoint holds: the state of every step and agent, and the session's keyed state."""
    with _found(invocation, checkpoint_id) as (session, number):
        state = session.checkpoint_state(number)
        row = next(one for one in session.checkpoints() if one["number"] == number)
    if as_json:
        document({**row, **state})
        return
    pairs([(name, row[name]) for name in ("id", "kind", "label") if row[name]] + [("created", when(row["created_at"]))])
    print()
    rows = [(name, one["agent"], one["status"], one["attempts"], one["error"]) for name, one in state["steps"].items()]
    table(("step", "agent", "status", "attempts", "error"), rows, right=("attempts",))
    for agent, kept in state["agents"].items():
        pairs([(agent, pretty(kept, 4000) or "large (--json shows it)")])
    if state["state"]:
        print()
        table(("key", "value"), [(key, _value(value)) for key, value in state["state"].items()], fold=("value",))


@checkpoints.command()
@click.argument("first", metavar="SESSION:NUMBER")
@click.argument("second", metavar="NUMBER")
@json_option
@pass_invocation
def diff(invocation: Invocation, first: str, second: str, as_json: bool) -> None:
    """Show what differs between two checkpoints of a session."""
    with _found(invocation, first) as (session, number):
        prefix, _, other = second.rpartition(":")
        if not other.isdecimal() or (prefix and not session.id.startswith(prefix)):
            raise BadInput(f"{second!r} is no checkpoint of session {session.id}")
        found = session.diff(number, int(other))
    if as_json:
        document(found)
    elif found:
        rows = [(one["path"], _value(one["a"]), _value(one["b"])) for one in found]
        table(("what", str(number), other), rows, fold=(str(number), other))
    else:
        print("no difference")


def _value(value: object) -> str:
    return "" if value is None else clean(json.dumps(value), 400)


@checkpoints.command()
@checkpoint_argument
@json_option
@pass_invocation
def restore(invocation: Invocation, checkpoint_id: str, as_json: bool) -> None:
    """Put a session back to a checkpoint, all or nothing; it is paused then. Says which checkpoint undoes this."""
    with _found(invocation, checkpoint_id) as (session, number):
        undo = session.restore(number)
        status = session.status
    if as_json:
        document({"session": session.id, "restored": number, "undo": undo, "status": status})
        return
    print(f"restored; the session is {status}")
    if status == "paused":
        print(f"to go on:  celeriac sessions resume {session.id}")
    print(f"to undo:   celeriac checkpoints restore {undo}")


@checkpoints.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--label", default="", metavar="TEXT", help="What it is for.")
@json_option
@pass_invocation
def create(invocation: Invocation, session_id: str, label: str, as_json: bool) -> None:
    """Write a checkpoint of a session now; it is kept until the session is deleted."""
    with invocation.session(session_id) as (_, session):
        made = session.checkpoint(label)
    if as_json:
        document({"id": made})
    else:
        print(made)


@contextlib.contextmanager
def _found(invocation: Invocation, checkpoint_id: str) -> Iterator[tuple[Session, int]]:
    """The session and the number in a checkpoint's id. Raises BadInput, SessionNotFound."""
    session_id, colon, number = checkpoint_id.rpartition(":")
    if not colon or not number.isdecimal():
        raise BadInput(f"{checkpoint_id!r} is no checkpoint: ids look like SESSION:12; see `celeriac checkpoints list`")
    with invocation.session(session_id) as (_, session):
        yield session, int(number)
