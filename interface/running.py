"""`celeriac run`, `celeriac enqueue` and `celeriac worker`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .following import Interrupts, Manner, finish
from .invocation import Invocation, broker_fault, pass_invocation, reach_broker
from .printing import document, json_option, say
from .research import (
    BadInput,
    licences_option,
    model_option,
    out_option,
    quiet_option,
    research_order,
    session_options,
    start_research,
)

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..tasks.app import Celeriac

query_option = click.option("--query", default="", metavar="TEXT", help="What ${query} stands for in the plan.")
permission_option = click.option(
    "--permission",
    "permissions",
    multiple=True,
    metavar="NAME",
    help="A permission that the user holds; may be given again. None given: all that the agents declare.",
)


@click.command()
@click.argument("plan", required=False, type=click.Path(path_type=Path))
@click.option("--template", metavar="NAME", help="Start from a template, which may have the plan.")
@query_option
@permission_option
@session_options
@json_option
@quiet_option
@pass_invocation
@click.pass_context
def run(
    ctx: click.Context,
    invocation: Invocation,
    plan: Path | None,
    template: str | None,
    query: str,
    permissions: tuple[str, ...],
    user: str,
    key: str | None,
    tags: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a PLAN (a YAML or JSON file), or that of a template, and follow it to its end.

    Exit codes: 0 completed, 1 failed, 2 bad input, 3 paused. Ctrl-C pauses the session.
    """
    if plan is None and template is None:
        raise BadInput("name a plan file, or a template with --template")
    with invocation.celeriac() as c, Interrupts() as interrupts:
        reach_broker(c)
        session = _start_plan(c, plan, query, user, key, permissions, tags, template)
        code = finish(c, session, Manner(as_json=as_json, quiet=quiet), interrupts)
    ctx.exit(code)


def _start_plan(
    c: Celeriac,
    file: Path | None,
    query: str,
    user: str,
    key: str | None,
    permissions: tuple[str, ...],
    tags: tuple[str, ...],
    template: str | None = None,
) -> Session:
    from ..orchestration.plans import Plan

    c.prepare()  # the agents first: a plan is checked against them
    plan = None if file is None else Plan.from_file(file)
    held = permissions or None
    return c.sessions.start(plan, query, user=user, key=key, permissions=held, tags=tags, template=template)


@click.command()
@click.argument("plan_or_folders", nargs=-1, metavar="PLAN | [FOLDER]...")
@click.option("--template", metavar="NAME", help="Start from a template, which may have the plan.")
@click.option(
    "--research", "question", metavar="QUESTION", help="Enqueue a research job over the FOLDERs instead of a plan."
)
@licences_option
@out_option
@model_option
@query_option
@permission_option
@session_options
@json_option
@pass_invocation
def enqueue(
    invocation: Invocation,
    plan_or_folders: tuple[str, ...],
    template: str | None,
    question: str | None,
    licences: bool,
    out: Path | None,
    model: str | None,
    query: str,
    permissions: tuple[str, ...],
    user: str,
    key: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start a PLAN, that of a template, or a research job, on the workers; print the session's id and do not wait."""
    job = question is not None or licences
    if job and (query or permissions or template):
        raise BadInput("--query, --permission and --template belong to a plan, not to a research job")
    if not job and (out or model):
        raise BadInput("--out and --model belong to a research job (--research, --licences), not to a plan")
    if not job and len(plan_or_folders) != 1 and (plan_or_folders or template is None):
        raise BadInput(
            "name one plan file, a template with --template, or a research job: celeriac enqueue --research QUESTION "
            "FOLDER..."
        )
    if licences:
        plan_or_folders = (*([question] if question else []), *plan_or_folders)
    order = research_order(None if licences else question, plan_or_folders, licences) if job else None
    with invocation.celeriac() as c:
        if order is not None:
            session = start_research(c, order, out, model=model, user=user, key=key, tags=tags)
        else:
            file = Path(plan_or_folders[0]) if plan_or_folders else None
            session = _start_plan(c, file, query, user, key, permissions, tags, template)
        _print_started(c, session, as_json)


def _print_started(c: Celeriac, session: Session, as_json: bool) -> None:
    if as_json:
        document({"id": session.id, "status": session.status})
    else:
        click.echo(session.id)
    fault = broker_fault(c)
    if fault:
        say(f"{fault}; the session is stored, and starts when the broker is back")
    elif not c.broker:
        from ..storage import workers

        if not c.engine.database.read(workers.slots):
            say("no worker is running; start one with `celeriac worker`")


@click.command()
@click.option("--concurrency", "-c", type=click.IntRange(min=1), help="Steps that run at once (default: the setting).")
@json_option
@pass_invocation
def worker(invocation: Invocation, concurrency: int | None, as_json: bool) -> None:
    """Run workers of this configuration until Ctrl-C or SIGTERM.

    With a broker these are Celery workers; without one, threads of this process serve the sessions of the database.
    """
    overrides = {"concurrency": concurrency} if concurrency else {}
    with invocation.celeriac(**overrides) as c:
        reach_broker(c)
        if as_json:
            document({"database": c.settings.shown()["database_url"] or "sqlite", "broker": c.broker})
        elif not c.broker:
            say(f"serving the sessions of {c.engine.database.shown}; Ctrl-C stops")
        c.serve()
