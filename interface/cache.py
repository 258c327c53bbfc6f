"""`celeriac cache`: what the cache of results holds and is good for, and taking results out of it."""

from __future__ import annotations

from typing import Any

import click

from .invocation import Invocation, pass_invocation
from .printing import document, json_option, lasting, pairs, sized, table


@click.group()
def cache() -> None:
    """Results of agents that are shared by equal requests."""


@cache.command()
@json_option
@pass_invocation
def stats(invocation: Invocation, as_json: bool) -> None:
    """Show how many results are cached, how often they were found, and what that saved."""
    with invocation.celeriac() as c:
        found = {**c.cache.stats(), "sessions": c.sessions.cache_stats()}
    if as_json:
        document(found)
        return
    levels, saved, sessions = found["levels"], found["saved"], found["sessions"]
    pairs(
        [
            ("results", f"{found['entries']} of {sized(found['bytes'])}, {sized(found['json_bytes'])} as JSON"),
            ("found", f"{found['hits']} of {found['hits'] + found['misses']} times ({found['hit_rate']:.0%})"),
            ("in the process", f"{levels['process']['hits']} ({levels['process']['hit_rate']:.0%})"),
            ("shared", f"{levels['shared']['hits']} ({levels['shared']['hit_rate']:.0%} of what was left)"),
            ("each used", f"{found['average_accesses']:g} times"),
            ("saved", savings(saved)),
            ("gone", _named(found, "evicted", "expired", "pruned", "invalidated")),
            ("steps", _named(found, "waited", "refreshed", "refused")),
            ("sessions", f"at most {sessions['most_entries']} at hand in each process"),
        ]
    )
    if found["agents"]:
        print()
        rows = [(a, one["entries"], sized(one["bytes"]), one["accesses"]) for a, one in found["agents"].items()]
        table(("agent", "results", "size", "used"), rows, right=("results", "size", "used"))


def savings(saved: dict[str, Any]) -> str:
    """What the cache has saved, in words: runs, time, and cost where agents told theirs."""
    runs = "1 run" if saved["runs"] == 1 else f"{saved['runs']} runs"
    cost = f", cost {saved['cost']:g}" if saved["cost"] else ""
    return f"{runs}, {lasting(saved['seconds'])}{cost}"


def _named(found: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{found[name]} {name}" for name in names)


@cache.command()
@click.option("--key", metavar="HASH", help="The result of this key, as the event step.done shows it.")
@click.option("--agent", metavar="NAME", help="All results of this agent.")
@click.option("--content-hash", metavar="HASH", help="All results of this content.")
@click.option("--tag", metavar="WORD", help="All results with this tag.")
@click.option("--everything", is_flag=True, help="All results.")
@json_option
@pass_invocation
def invalidate(
    invocation: Invocation,
    key: str | None,
    agent: str | None,
    content_hash: str | None,
    tag: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Let no process serve these results any more. Exactly one option is given."""
    with invocation.celeriac() as c:
        count = c.cache.invalidate(key=key, agent=agent, content_hash=content_hash, tag=tag, everything=everything)
    _tell(count, "invalidated", as_json)


@cache.command()
@click.option("--expired", is_flag=True, help="Results that are too old to be served.")
@click.option("--max-bytes", type=click.IntRange(min=0), metavar="BYTES", help="Keep at most so many, compressed.")
@click.option("--max-entries", type=click.IntRange(min=0), metavar="NUMBER", help="Keep at most so many results.")
@click.option("--min-accesses", type=click.IntRange(min=0), metavar="NUMBER", help="Keep those used so often.")
@json_option
@pass_invocation
def prune(
    invocation: Invocation,
    expired: bool,
    max_bytes: int | None,
    max_entries: int | None,
    min_accesses: int | None,
    as_json: bool,
) -> None:
    """Delete results to save room, first those that were not used for longest."""
    limits = (max_bytes, max_entries, min_accesses)
    with invocation.celeriac() as c:
        count = c.cache.cleanup_expired() if expired else 0
        if not expired or any(limit is not None for limit in limits):
            count += c.cache.prune(max_bytes=max_bytes, max_entries=max_entries, min_accesses=min_accesses)
    _tell(count, "pruned", as_json)


def _tell(count: int, what: str, as_json: bool) -> None:
    if as_json:
        document({what: count})
    else:
        print(f"{what}: {count}")
