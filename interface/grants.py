"""`celeriac grants`: give grants, take them back, list them, and what was refused."""

from __future__ import annotations

from typing import Any

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, document, json_option, table, when

principal_argument = click.argument("principal", metavar="PRINCIPAL")
right_argument = click.argument("right", type=click.Choice(["read", "write", "admin"]))
resource_argument = click.argument("resource", metavar="RESOURCE")


@click.group()
def grants() -> None:
    """Who may do what, where the setting `access` is on.

    A RESOURCE is session:ID, sessions (starting them), cache, a scope of state (global, agent:ID, workflow:ID,
    step:WORKFLOW/STEP, custom:NAME) or * for everything; in names a * stands for any characters. Whose session it is
    may do everything with it.
    """


@grants.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the grants that you hold, and those on what you are admin of."""
    with invocation.celeriac() as c:
        found = list(c.grants.list())
    if as_json:
        document(found)
        return
    rows = [
        (clean(one["principal"]), one["right"], clean(one["resource"]), clean(one["granted_by"]), when(one["at"]))
        for one in found
    ]
    table(("principal", "right", "resource", "granted by", "at"), rows)


@grants.command()
@principal_argument
@right_argument
@resource_argument
@json_option
@pass_invocation
def add(invocation: Invocation, principal: str, right: Any, resource: str, as_json: bool) -> None:
    """Give a PRINCIPAL a right on a RESOURCE. It is in force at once."""
    with invocation.celeriac() as c:
        added = c.grants.add(principal, right, resource)
    _tell({"principal": principal, "right": right, "resource": resource, "added": added}, as_json)


@grants.command()
@principal_argument
@right_argument
@resource_argument
@json_option
@pass_invocation
def remove(invocation: Invocation, principal: str, right: Any, resource: str, as_json: bool) -> None:
    """Take back a grant, as `list` shows it. It is in force at once. Exits 1 if there is no such grant."""
    with invocation.celeriac() as c:
        removed = c.grants.remove(principal, right, resource)
    _tell({"principal": principal, "right": right, "resource": resource, "removed": removed}, as_json)
    if not removed:
        raise click.exceptions.Exit(1)


@grants.command()
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@json_option
@pass_invocation
def refused(invocation: Invocation, limit: int, as_json: bool) -> None:
    """List what was refused of what you are admin of, the latest first."""
    with invocation.celeriac() as c:
        found = list(c.grants.refused(limit))
    if as_json:
        document(found)
        return
    rows = [
        (clean(one["principal"]), one["right"], clean(one["resource"]), one["times"], when(one["last_at"]))
        for one in found
    ]
    table(("principal", "right", "resource", "times", "last"), rows, right=("times",))


@grants.command()
@principal_argument
@json_option
@pass_invocation
def bootstrap(invocation: Invocation, principal: str, as_json: bool) -> None:
    """Make a PRINCIPAL the first admin of the tenant. Refused where there is one already."""
    from ..orchestration.guard.grants import bootstrap as first

    with invocation.celeriac() as c:
        first(c.engine.database, c.settings.tenant, principal)
    _tell({"principal": principal, "right": "admin", "resource": "*", "added": True}, as_json)


def _tell(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        document(done)
        return
    what = next((name for name in ("added", "removed") if done.get(name)), "nothing changed")
    print(f"{what}: {clean(done['principal'])} {done['right']} {clean(done['resource'])}")
