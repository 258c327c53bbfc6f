"""`celeriac backup`: make, list, check, restore, carry and delete backups; and `celeriac move`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .invocation import Invocation, pass_invocation
from .printing import counted, document, json_option, pairs, say, sized, table

if TYPE_CHECKING:
    from ..orchestration.backups.backups import Backup, Restored

backup_argument = click.argument("backup_id", metavar="BACKUP")


@click.group()
def backup() -> None:
    """Backups of all there is. BACKUP is an id, the start of one, or `latest`."""


@backup.command()
@click.option("--full", is_flag=True, help="Write everything anew, also what earlier backups have.")
@click.option("--compression", type=click.Choice(["zstd", "gzip", "none"]), default="zstd", show_default=True)
@click.option("--label", default="", metavar="TEXT", help="What it is for.")
@click.option("--keep", is_flag=True, help="Mark it: pruning leaves it alone.")
@json_option
@pass_invocation
def create(invocation: Invocation, full: bool, compression: str, label: str, keep: bool, as_json: bool) -> None:
    """Make a backup, in one snapshot, while work goes on. It is sealed where keys are set."""
    with invocation.celeriac() as c:
        made = c.backups.create(full=full, compression=compression, label=label, mark=keep)
    if as_json:
        document(_view(made))
    else:
        sealed = ", sealed" if made.sealed else ""
        written = f"{sized(made.written)} written, compressed and with blobs ({made.kind}{sealed})"
        print(f"{made.id}  {counted(made.rows, 'row')} of {sized(made.size)}; {written}")


@backup.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the backups, the oldest first."""
    with invocation.celeriac() as c:
        found = c.backups.list()
    if as_json:
        document([_view(one) for one in found])
        return
    for one in found:
        if one.problem:
            say(f"celeriac: {one.problem}")
    rows = [
        (one.id, one.kind, f"{one.rows:,}", sized(one.size), sized(one.written), _notes(one), one.label)
        for one in found
    ]
    heads = ("backup", "kind", "rows", "of", "written", "notes", "label")
    table(heads, rows, right=("rows", "of", "written"), fold=("label",))


@backup.command()
@backup_argument
@json_option
@pass_invocation
@click.pass_context
def verify(ctx: click.Context, invocation: Invocation, backup_id: str, as_json: bool) -> None:
    """Read and check all of a backup (exit code 1 if it is damaged)."""
    with invocation.celeriac() as c:
        found = c.backups.verify(backup_id)
    if as_json:
        document({**asdict(found), "ok": found.ok})
    elif found.ok:
        chain = {"gone": "the one before it was deleted", "first": "the first", "whole": "follows the one before it"}
        print(f"{found.id}  whole: {counted(found.objects, 'object')}, {sized(found.size)}; {chain[found.chain]}")
    else:
        for problem in found.problems:
            say(f"celeriac: {problem}")
    ctx.exit(0 if found.ok else 1)


@backup.command()
@backup_argument
@click.option("--session", "sessions", multiple=True, metavar="ID", help="Restore only this session; may be repeated.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Restore only keyed state of this scope.")
@click.option("--dry-run", is_flag=True, help="Check all of it and count, change nothing.")
@click.option("--force", is_flag=True, help="Also while workers are at work; their steps are taken from them.")
@click.option("--no-safety", is_flag=True, help="Make no backup of what is there before.")
@click.option("--unsealed", is_flag=True, help="Trust a backup that is not sealed though keys are set.")
@json_option
@pass_invocation
def restore(
    invocation: Invocation,
    backup_id: str,
    sessions: tuple[str, ...],
    scopes: tuple[str, ...],
    dry_run: bool,
    force: bool,
    no_safety: bool,
    unsealed: bool,
    as_json: bool,
) -> None:
    """Replace what is there by a backup, all or nothing, after a backup of what is there.

    The database may be of another kind than the one that was backed up. Steps that were running begin anew.
    """
    with invocation.celeriac() as c:
        found = c.backups.restore(
            backup_id,
            sessions=sessions,
            scopes=scopes,
            dry_run=dry_run,
            force=force,
            safety=not no_safety,
            unsealed=unsealed,
        )
    _tell(found, as_json, "would be restored" if dry_run else "restored")
    if found.safety and not as_json:
        print(f"what was there before:  celeriac backup restore {found.safety}")


def _tell(found: Restored, as_json: bool, done: str) -> None:
    if as_json:
        document(asdict(found))
        return
    pairs([(name, counted(count, "row")) for name, count in found.rows.items()])
    whole = [counted(sum(found.rows.values()), "row"), counted(found.blobs, "blob")]
    whole += [counted(found.archives, "archive")] if found.archives else []
    whole += [counted(found.state, "value of state elsewhere", "values of state elsewhere")] if found.state else []
    whole += [counted(found.entries, "entry elsewhere", "entries elsewhere")] if found.entries else []
    print(f"{', '.join(whole)} {done}")


@backup.command()
@backup_argument
@json_option
@pass_invocation
def delete(invocation: Invocation, backup_id: str, as_json: bool) -> None:
    """Delete a backup, and what no other one needs."""
    with invocation.celeriac() as c:
        deleted, freed = c.backups.delete(backup_id)
    if as_json:
        document({"deleted": deleted, "freed": freed})
    else:
        print(f"{deleted} deleted; {sized(freed)} freed")


@backup.command()
@backup_argument
@click.option("--off", is_flag=True, help="Take the mark away.")
@json_option
@pass_invocation
def keep(invocation: Invocation, backup_id: str, off: bool, as_json: bool) -> None:
    """Mark a backup: pruning leaves it alone."""
    with invocation.celeriac() as c:
        marked = c.backups.mark(backup_id, not off)
    if as_json:
        document({"id": marked, "kept": not off})
    else:
        print(f"{marked} {'is no longer marked' if off else 'stays whatever its age'}")


@backup.command()
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, delete nothing.")
@json_option
@pass_invocation
def prune(invocation: Invocation, dry_run: bool, as_json: bool) -> None:
    """Delete the backups that the settings `backups_kept...` do not keep."""
    with invocation.celeriac() as c:
        found = c.backups.prune(dry_run=dry_run)
    if as_json:
        document(asdict(found))
        return
    rows = [(one, "stays", why) for one, why in found.kept.items()] + [(one, "goes", "") for one in found.deleted]
    table(("backup", "", "why"), sorted(rows))
    done = "would be deleted" if dry_run else "deleted"
    gone = f"{counted(len(found.deleted), 'backup')} and {counted(found.objects, 'object')}"
    print(f"{gone} ({sized(found.size)}) {done}")


@backup.command()
@backup_argument
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@pass_invocation
def export(invocation: Invocation, backup_id: str, file: Path, as_json: bool) -> None:
    """Write a backup to one file, to be carried elsewhere."""
    with invocation.celeriac() as c:
        size = c.backups.export(backup_id, file)
    if as_json:
        document({"file": str(file), "bytes": size})
    else:
        print(f"{file}: {sized(size)}")


@backup.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@json_option
@pass_invocation
def import_(invocation: Invocation, file: Path, as_json: bool) -> None:
    """Add a backup from a file that `export` wrote, after all of it has been checked."""
    with invocation.celeriac() as c:
        made = c.backups.take_in(file)
    if as_json:
        document(_view(made))
    else:
        print(made.id)


@click.command()
@click.option("--to", "url", required=True, metavar="URL", help="The empty database, of the same kind or another.")
@json_option
@pass_invocation
def move(invocation: Invocation, url: str, as_json: bool) -> None:
    """Bring everything into another database, through a backup, and compare every table there before it counts.

    Nothing is deleted here. Set database_url to the new one afterwards.
    """
    from ..config.urls import masked

    with invocation.celeriac() as c:
        found = c.backups.move(url)
    _tell(found, as_json, "moved and compared")
    if not as_json:
        print(f"nothing was deleted here; to work there, set database_url = {masked(url)}")


def _view(one: Backup) -> dict[str, Any]:
    return {**asdict(one), "created_at": datetime.fromtimestamp(one.created_at, UTC).isoformat()}


def _notes(one: Backup) -> str:
    marks = (("sealed", one.sealed), ("kept", one.marked), ("unreadable", one.problem is not None))
    return ", ".join(name for name, holds in marks if holds)
