"""`celeriac history import` and `celeriac sessions import`: JSON lines as a session."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .invocation import Invocation, pass_invocation
from .printing import clean, counted, document, json_option, say
from .printing import entries as number_of

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..tasks.app import Celeriac

#: Bad lines that are named for people.
_NAMED = 10


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--session", "session_id", metavar="ID", help="Append to this session (default: to a new one).")
@click.option("--skip-bad", is_flag=True, help="Leave out lines that are no entries.")
@json_option
@pass_invocation
def import_(invocation: Invocation, file: Path, session_id: str | None, skip_bad: bool, as_json: bool) -> None:
    """Append the entries of a FILE of JSON lines (- for standard input) to a session.

    A line is an object with `role` and `content`, or what `history export` or `sessions export` writes. All lines are
    appended, or none if one is no entry. A new session made of what `sessions export` wrote has its query, title, tags,
    preferences ... too; not its steps, results and events, which archives and backups bring back.
    """
    with invocation.celeriac() as c, _file(file) as source:
        named = None if session_id is None else c.sessions.get(session_id)
        session = named or _made(c, source)
        try:
            entries, bad = session.history.import_lines(source, skip_bad)
        except BaseException as fault:
            if named is None:
                session.cancel()
                c.sessions.delete(session.id)
            _tell_bad(fault, source, as_json)
            raise
    if as_json:
        told = [{"line": one.line, "reason": one.reason} for one in bad]
        document({"id": session.id, "entries": entries, "skipped": told})
        return
    for one in bad[:_NAMED]:
        say(f"line {one.line} left out: {clean(one.reason, 300)}")
    if len(bad) > _NAMED:
        say(f"and {len(bad) - _NAMED:,} more (--json names all)")
    print(f"{session.id}  {number_of(entries)}" + (f", {counted(len(bad), 'line')} left out" if bad else ""))


def _made(c: Celeriac, source: Path) -> Session:
    """A new session for what a file holds."""
    from ..orchestration.history.lines import described

    said = described(source, c.settings.max_result_bytes)
    if c.engine.access.on:  # then it is the caller's
        said.pop("user", None)
    return c.sessions.create(**(said or {"title": clean(source.name, 200), "type": "dm"}))


def _tell_bad(fault: BaseException, file: Path, as_json: bool) -> None:
    from ..orchestration.history.lines import BadLines

    if isinstance(fault, BadLines) and as_json:
        document({"file": str(file), "entries": 0, "bad": [{"line": b.line, "reason": b.reason} for b in fault.lines]})


@contextlib.contextmanager
def _file(file: Path) -> Iterator[Path]:
    """The file itself; of standard input and of pipes a copy, because it is read twice."""
    if str(file) != "-" and not file.is_fifo():
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="celeriac-import-") as folder:
        piped = str(file) == "-"
        copy = Path(folder, "standard input" if piped else file.name)
        opened = contextlib.nullcontext(sys.stdin.buffer) if piped else file.open("rb")
        with opened as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy
