"""`celeriac sessions fork`: a new session that takes over what is still right of another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .following import Interrupts, Manner, finish
from .invocation import Invocation, pass_invocation, reach_broker
from .printing import SHORT_ID, document, json_option, say
from .research import BadInput, quiet_option


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--from-step", "from_steps", multiple=True, metavar="S", help="Run this step, and all after it, anew.")
@click.option("--checkpoint", metavar="C", help="Take over results and state as of this checkpoint.")
@click.option("--set", "settings", multiple=True, metavar="STEP.KEY=JSON", help="Set a key of a step's request.")
@click.option("--query", metavar="TEXT", help="What ${query} stands for.")
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help="Another plan.")
@click.option(
    "--permission", "permissions", multiple=True, metavar="NAME", help="A permission, in place of those held."
)
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key is the same session.")
@click.option("--wait/--no-wait", default=None, help="Follow it to its end (without a broker: it is run here).")
@json_option
@quiet_option
@pass_invocation
@click.pass_context
def fork(
    ctx: click.Context,
    invocation: Invocation,
    session_id: str,
    from_steps: tuple[str, ...],
    checkpoint: str | None,
    settings: tuple[str, ...],
    query: str | None,
    plan: Path | None,
    permissions: tuple[str, ...],
    key: str | None,
    wait: bool | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Start a new session that takes over what is still right of session ID, and runs the rest.

    A step is not run if its agent, the version of that, its request and its permissions are what they were. Without a
    broker it is run in this process, to its end; else on the workers.
    """
    inputs = _inputs(settings)
    with invocation.session(session_id) as (c, session), Interrupts() as interrupts:
        reach_broker(c)
        given: dict[str, Any] = {"key": key} if key is not None else {}
        made = session.fork(
            list(from_steps) or None,
            checkpoint=checkpoint,
            inputs=inputs,
            plan=_plan(plan),
            permissions=permissions or None,
            query=query,
            **given,
        )
        follows = not c.broker if wait is None else wait
        if follows:
            code = finish(c, made, Manner(as_json=as_json, quiet=quiet), interrupts)
        elif as_json:
            code = 0
            document(made.to_dict())
        else:
            code = 0
            reused = sum(one["cached"] for one in made.steps())
            click.echo(made.id)
            say(f"{reused} steps taken over; to follow it:  celeriac sessions watch {made.id[:SHORT_ID]}")
    ctx.exit(code)


def _plan(file: Path | None) -> Any:
    from ..orchestration.plans import Plan

    return None if file is None else Plan.from_file(file)


def _inputs(settings: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in settings:
        place, equals, text = one.partition("=")
        step, dot, key = place.partition(".")
        if not (equals and dot and step and key):
            raise BadInput(f"--set {one!r:.100} is not STEP.KEY=JSON, such as read.path='\"b.txt\"'")
        try:
            found.setdefault(step, {})[key] = json.loads(text)
        except ValueError:
            raise BadInput(f"--set {one!r:.100}: what follows the = is not JSON; text is written in quotes") from None
    return found
