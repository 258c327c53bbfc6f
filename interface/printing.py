"""How commands print: tables and text for people, JSON for programs, messages on standard error."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Columns of output that does not go to a terminal.
PLAIN_WIDTH = 100
#: Characters of a session's id that tell it from others: all of its time, to the millisecond.
SHORT_ID = 13

STYLES = {
    "active": "cyan",
    "completed": "green",
    "paused": "yellow",
    "failed": "bold red",
    "cancelled": "magenta",
    "archived": "dim",
    "blocked": "dim",
    "ready": "",
    "running": "cyan",
    "waiting": "cyan",
    "done": "green",
    "dead": "bold red",
    "skipped": "dim",
    "ok": "green",
    "warn": "yellow",
    "broken": "bold red",
    "info": "",
    "high": "red",
    "medium": "yellow",
    "low": "dim",
}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def console(stream: TextIO | None = None) -> Console:
    """A console on standard output (or `stream`): as wide as the terminal, 100 columns and without colour elsewhere."""
    from rich.console import Console

    stream = stream or sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream,
        width=None if terminal else PLAIN_WIDTH,
        force_terminal=terminal,
        markup=False,
        highlight=False,
        emoji=False,
    )


def say(text: str) -> None:
    """A message to the user, on standard error."""
    click.echo(text, err=True)


def clean(value: Any, most: int = 0) -> str:
    """Text on one line, without control characters that could steer a terminal, cut to `most` characters."""
    text = " ".join(_CONTROL.sub(" ", str(value)).split())
    return f"{text[: most - 1].rstrip()}…" if most and len(text) > most else text


def told(error: str) -> str:
    """An error as it is told: on one line, and no longer than a person reads."""
    return clean(error, 2000)


def plain(text: str) -> str:
    """Text as it is, without control characters other than line ends and tabs."""
    return _CONTROL.sub(" ", text)


def clean_lines(text: str) -> str:
    """Text without control characters; its lines and their indents are kept."""
    return "\n".join(_CONTROL.sub(" ", part) for part in text.splitlines())


def document(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, ensure_ascii=_only_ascii(), indent=2))


def line(value: Any) -> None:
    """One JSON line on standard output."""
    click.echo(json.dumps(value, ensure_ascii=_only_ascii()))


def _only_ascii() -> bool:
    return "utf" not in (getattr(sys.stdout, "encoding", None) or "ascii").lower()


#: Columns up to this width, such as ids and times, are never cut; the wide ones make room.
NARROW = 36


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = (), fold: Sequence[str] = ()
) -> None:
    """A table on standard output. Columns in `right` are aligned right, those in `fold` wrap, others are cut."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        folds = column in fold
        longest = max((len(str(row[place])) for row in rows if row[place] is not None), default=0)
        shown.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
            min_width=None if folds else min(max(longest, len(column)), NARROW),
        )
    for row in rows:
        shown.add_row(*(Text(text := clean("" if cell is None else cell), style=STYLES.get(text, "")) for cell in row))
    _print(shown)


def pairs(rows: Sequence[tuple[str, Any]]) -> None:
    """Names and values below each other, on standard output. Words are kept whole, so that a path can be copied."""
    from rich.text import Text

    shown = console()
    wide = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        text = clean_lines(str(value))
        told = [part for line in text.splitlines() for part in _wrapped(line, max(shown.width - wide - 2, 20))]
        for number, part in enumerate(told):
            head = name if number == 0 else ""
            pieces = ((f"{head:<{wide}}  ", "bold"), (part, STYLES.get(text, "")))
            shown.print(Text.assemble(*pieces), soft_wrap=True)


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width or line.startswith(" "):
        return [line]
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def _print(shown: Table) -> None:
    """Without the blanks that fill a table's last column up."""
    out = console()
    with out.capture() as captured:
        out.print(shown)
    click.echo("\n".join(row.rstrip() for row in captured.get().splitlines()), color=out.is_terminal)


def entries(count: int) -> str:
    """`1 entry`, `2,000 entries`."""
    return counted(count, "entry", "entries")


def when(moment: str | None) -> str:
    """A time of the database (ISO 8601, UTC) as local time to the second."""
    if not moment:
        return ""
    from datetime import datetime

    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    """A length of time: `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def sized(count: float) -> str:
    """A number of bytes: `812 B`, `3.4 KB`, `1.2 MB`."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: `1 backup`, `2,400 messages`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def tell_room(before: int, after: int) -> None:
    """Say how large the database's file is, if that is another size than before."""
    if before != after:
        print(f"the file of the database has {sized(after)}, and had {sized(before)}")


def pretty(value: Any, most: int) -> str | None:
    """A JSON value as indented text, or None if it has over `most` characters."""
    text = json.dumps(value, ensure_ascii=_only_ascii(), indent=2)
    return text if len(text) <= most else None
