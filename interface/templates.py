"""`celeriac templates`: what sessions can be started from by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, document, json_option, pairs, say, table, when
from .research import BadInput


@click.group()
def templates() -> None:
    """List, show, save and delete templates: `celeriac run --template NAME` starts a session from one."""


@templates.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List all templates."""
    with invocation.celeriac() as c:
        found = [one.to_dict() for one in c.templates.list()]
    if as_json:
        document(found)
    elif found:
        rows = [(one["name"], _plan(one), ", ".join(one["tags"]), clean(one["description"], 60)) for one in found]
        table(("template", "plan", "tags", "description"), rows)
    else:
        say("no template")


def _plan(one: dict[str, Any]) -> str:
    return f"{one['plan']['name']} ({len(one['plan']['steps'])} steps)" if one["plan"] else ""


@templates.command()
@click.argument("name")
@click.option("--yaml", "as_yaml", is_flag=True, help="As the file that `save --from` reads.")
@json_option
@pass_invocation
def show(invocation: Invocation, name: str, as_yaml: bool, as_json: bool) -> None:
    """Show the template NAME."""
    with invocation.celeriac() as c:
        template = c.templates.get(name)
    found = template.to_dict()
    if as_json:
        document(found)
        return
    if as_yaml:
        click.echo(template.to_yaml(), nl=False)
        return
    rows = [("template", found["name"]), ("description", clean(found["description"])), ("plan", _plan(found))]
    rows += [("tags", ", ".join(found["tags"])), ("saved", when(found["updated_at"]))]
    rows += [(what, json.dumps(found[what], indent=2)) for what in ("preferences", "state") if found[what]]
    pairs([(name, value) for name, value in rows if value])


@templates.command()
@click.argument("name", required=False)
@click.option(
    "--from", "file", type=click.Path(path_type=Path), metavar="FILE", help="A file (YAML or JSON) that has all of it."
)
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help="Its plan (YAML or JSON).")
@click.option("--preferences", metavar="JSON", help="An object.")
@click.option("--state", metavar="JSON", help="What the state of each session begins with: an object of values by key.")
@click.option("--tag", "tags", multiple=True, metavar="WORD", help="A tag; may be given again.")
@click.option("--description", metavar="TEXT")
@json_option
@pass_invocation
def save(
    invocation: Invocation,
    name: str | None,
    file: Path | None,
    plan: Path | None,
    preferences: str | None,
    state: str | None,
    tags: tuple[str, ...],
    description: str | None,
    as_json: bool,
) -> None:
    """Write the template NAME, in the place of the one of that name.

    A FILE has what `show --yaml` prints: description, plan (or the path of a plan's file), preferences, tags, state;
    NAME is else the one that it has, or its own. What options say comes before what it says.
    """
    given: dict[str, Any] = {"preferences": _object("--preferences", preferences), "state": _object("--state", state)}
    if name is None and file is None:
        raise BadInput("name the template, or its file: celeriac templates save --from FILE")
    with invocation.celeriac() as c:
        c.prepare()  # the agents first: a plan is checked against them
        from ..orchestration.plans import Plan
        from ..orchestration.templates import Template

        given |= {"plan": None if plan is None else Plan.from_file(plan), "tags": tags, "description": description}
        template = Template.from_file(file) if file is not None else Template("")
        if name is not None:
            given["name"] = name
        template = replace(template, **{key: value for key, value in given.items() if value not in (None, ())})
        c.templates.save(template)
        found = c.templates.get(template.name).to_dict()
    if as_json:
        document(found)
    else:
        click.echo(f"{template.name}  saved")


def _object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(f"{option} {text!r:.80} is no JSON object")
    return dict(found)


@templates.command()
@click.argument("name")
@json_option
@pass_invocation
def delete(invocation: Invocation, name: str, as_json: bool) -> None:
    """Delete the template NAME; sessions that were started from it stay as they are."""
    with invocation.celeriac() as c:
        c.templates.delete(name)
    if as_json:
        document({"deleted": name})
    else:
        click.echo(f"{name}  deleted")
