"""`celeriac retention`: letting go what the settings do not keep."""

from __future__ import annotations

import click

from .invocation import Invocation, pass_invocation
from .printing import counted, document, json_option, lasting, say, sized, table, tell_room


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, delete nothing.")
@click.option("--all", "everything", is_flag=True, help="Show also the kinds of which nothing goes.")
@json_option
@pass_invocation
def retention(invocation: Invocation, dry_run: bool, everything: bool, as_json: bool) -> None:
    """Let go what the settings `retention_...` do not keep, of all tenants, and give the room back to the disk.

    Workers may be at work: it is done in short transactions.
    """
    with invocation.celeriac() as c:
        found = c.retention.run(dry_run=dry_run)
    if as_json:
        document(found.to_dict())
        return
    rows = [
        (name, f"{one.count:,}", sized(one.bytes), one.rule)
        for name, one in found.kinds.items()
        if one.count or everything
    ]
    if rows:
        table(("what", "how many", "size", "rule"), rows, right=("how many", "size"))
    done = "would go" if dry_run else "gone"
    print(f"{counted(found.count, 'thing')} of {sized(found.bytes)} {done}, in {lasting(found.seconds)}")
    tell_room(*found.file_bytes)
    for note in found.notes:
        say(f"celeriac: {note}")
