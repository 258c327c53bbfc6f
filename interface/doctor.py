"""`celeriac doctor`: what this installation runs on, what is set, what answers, and what is wrong with it."""

from __future__ import annotations

import os
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .invocation import Invocation, pass_invocation
from .printing import console, document, json_option, table

if TYPE_CHECKING:
    from ..config import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found. `status` is ok, info, warn or broken; `advice` says what to do about it."""

    check: str
    status: str
    found: str
    advice: str = ""


@click.command()
@json_option
@pass_invocation
@click.pass_context
def doctor(ctx: click.Context, invocation: Invocation, as_json: bool) -> None:
    """Check versions with known faults, settings and where they come from, connections, and the disk.

    Exit code 1 if something is broken.
    """
    from . import probes

    settings = invocation.settings()
    findings = [*probes.versions(settings), *probes.connections(settings, invocation.app)]
    findings += [*probes.guard(settings), probes.disk(settings)]
    origins = origins_of(settings, invocation.config)
    if as_json:
        shown = settings.shown()
        values = {name: {"value": shown[name], "from": origin} for name, origin in origins.items()}
        document({"checks": [asdict(one) for one in findings], "settings": values})
    else:
        _print(findings, settings, origins)
    ctx.exit(1 if any(one.status == "broken" for one in findings) else 0)


def _print(findings: list[Finding], settings: Settings, origins: dict[str, str]) -> None:
    rows = [(one.check, one.status, f"{one.found}: {one.advice}" if one.advice else one.found) for one in findings]
    table(("check", "status", "found"), rows, fold=("found",))
    print()
    shown = settings.shown()
    table(
        ("setting", "value", "from"),
        [(name, shown[name] or "(empty)", o) for name, o in origins.items()],
        fold=("value",),
    )
    broken = sum(one.status == "broken" for one in findings)
    warned = sum(one.status == "warn" for one in findings)
    console().print(f"\n{broken} broken, {warned} to be looked at, {len(findings)} checks")


def origins_of(settings: Settings, config: Path | None) -> dict[str, str]:
    """Where each setting's value comes from: an environment variable, a file, or `default`."""
    named = config or os.environ.get("CELERIAC_CONFIG")
    file = Path(named or "celeriac.toml").expanduser()
    in_file = set(tomllib.loads(file.read_text(encoding="utf-8"))) if named or file.exists() else set()
    origins = {}
    for name in type(settings).model_fields:
        variable = f"CELERIAC_{name.upper()}"
        origins[name] = variable if variable in os.environ else str(file) if name in in_file else "default"
    return origins
