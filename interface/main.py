"""The command `celeriac`, and the same group as `celery -A app celeriac`. Commands are imported when they are used."""

from __future__ import annotations

import difflib
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from .faults import explained
from .invocation import Invocation
from .printing import told

#: Command -> module of this package and the name in it.
COMMANDS = {
    "research": "research:research",
    "run": "running:run",
    "enqueue": "running:enqueue",
    "worker": "running:worker",
    "sessions": "sessions:sessions",
    "templates": "templates:templates",
    "checkpoints": "checkpoints:checkpoints",
    "steps": "steps:steps",
    "state": "state:state",
    "cache": "cache:cache",
    "history": "history:history",
    "chat": "chat:chat",
    "keys": "keys:keys",
    "grants": "grants:grants",
    "db": "db:db",
    "backup": "backup:backup",
    "move": "backup:move",
    "archive": "archive:archive",
    "erase": "erase:erase",
    "retention": "retention:retention",
    "prune": "prune:prune",
    "maintenance": "maintenance:maintenance",
    "doctor": "doctor:doctor",
}


class Commands(click.Group):
    """A group that imports a command when it is used, and turns what goes wrong on purpose into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("celeriac: interrupted", err=True)
            raise click.exceptions.Exit(130) from None
        except Exception as fault:
            _tell(fault, debug=bool(ctx.params.get("debug")))
            raise click.exceptions.Exit(2) from None


def _tell(fault: Exception, debug: bool) -> None:
    if debug:
        traceback.print_exc()
        return
    text = explained(fault)
    if text is None:
        text = f"unexpected {type(fault).__name__}: {fault}".splitlines()[0]
        text += " (run with --debug for the traceback: celeriac --debug ...)"
    click.echo(f"celeriac: {told(_without_secrets(text))}", err=True)


def _without_secrets(text: str) -> str:
    from ..orchestration.guard import Policy

    return Policy.load("").text(text)


@click.group(cls=Commands, name="celeriac", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings file (default: the one that CELERIAC_CONFIG names, else celeriac.toml in the working folder).",
)
@click.option("--as", "principal", metavar="PRINCIPAL", help="Act as this principal (default: the setting).")
@click.option("--tenant", metavar="TENANT", help="Work in this tenant (default: the setting).")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="celeriac", message="celeriac %(version)s")
@click.pass_context
def celeriac(ctx: click.Context, config: Path | None, principal: str | None, tenant: str | None, debug: bool) -> None:
    """Durable sessions for multi-agent workflows on Celery.

    Exit codes: 0 done, 1 failed or something is broken, 2 bad input or a service that cannot be reached, 3 paused, 130
    interrupted.
    """
    outer = ctx.parent
    app = getattr(outer.obj, "app", None) if outer is not None and outer.params.get("app") else None
    ctx.obj = Invocation(config=config, app=app, principal=principal, tenant=tenant)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    celeriac(prog_name="celeriac")
