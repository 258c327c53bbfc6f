"""`celeriac state migrate`: bring values of keyed state to another version of their schema, accept that or undo it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, console, document, json_option, lasting, pairs, say, table
from .research import BadInput

if TYPE_CHECKING:
    from ..orchestration.schemas.runs import Report

run_argument = click.argument("run_id", metavar="RUN")


class _Migrate(click.Group):
    """What is no command here is a scope: `migrate agent:analyzer ...` means `migrate run agent:analyzer ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Migrate)
def migrate() -> None:
    """Bring values to another version of their schema: `migrate SCOPE [KEY] --schema NAME`.

    `accept` or `undo` ends a run; until then the old values are kept. `plan` shows the way from version to version.
    """


@migrate.command()
@click.argument("scope", metavar="SCOPE")
@click.argument("key", metavar="[KEY]", default="*")
@click.option("--schema", metavar="NAME", help="The schema. Needed unless SCOPE and KEY are one key that is bound.")
@click.option("--to", metavar="VERSION", help="The version to bring them to (default: the newest).")
@click.option("--through", multiple=True, metavar="VERSION", help="A version to pass, where several ways are possible.")
@click.option("--level", type=click.Choice(["basic", "strict"]), default="basic", show_default=True,
              help="How values are checked before and after.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Count and show samples; change nothing.")
@click.option("--samples", type=click.IntRange(0, 100), default=5, show_default=True, metavar="N",
              help="How many values a dry run shows.")  # fmt: skip
@json_option
@pass_invocation
def run(
    invocation: Invocation,
    scope: str,
    key: str,
    schema: str | None,
    to: str | None,
    through: tuple[str, ...],
    level: str,
    dry_run: bool,
    samples: int,
    as_json: bool,
) -> None:
    """Migrate one key, a scope, or all (SCOPE `all`); a * in SCOPE and KEY stands for any characters.

    The same command again goes on with a run that was stopped. Exits 1 if some value could not be migrated.
    """
    with invocation.celeriac() as c, _bar(as_json) as progress:
        words: dict[str, Any] = {"schema": schema or _bound(c.schemas, scope, key), "to": to, "through": through}
        if dry_run:
            report = c.migrations.dry_run(scope, key, level=level, samples=samples, progress=progress, **words)
        else:
            report = c.migrations.run(scope, key, level=level, progress=progress, **words)
    _show(report, as_json)


def _bound(schemas: Any, scope: str, key: str) -> str:
    found = schemas.bound(scope, key)
    if found is None:
        raise BadInput(f"say --schema NAME: {scope} {key} is no key that a schema is bound to; there are: "
                       f"{', '.join(schemas.names()) or 'none'}")  # fmt: skip
    name: str = found.name
    return name


@migrate.command()
@run_argument
@json_option
@pass_invocation
def resume(invocation: Invocation, run_id: str, as_json: bool) -> None:
    """Go on with a run, or an undo, that was stopped."""
    with invocation.celeriac() as c, _bar(as_json) as progress:
        report = c.migrations.resume(run_id, progress)
    _show(report, as_json)


@migrate.command()
@run_argument
@json_option
@pass_invocation
def undo(invocation: Invocation, run_id: str, as_json: bool) -> None:
    """Put old values back, but for keys that were written since. Exits 1 if there are any."""
    with invocation.celeriac() as c, _bar(as_json) as progress:
        report = c.migrations.undo(run_id, progress)
    _show(report, as_json)


@migrate.command()
@run_argument
@json_option
@pass_invocation
def accept(invocation: Invocation, run_id: str, as_json: bool) -> None:
    """Drop the old values of a run. It cannot be undone any more."""
    with invocation.celeriac() as c:
        report = c.migrations.accept(run_id)
    if as_json:
        document(report.to_dict())
    else:
        print(f"{report.status}: run {report.run}, {report.migrated} values")


@migrate.command()
@json_option
@pass_invocation
def runs(invocation: Invocation, as_json: bool) -> None:
    """List all runs, the newest first."""
    with invocation.celeriac() as c:
        found = c.migrations.list()
    if as_json:
        document([one.to_dict() for one in found])
        return
    columns = ("run", "status", "schema", "to", "scope", "key", "migrated", "failed")
    rows = [(one.run, one.status, one.schema, one.to, one.scope, one.key, one.migrated, one.failed) for one in found]
    table(columns, rows, right=("migrated", "failed"))


@migrate.command()
@click.argument("schema", metavar="NAME")
@click.argument("start", metavar="FROM")
@click.argument("end", metavar="TO")
@click.option("--through", multiple=True, metavar="VERSION", help="A version to pass.")
@json_option
@pass_invocation
def plan(invocation: Invocation, schema: str, start: str, end: str, through: tuple[str, ...], as_json: bool) -> None:
    """Show the way from one version of a schema to another."""
    with invocation.celeriac() as c:
        route = c.schemas.plan(schema, start, end, through)
    if as_json:
        document(route.to_list())
    else:
        print(route)


@contextlib.contextmanager
def _bar(as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, if that is a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda _looked, _total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("keys"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("keys", total=None)
        yield lambda looked, total: bar.update(task, completed=looked, total=total)


def _show(report: Report, as_json: bool) -> None:
    if as_json:
        document(report.to_dict())
    else:
        _tell(report)
    if report.changed_since if report.status == "undone" else report.failed:
        sys.exit(1)


def _tell(report: Report) -> None:
    told: list[tuple[str, Any]] = [("status", report.status + (", gone on with" if report.resumed else ""))]
    if report.run:
        told.append(("run", report.run))
    versions = ", ".join(f"{count} of {version}" for version, count in report.versions.items())
    told += [
        ("schema", f"{report.schema} {report.to}"),
        ("looked at", f"{report.looked} of {report.total} keys in {lasting(report.seconds)}"),
        (
            "would change" if report.dry_run else "migrated",
            f"{report.migrated}" + (f" ({versions})" if versions else ""),
        ),
        ("unchanged", report.unchanged),
        ("failed", report.failed),
    ]
    if report.status == "undone":
        told += [("put back", report.undone), ("changed since", report.changed_since)]
    told += [("way", hop) for hops in report.ways.values() for hop in hops]
    pairs(told)
    if report.samples:
        print()
        rows = [(one["key"], one["from"], one["before"], one["after"]) for one in report.samples]
        table(("key", "from", "before", "after"), rows, fold=("before", "after"))
    for one in report.failures:
        say(f"celeriac: {one['scope']} {clean(one['key'], 80)}: {clean(one['error'], 400)}")
    for one in report.left:
        say(f"celeriac: {one['scope']} {clean(one['key'], 80)} was changed since; it stays as it is")
    if report.status == "done":
        print(f"\nto accept:  celeriac state migrate accept {report.run}")
        print(f"to undo:    celeriac state migrate undo {report.run}")
