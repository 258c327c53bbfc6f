"""`celeriac research`: a question over folders of documents, or a licence review, as a durable session."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .following import Interrupts, Manner, finish
from .invocation import Invocation, pass_invocation, reach_broker
from .printing import json_option, told

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..tasks.app import Celeriac

LICENCE_QUESTION = (
    "Which licence does each installed package carry, what does it ask for, and where do its papers disagree?"
)


class BadInput(click.UsageError):
    """What was typed cannot be done: one line, exit code 2."""

    def show(self, file: Any = None) -> None:
        click.echo(f"celeriac: {told(self.format_message())}", err=True)


def session_options(command: Any) -> Any:
    """The options of all commands that start a session."""
    for option in (
        click.option("--tag", "tags", multiple=True, metavar="WORD", help="Tag the session; may be given again."),
        click.option("--key", metavar="TEXT", help="Idempotency key: the same key gives the same session."),
        click.option("--user", default="", metavar="NAME", help="Whom the session belongs to."),
    ):
        command = option(command)
    return command


quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
licences_option = click.option(
    "--licences",
    is_flag=True,
    help="Review the licences of the packages installed in the folders (default, if no question is given: those of "
    "this Python).",
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the report (default: ./reports/<question>-<date>).",
)
model_option = click.option(
    "--model",
    metavar="NAME",
    help="Language model as pydantic-ai names it, for this job (default: the setting `model`).",
)


@click.command()
@click.argument("question", required=False)
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
@licences_option
@out_option
@model_option
@session_options
@json_option
@quiet_option
@pass_invocation
@click.pass_context
def research(
    ctx: click.Context,
    invocation: Invocation,
    question: str | None,
    folders: tuple[str, ...],
    licences: bool,
    out: Path | None,
    model: str | None,
    user: str,
    key: str | None,
    tags: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Answer a QUESTION from the documents in FOLDERs with a cited report.

    Without a question: review the licences of the packages installed for this Python. The job is a session: every
    step's result is kept. Ctrl-C pauses it, and `celeriac sessions resume` goes on. With a broker configured its steps
    run on the workers, else in this process.
    """
    order = research_order(question, folders, licences)
    with invocation.celeriac() as c, Interrupts() as interrupts:
        reach_broker(c)
        session = start_research(c, order, out, model=model, user=user, key=key, tags=tags)
        code = finish(c, session, Manner(as_json=as_json, quiet=quiet), interrupts)
        if quiet and not as_json and code == 0:
            _print_paths(session)
    ctx.exit(code)


def research_order(question: str | None, folders: tuple[str, ...], licences: bool) -> tuple[str, str, list[str]]:
    """(kind, question, absolute folders) of what was typed. Raises BadInput."""
    if licences or question is None:
        named = [*([question] if question else []), *folders]
        return "licences", LICENCE_QUESTION, _checked(named)
    if not question.strip():
        raise BadInput("the question is empty")
    if not folders:
        if os.path.exists(question):
            raise BadInput(f'{question!r} is a folder; put the question first: celeriac research "question" {question}')
        raise BadInput(f'name the folders to read: celeriac research "{question}" FOLDER...')
    return "documents", question, _checked(list(folders))


def _checked(folders: list[str]) -> list[str]:
    for folder in folders:
        if not os.path.exists(folder):
            raise BadInput(f"folder {folder!r} does not exist")
        if not os.access(folder, os.R_OK):
            raise BadInput(f"folder {folder!r} may not be read by this user")
    return [os.path.abspath(folder) for folder in folders]


def start_research(
    c: Celeriac, order: tuple[str, str, list[str]], out: Path | None, *, key: str | None, **more: Any
) -> Session:
    """Start the job that was typed; its report goes to `out`, or to a folder of its own in ./reports."""
    kind, question, folders = order
    where = out.absolute() if out else report_folder("licences" if kind == "licences" else question, key)
    if where.exists() and not os.access(where, os.W_OK):
        raise BadInput(f"folder {str(where)!r} may not be written to by this user")
    return c.research(question, folders, kind=kind, out=str(where), key=key, **more)


def report_folder(question: str, key: str | None) -> Path:
    """A folder in ./reports named after the question: with a key always the same, else one that is not there yet."""
    if key is not None:
        return Path("reports", f"{slug(question)}-{slug(key)}").absolute()
    first = Path("reports", f"{slug(question)}-{date.today().isoformat()}").absolute()
    return next(p for p in (first, *(first.with_name(f"{first.name}-{n}") for n in range(2, 10_000))) if not p.exists())


def slug(text: str) -> str:
    """A text as a file's name: lower case, its first words joined by `-`, about 40 characters."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    return (words if len(words) <= 40 else words[:41].rpartition("-")[0] or words[:40]) or "report"


def _print_paths(session: Session) -> None:
    from .summary import report_of

    for path in report_of(session, session.result)[1].values():
        click.echo(path)
