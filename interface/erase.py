"""`celeriac erase`: remove all that there is of a user or a session, and the receipts of that."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from .invocation import Invocation, pass_invocation
from .printing import counted, document, json_option, pairs, say, table, when
from .research import BadInput

if TYPE_CHECKING:
    from ..orchestration.erasing.receipts import Receipt


@click.group(invoke_without_command=True)
@click.option("--user", metavar="USER", help="All sessions of this user, and what else is the user's.")
@click.option("--session", metavar="ID", help="This session; the whole id.")
@click.option("--tenant", metavar="TENANT", help="Of this tenant (default: the setting).")
@click.option("--dry-run", is_flag=True, help="Count, and name the backups that hold it; change nothing.")
@click.option("--rewrite-backups", is_flag=True, help="Make backups that hold it anew without it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
@click.pass_context
def erase(
    ctx: click.Context,
    invocation: Invocation,
    user: str | None,
    session: str | None,
    tenant: str | None,
    dry_run: bool,
    rewrite_backups: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove all that there is of a USER, or of a session, from everywhere, and write a receipt.

    Active sessions are cancelled. One that was interrupted is completed by running it again.
    """
    if ctx.invoked_subcommand is not None:
        return
    if not bool(user) ^ bool(session):
        raise BadInput("erase takes exactly one of --user and --session, which is not empty")
    if tenant is not None:
        invocation = dataclasses.replace(invocation, tenant=tenant)
    with invocation.celeriac() as c:
        if not (dry_run or yes):
            if not sys.stdin.isatty():
                raise BadInput("there is no terminal to ask on; pass --yes to erase, or --dry-run")
            _tell(c.erase(user=user, session=session, dry_run=True), False)
            if not click.confirm("Erase this for good?", err=True):
                raise click.exceptions.Exit(1)
        found = c.erase(user=user, session=session, dry_run=dry_run, rewrite_backups=rewrite_backups)
    _tell(found, as_json)


def _tell(found: Receipt, as_json: bool) -> None:
    if as_json:
        document(dataclasses.asdict(found))
        return
    if found.removed:
        pairs([(place, f"{count:,}") for place, count in found.removed.items()])
    else:
        print("nothing is there of it")
    for stay in found.stays:
        until = f"until {when(stay['until'])}: " if stay["until"] else ""
        say(f"stays in {stay['place']} {stay.get('id', '')}".rstrip() + f": {until}{stay['why']}")
    if found.id:
        print(
            f"receipt {found.id}, {found.status}"
            + (f", resumed {counted(found.resumed, 'time')}" if found.resumed else "")
        )


@erase.command()
@json_option
@pass_invocation
def receipts(invocation: Invocation, as_json: bool) -> None:
    """List the receipts, the oldest first: what was erased when and by whom, not of whom."""
    with invocation.celeriac() as c:
        found = c.receipts()
    if as_json:
        document([dataclasses.asdict(one) for one in found])
        return
    rows = [
        (one.id, one.status, one.kind, when(one.started_at), one.by, sum(one.removed.values()), len(one.stays))
        for one in found
    ]
    table(("receipt", "status", "of a", "started", "by", "removed", "stays"), rows, right=("removed", "stays"))
