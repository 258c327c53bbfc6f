"""`celeriac chat`: a conversation in the terminal, or over a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CeleriacError
from .faults import explained
from .following import working
from .invocation import Invocation, pass_invocation, reach_broker
from .printing import clean, json_option, line, plain, say, told
from .printing import entries as number_of
from .research import BadInput, model_option
from .shown import Shown, words_of

if TYPE_CHECKING:
    from ..orchestration.session import Session
    from ..tasks.app import Celeriac

#: Entries that /history shows, and sessions that /sessions shows.
_ENTRIES, _SESSIONS = 20, 20
_TITLE = 60


@click.command()
@click.option("--session", "session_id", metavar="ID", help="Go on with this session (default: a new one).")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True),
    metavar="DIR",
    help="Folder of documents that answers are taken from.",
)
@click.option("--agent", metavar="NAME", help="Who answers (default: the session's agent, or celeriac.chat).")
@click.option("--max-iterations", type=click.IntRange(1, 1000), default=10, show_default=True, metavar="N")
@model_option
@json_option
@pass_invocation
def chat(
    invocation: Invocation,
    session_id: str | None,
    folder: Path | None,
    agent: str | None,
    max_iterations: int,
    model: str | None,
    as_json: bool,
) -> None:
    """Talk to an agent: each line is a message, /help tells the rest.

    The conversation is a session: what is said is kept, and after a crash an answer goes on where it was. Over a pipe
    each line of standard input is a message or a command; exit code 1 if one failed. --json prints one object a line.
    """
    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")  # the terminal shows a conversation, and no advertisement
    with invocation.celeriac() as c, working(c):
        reach_broker(c)
        if agent is not None:
            from ..orchestration.conversations.sending import check_answers

            check_answers(c.engine, agent)
        one = Chat(c, Options(folder, agent, model, max_iterations), as_json)
        if session_id is not None:
            one.take_up(c.sessions.get(session_id))
        lines = _typed(one) if one.is_terminal else (text.rstrip("\n") for text in sys.stdin)
        for text in lines:
            if not one.hear(text.strip()):
                break
    if one.failed and not one.is_terminal:
        raise click.exceptions.Exit(1)


class Options:
    """What was asked for on the command line."""

    def __init__(self, folder: Path | None, agent: str | None, model: str | None, iterations: int) -> None:
        self.folder = None if folder is None else str(folder.resolve())
        self.agent = agent
        self.model = model
        self.iterations = iterations


class Chat:
    """One conversation at a time, begun with its first message."""

    def __init__(self, c: Celeriac, options: Options, as_json: bool) -> None:
        self.c = c
        self.options = options
        self.as_json = as_json
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        self.session: Session | None = None
        self.failed = False
        self.has_advised = False

    def take_up(self, session: Session) -> None:
        """Go on with a session that is there. Raises BadInput for one that has ended."""
        if session.status not in ("active", "paused"):
            raise BadInput(f"session {session.id} is {session.status}; a conversation goes on in one that is active")
        if session.status == "paused":
            raise BadInput(f"session {session.id} is paused; go on with it by: celeriac sessions resume {session.id}")
        if self.options.folder is not None:
            session.change(file_paths=[self.options.folder])
        self.session = session

    def hear(self, text: str) -> bool:
        """Do what a line says; False to end."""
        word, _, rest = text.partition(" ")
        if word in ("/exit", "/quit"):
            return False
        try:
            if text.startswith("/"):
                self._obey(word, rest.strip())
            elif text:
                self._ask(text)
        except KeyboardInterrupt:
            if not self.is_terminal:
                raise
            say("\nthe answer is still being made; /history has it then")
        except (CeleriacError, OSError, click.UsageError) as fault:
            self.failed = True
            reason = told(fault.format_message() if isinstance(fault, click.UsageError) else explained(fault) or "")
            self._tell({"event": "error", "error": reason}, lambda: say(f"celeriac: {reason}"))
        return True

    def _tell(self, event: dict[str, Any], show: Callable[[], None]) -> None:
        if self.as_json:
            line(event)
        else:
            show()
        sys.stdout.flush()

    # -- messages ----------------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        from ..orchestration.conversations.sending import check_message

        check_message(text)
        session = self.session or self._begin(text)
        if not self.has_advised and not (self.is_terminal or self.as_json):
            self.has_advised = True
            for advice in _advice(self) if _folders(self) else ():  # without a folder either, the answer says it
                say(advice)
        answer = Shown(self.is_terminal, self.as_json)
        result = session.send_message(
            text, self.options.iterations, agent=self.options.agent, model=self.options.model, listen=answer.take
        )
        self.failed = self.failed or not result.success
        answer.end(result)

    def _begin(self, text: str) -> Session:
        folders = [self.options.folder] if self.options.folder else []
        more: dict[str, Any] = {"agent": self.options.agent} if self.options.agent else {}
        self.session = self.c.sessions.create(title=clean(text, _TITLE), type="dm", file_paths=folders, **more)
        self._tell({"event": "session", "id": self.session.id}, lambda: None)
        return self.session

    # -- commands ----------------------------------------------------------------------------------------------------

    def _obey(self, word: str, rest: str) -> None:
        if word not in COMMANDS:
            raise BadInput(f"no command {word!r}; there are: {', '.join([*COMMANDS, '/exit'])}")
        COMMANDS[word][1](self, rest)

    def help(self, _: str) -> None:
        """List the commands."""
        rows = [(name, description) for name, (description, _) in COMMANDS.items()] + [("/exit", "leave")]
        self._tell({"event": "help", "commands": dict(rows)}, lambda: _two_columns(rows))

    def history(self, rest: str) -> None:
        """Show what was said last."""
        if rest and not rest.isdecimal():
            raise BadInput(f"/history takes a number of entries, not {rest!r}")
        entries = self.session.history.last(int(rest or _ENTRIES)) if self.session else []

        def show() -> None:
            for entry in entries:
                print(_said(entry))
            if not entries:
                say("nothing was said yet")

        self._tell({"event": "history", "entries": entries}, show)

    def clear(self, _: str) -> None:
        """Delete what was said."""
        count = self._own() if self.session else 0
        if self.session and count:
            if self.is_terminal and not click.confirm(f"Delete {number_of(count)} for good?"):
                return
            count = self.session.history.clear()
        self._tell({"event": "cleared", "deleted": count}, lambda: say(f"{number_of(count)} deleted"))

    def _own(self) -> int:
        """How many entries are the session's own: a branch shares those before."""
        assert self.session is not None
        known = _nodes(self.c.sessions.tree(self.session.id))
        return next(int(one["entries"] - one["at"]) for one in known if one["id"] == self.session.id)

    def sessions(self, _: str) -> None:
        """List conversations that can be gone on with."""
        found = self.c.sessions.list("active", type="dm", order="updated", limit=_SESSIONS)
        views = [one.to_dict(details=False) for one in found]
        rows = [{"id": view["id"], "title": view["title"], "updated_at": view["updated_at"]} for view in views]
        here = self.session.id if self.session else ""

        def show() -> None:
            _two_columns([(f"{'*' if row['id'] == here else ' '} {row['id']}", clean(row["title"])) for row in rows])
            if not rows:
                say("there is none yet")

        self._tell({"event": "sessions", "sessions": rows, "here": here or None}, show)

    def branch(self, rest: str) -> None:
        """Go on in a branch, which begins with what was said so far."""
        if self.session is None:
            raise BadInput("nothing was said yet")
        above = self.session
        self.session = self._switched(above.branch(rest or f"branch {len(above.children()) + 1}"))

    def switch(self, rest: str) -> None:
        """Go on in another session of the tree."""
        if self.session is None:
            raise BadInput("nothing was said yet")
        known = list(_nodes(self.c.sessions.tree(self.session.id)))
        found = [node["id"] for node in known if rest and (node.get("name") == rest or node["id"].startswith(rest))]
        if len(found) != 1:
            names = ", ".join(f"{node.get('name') or 'the first'} ({node['id']})" for node in known)
            raise BadInput(f"/switch takes the name or the id of one session of this tree; there are: {names}")
        self.session = self._switched(self.c.sessions.get(found[0]))

    def _switched(self, session: Session) -> Session:
        assert self.session is not None
        self.c.sessions.switch(self.session.id, session.id)
        count = session.history.count()
        here = {"event": "switched", "id": session.id, "entries": count}
        self._tell(here, lambda: say(f"session {session.id}, with {number_of(count)}"))
        return session

    def export(self, rest: str) -> None:
        """Write what was said to a file of JSON lines."""
        if self.session is None:
            raise BadInput("nothing was said yet")
        file = Path(rest or f"{self.session.id}.jsonl")
        try:
            with file.open("x", encoding="utf-8") as stream:
                count = self.session.history.export_lines(stream)
        except FileExistsError:
            raise BadInput(f"{file} is there already; name another file: /export FILE") from None
        self._tell(
            {"event": "exported", "file": str(file), "entries": count}, lambda: say(f"{file}: {number_of(count)}")
        )


#: Command -> what it does, and how.
COMMANDS: dict[str, tuple[str, Callable[[Chat, str], None]]] = {
    "/help": ("this list", Chat.help),
    "/history": ("what was said last; /history 50 for more", Chat.history),
    "/clear": ("delete what was said", Chat.clear),
    "/branch": ("go on in a branch: /branch NAME", Chat.branch),
    "/switch": ("go on in another session of the tree: /switch NAME or ID", Chat.switch),
    "/sessions": ("conversations that can be gone on with: celeriac chat --session ID", Chat.sessions),
    "/export": ("write what was said to a file of JSON lines: /export FILE", Chat.export),
}


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for below in tree["children"]:
        yield from _nodes(below)


def _said(entry: dict[str, Any]) -> str:
    return plain(f"{entry.get('role') or entry.get('agent')}: {words_of(entry)}")


def _two_columns(rows: list[tuple[str, str]]) -> None:
    wide = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{wide}}  {text}".rstrip())


def _typed(chat: Chat) -> Iterator[str]:
    """Lines as a person types them, with editing, search (Ctrl-R) and completion of commands, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory

    said = chat.session.history.last(100) if chat.session else []
    known = InMemoryHistory([e["content"] for e in said if e.get("role") == "user" and isinstance(e["content"], str)])
    completer = WordCompleter([*COMMANDS, "/exit"], sentence=True)
    prompt: PromptSession[str] = PromptSession(history=known, completer=completer, complete_while_typing=False)
    say(_greeting(chat))
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:
            continue  # the line is dropped
        except EOFError:
            return


def _greeting(chat: Chat) -> str:
    model = chat.options.model or chat.c.settings.model
    what = [*([f"model {model}"] if model else []), *(f"folder {folder}" for folder in _folders(chat))]
    return "\n".join([f"celeriac chat: {', '.join([*what, '/help tells the commands'])}", *_advice(chat)])


def _folders(chat: Chat) -> list[str]:
    """The folders that answers are taken from."""
    if chat.session is None:
        return [chat.options.folder] if chat.options.folder else []
    with contextlib.suppress(CeleriacError):
        found: list[str] = chat.session.to_dict(details=False)["file_paths"]
        return found
    return []


def _advice(chat: Chat) -> list[str]:
    """How to set a model, where there is none."""
    from ..orchestration.conversations.chat import NO_MODEL, NOTHING

    if chat.options.model or chat.c.settings.model or chat.options.agent or _has_agent(chat):
        return []
    return [NO_MODEL if _folders(chat) else NOTHING]


def _has_agent(chat: Chat) -> bool:
    """Whether the session's own agent answers, which may have a model."""
    if chat.session is None:
        return False
    from ..orchestration.conversations.registering import CHAT

    return chat.session.to_dict(details=False)["agent"] not in ("", CHAT)
