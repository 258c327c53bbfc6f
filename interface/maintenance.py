"""`celeriac maintenance`: the jobs that run by schedule, how they ran, running one by hand, and statistics."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import document, json_option, lasting, pairs, sized, table, when

if TYPE_CHECKING:
    from ..orchestration.maintenance.maintenance import PastRun

job_argument = click.argument("job", metavar="JOB")
_TIMES = ("at", "scheduled_at", "started_at", "finished_at", "next_run", "last_run")


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def maintenance(ctx: click.Context, as_json: bool) -> None:
    """The jobs that run by schedule (the setting `maintenance`). Without a command: list them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@maintenance.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the jobs: when they run, and how and when they last did."""
    with invocation.celeriac() as c:
        found = c.maintenance.jobs()
    views = [_view(asdict(one)) for one in found]
    if as_json:
        document(views)
        return
    rows = [
        (
            v["name"],
            v["schedule"],
            when(v["next_run"]),
            when(v["last_run"]),
            v["last_outcome"] or "",
            _took(v["seconds"]),
        )
        for v in views
    ]
    table(("job", "schedule (UTC)", "next run", "last run", "outcome", "took"), rows, right=("took",))
    for view in views:
        if view["error"]:
            print(f"{view['name']}: {view['error']}")


@maintenance.command()
@job_argument
@json_option
@pass_invocation
@click.pass_context
def run(ctx: click.Context, invocation: Invocation, job: str, as_json: bool) -> None:
    """Run a JOB now (exit code 1 if it fails). It is refused while somebody is at it."""
    with invocation.celeriac() as c:
        ended = c.maintenance.run(job)
    if as_json:
        document(_view(asdict(ended)))
    else:
        print(f"{ended.job}: {ended.outcome} in {lasting(ended.seconds)}{_told(ended.detail)}")
        if ended.error:
            click.echo(f"celeriac: {ended.error}", err=True)
    ctx.exit(0 if ended.outcome == "done" else 1)


@maintenance.command()
@job_argument
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="NUMBER", help="Newest runs.")
@json_option
@pass_invocation
def history(invocation: Invocation, job: str, last: int, as_json: bool) -> None:
    """Show the runs of a JOB, the newest first."""
    with invocation.celeriac() as c:
        found = c.maintenance.history(job, last)
    if as_json:
        document([{**_view(asdict(one)), "seconds": one.seconds} for one in found])
        return
    rows = [_row(one) for one in found]
    table(("due", "began", "took", "outcome", "by", "who", "what"), rows, right=("took",), fold=("what",))


def _row(one: PastRun) -> tuple[str, ...]:
    due, began = (when(_iso(at)) for at in (one.scheduled_at, one.started_at))
    what = one.error or _told(one.detail).removeprefix(": ")
    return due, began, _took(one.seconds), one.outcome, one.source, one.runner, what


@maintenance.command()
@click.option("--last", type=click.IntRange(1), default=1, show_default=True, metavar="NUMBER", help="Newest rows.")
@json_option
@pass_invocation
def stats(invocation: Invocation, last: int, as_json: bool) -> None:
    """Show the statistics that the job of that name took: counts by status, bytes, rates."""
    with invocation.celeriac() as c:
        found = [_view(one) for one in c.maintenance.stats(last)]
    if as_json:
        document(found)
    elif not found:
        print("none yet; `celeriac maintenance run statistics` takes some")
    elif last == 1:
        _print_figures(found[0])
    else:
        rows = [_figures_row(one) for one in found]
        head = ("at", "sessions", "steps", "database", "recorded", "blobs", "steps/s")
        table(head, rows, right=head[1:])


def _print_figures(one: dict[str, Any]) -> None:
    rates = {name: rate for name, rate in one["per_second"].items() if rate is not None}
    pairs(
        [
            ("at", when(one["at"])),
            ("sessions", _counts(one["sessions"])),
            ("steps", _counts(one["steps"])),
            *((name, f"{count:,} of {sized(one['bytes'][name])}") for name, count in one["entries"].items()),
            ("recorded", sized(one["bytes"]["recorded"])),
            ("database", sized(one["bytes"]["database"])),
            *((f"{name.replace('_', ' ')} a second", f"{rate:g}") for name, rate in rates.items()),
        ]
    )


def _figures_row(one: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{sum(one[name].values()):,}" for name in ("sessions", "steps"))
    sizes = (sized(one["bytes"][name]) for name in ("database", "recorded", "blobs"))
    rate = one["per_second"]["steps_ended"]
    return when(one["at"]), *counts, *sizes, "" if rate is None else f"{rate:g}"


def _counts(by_status: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in by_status.items()) or "none"


def _told(detail: Any) -> str:
    return f": {', '.join(f'{name} {value}' for name, value in detail.items())}" if detail else ""


def _took(seconds: float | None) -> str:
    return "" if seconds is None else lasting(seconds)


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _view(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _iso(value) if name in _TIMES else value for name, value in values.items()}
