"""`celeriac sessions attach|detach|attached`: sessions that another one reads."""

from __future__ import annotations

import click

from .invocation import Invocation, pass_invocation
from .printing import SHORT_ID, clean, document, json_option, table

_session = click.argument("session_id", metavar="ID")
_others = click.argument("others", nargs=-1, required=True, metavar="OTHER...")


@click.command()
@_session
@_others
@json_option
@pass_invocation
def attach(invocation: Invocation, session_id: str, others: tuple[str, ...], as_json: bool) -> None:
    """Let session ID and its agents read the results and history of OTHER sessions."""
    with invocation.session(session_id) as (c, session):
        read = [c.sessions.get(one) for one in others]
        added = [one.id for one in read if session.attach(one)]
        _tell(session.id, "attached", [one.id for one in read], added, as_json)


@click.command()
@_session
@_others
@json_option
@pass_invocation
def detach(invocation: Invocation, session_id: str, others: tuple[str, ...], as_json: bool) -> None:
    """Let session ID read OTHER sessions no longer."""
    with invocation.session(session_id) as (c, session):
        read = [c.sessions.get(one) for one in others]
        gone = [one.id for one in read if session.detach(one)]
        _tell(session.id, "detached", [one.id for one in read], gone, as_json)


def _tell(session_id: str, what: str, asked: list[str], changed: list[str], as_json: bool) -> None:
    if as_json:
        document({"id": session_id, what: changed})
        return
    for one in asked:
        click.echo(f"{one}  {what}" if one in changed else f"{one}  as before")


@click.command()
@_session
@json_option
@pass_invocation
def attached(invocation: Invocation, session_id: str, as_json: bool) -> None:
    """List the sessions that session ID reads."""
    with invocation.session(session_id) as (_, session):
        found = [
            {"id": one.id, "status": one.status, "query": one.query, "title": one.title} for one in session.attached()
        ]
    if as_json:
        document(found)
    elif found:
        table(
            ("session", "status", "query"),
            [(one["id"][:SHORT_ID], one["status"], clean(one["query"] or one["title"], 80)) for one in found],
        )
    else:
        click.echo("no session is attached")


COMMANDS = (attach, detach, attached)
