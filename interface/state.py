"""`celeriac state`: look at keyed state, and change it."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .invocation import Invocation, pass_invocation
from .migrating import migrate
from .printing import clean, document, json_option, pretty, say
from .research import BadInput

#: As `config.settings.STATE_CLASSES` has them; importing that costs more than `--help` should.
STATE_CLASSES = ("ephemeral", "trusted", "standard", "sensitive", "external")
#: Keys that are listed at once.
MOST_KEYS = 1000
#: A value of more characters than this is cut for people.
MOST_CHARACTERS = 1_000_000

scope_argument = click.argument("scope", metavar="SCOPE")
key_argument = click.argument("key", metavar="KEY")


@click.group()
def state() -> None:
    """Look at keyed state, and change it.

    A SCOPE is global, agent:ID, workflow:ID, step:WORKFLOW/STEP, session:ID or custom:NAME.
    """


@state.command()
@scope_argument
@key_argument
@json_option
@pass_invocation
def get(invocation: Invocation, scope: str, key: str, as_json: bool) -> None:
    """Print the value of a KEY; with --json also its version."""
    with invocation.celeriac() as c:
        value, version = c.state.get_versioned(scope, key)
    if not version:
        raise BadInput(f"{clean(scope)} has no key {key!r}; `celeriac state list {clean(scope)}` lists those it has")
    if as_json:
        document({"scope": scope, "key": key, "version": version, "value": value})
        return
    text = pretty(value, MOST_CHARACTERS)
    if text is None:
        raise BadInput(f"the value has over {MOST_CHARACTERS:,} characters; --json prints it")
    click.echo(text)


@state.command("set")
@scope_argument
@key_argument
@click.argument("value", metavar="[VALUE]", required=False)
@click.option("--text", "is_text", is_flag=True, help="VALUE is text as it stands, not JSON.")
@click.option("--class", "state_class", type=click.Choice(STATE_CLASSES), help="State class (default: by the rules).")
@click.option("--ttl", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Gone after so many seconds.")
@click.option(
    "--expect", type=click.IntRange(0), metavar="VERSION", help="Only if this is its version; 0: if it has no value."
)
@json_option
@pass_invocation
def set_(
    invocation: Invocation,
    scope: str,
    key: str,
    value: str | None,
    is_text: bool,
    state_class: Any,
    ttl: float | None,
    expect: int | None,
    as_json: bool,
) -> None:
    """Set a KEY to a VALUE: JSON, from standard input where none is given. Exits 1 if --expect is not met."""
    parsed = _parsed(sys.stdin.read() if value is None else value, is_text)
    with invocation.celeriac() as c:
        if expect is None:
            version = c.state.set(scope, key, parsed, state_class=state_class, ttl=ttl)
        else:
            version = c.state.compare_and_set(scope, key, expect, parsed, state_class=state_class, ttl=ttl)
    if as_json:
        document({"scope": scope, "key": key, "version": version, "written": bool(version)})
    elif version:
        say(f"version {version}")
    else:
        say(f"celeriac: {clean(scope)} {key!r} is not at version {expect}; nothing was written")
    if not version:
        raise click.exceptions.Exit(1)


def _parsed(text: str, is_text: bool) -> Any:
    if is_text:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"VALUE is not JSON ({fault}); text needs quotes, or --text") from None


@state.command()
@scope_argument
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@json_option
@pass_invocation
def delete(invocation: Invocation, scope: str, keys: tuple[str, ...], as_json: bool) -> None:
    """Delete KEYs. One that is not there is no error."""
    with invocation.celeriac() as c:
        deleted = [key for key in dict.fromkeys(keys) if c.state.delete(scope, key)]
    if as_json:
        document({"scope": scope, "deleted": deleted})
    else:
        say(f"{len(deleted)} of {len(set(keys))} deleted")


@state.command("list")
@scope_argument
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that start so.")
@click.option("--after", default="", metavar="KEY", help="Only keys that come after this one, to page on.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=MOST_KEYS, show_default=True)
@click.option("--values", "with_values", is_flag=True, help="Print values too, as JSON.")
@json_option
@pass_invocation
def list_(
    invocation: Invocation, scope: str, prefix: str, after: str, limit: int, with_values: bool, as_json: bool
) -> None:
    """List the keys of a SCOPE in order."""
    with invocation.celeriac() as c:
        keys = c.state.list_keys(scope, prefix, after=after, limit=limit + 1)
        more, keys = len(keys) > limit, keys[:limit]
        values = c.state.get_many(scope, keys) if with_values else {}
    if as_json:
        document([{"key": key, "value": values.get(key)} for key in keys] if with_values else keys)
        return
    for key in keys:
        shown = f"\t{clean(json.dumps(values[key], ensure_ascii=False), 200)}" if key in values else ""
        click.echo(f"{clean(key)}{shown}")
    if more:
        say(f"there are more: --after {keys[-1]!r}")


@state.command()
@scope_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_invocation
def clear(invocation: Invocation, scope: str, yes: bool, as_json: bool) -> None:
    """Delete all keys of a SCOPE."""
    with invocation.celeriac() as c:
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("there is no terminal to ask on; pass --yes to delete all keys")
            if not click.confirm(f"Delete all keys of {clean(scope)}?", err=True):
                raise click.exceptions.Exit(1)
        count = c.state.clear_scope(scope)
    if as_json:
        document({"scope": scope, "deleted": count})
    else:
        say(f"{count} deleted")


state.add_command(migrate)
