"""An answer to a message, as it is shown while it comes; an entry of a history."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from .printing import clean, line, plain, say, told

if TYPE_CHECKING:
    from ..orchestration.conversations.sending import MessageResult
    from ..storage.events import Event


class Shown:
    """An answer as it comes: text piece by piece where there is a terminal or JSON is asked for, else at its end."""

    def __init__(self, is_terminal: bool, as_json: bool) -> None:
        self._is_terminal = is_terminal
        self._as_json = as_json
        self._request = 0
        self._text = ""

    def take(self, event: Event) -> None:
        """An event of the message's step or one of its calls."""
        if event.type == "step.partial" and event.step and "/" not in event.step:
            self._piece(event.data)
        elif event.type == "step.done" and event.step and "-tool " in event.step:
            tool = event.step.partition("-tool ")[2]
            if self._as_json:
                line({"event": "tool", "name": tool})
            elif self._is_terminal:
                self._break()
                click.secho(f"· {clean(tool)}", dim=True)

    def _piece(self, data: Any) -> None:
        if not (isinstance(data, dict) and isinstance(data.get("text"), str)):
            return
        if self._as_json:
            line({"event": "text", **data})
            return
        if data.get("request") != self._request or data.get("at") == 0:  # the next request, or this one made anew
            self._break()
            self._request = data.get("request", 0)
        self._text += data["text"]
        if self._is_terminal:
            sys.stdout.write(plain(data["text"]))
            sys.stdout.flush()

    def _break(self) -> None:
        if self._text and self._is_terminal and not self._text.endswith("\n"):
            sys.stdout.write("\n")
        self._text = ""

    def end(self, result: MessageResult) -> None:
        """The message was answered, or was not."""
        if self._as_json:
            names = ("message", "success", "result", "steps", "error")
            line({"event": "answer", **{name: getattr(result, name) for name in names}})
        elif result.success:
            text = result.result if isinstance(result.result, str) else repr(result.result)
            if not self._is_terminal or self._text != text:
                self._break()
                print(plain(text))
            else:
                self._break()
        else:
            self._break()
            say(f"celeriac: {told(result.error or 'no answer')}")
        sys.stdout.flush()


def words_of(entry: dict[str, Any]) -> str:
    """What an entry says; calls of tools by the name of the tool."""
    from ..orchestration.history.entries import text_of

    calls = [
        f"calls {call.get('name')} {json.dumps(call.get('args'), ensure_ascii=False)}"
        for call in entry.get("tool_calls") or ()
    ]
    text = text_of({name: value for name, value in entry.items() if name != "tool_calls"})
    return "\n".join([*([text] if text else []), *calls])
