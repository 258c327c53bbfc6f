"""What a message and its answer leave in the session's history, written with the calls that tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...storage.histories.protocol import Item
from ..context import Context
from ..engine import Engine
from ..guard.doors import opened, place_of
from ..history.entries import PROMPT, body_of, item_of
from ..history.history import History
from ..history.windows import Window

#: Marks the system prompt that a conversation stored itself, which its agent sends anyway.
OWN = "conversation"


class Keeping:
    """The history of one message while it is answered. Everything goes through durable calls, so that it is written
    once, however often the step runs.
    """

    def __init__(self, engine: Engine, session_id: str, ctx: Context, text: str) -> None:
        self._engine = engine
        self._id = session_id
        self._ctx = ctx
        self._user = {"role": "user", "content": text}
        self._is_new = True
        self.before = 0

    def items(self, entries: Iterable[dict[str, Any] | None]) -> list[Item]:
        """Entries as the place takes them; a None is none."""
        engine, made = self._engine, []
        for entry in entries:
            if entry is not None:
                body, at = body_of(entry)
                made.append(item_of(engine.guard.apply(body, place_of(self._id)), at, engine.settings.max_result_bytes))
        return made

    async def begin(self) -> None:
        """Note where the history ends, and write the user's message to it; a new history gets it with the prompt."""
        place = self._engine.trees.place(self._id)  # a branch goes on from what was said above it

        def stands() -> dict[str, Any]:
            prompt = place.load(self._id, limit=1, newest=True, mark=PROMPT)
            newest = place.load(self._id, limit=1, newest=True)
            return {"entries": newest[-1].number if newest else 0, "prompted": bool(prompt)}

        def told(value: dict[str, Any]) -> list[Item]:
            return self.items([self._user]) if value["prompted"] else []

        stood = await self._ctx.once_told("message", stands, told)
        self.before, self._is_new = stood["entries"], not stood["prompted"]

    async def prompt(self, text: str | None) -> None:
        """Write the system prompt, if the history has none yet, and the user's message behind it."""
        if not self._is_new:
            return
        self._is_new = False
        system = {"role": "system", "content": text, "metadata": {"by": OWN}} if text else None
        await self._ctx.once_told("prompt", lambda: None, lambda _: self.items([system, self._user]))

    def window(self) -> Window:
        """What came before the message, as far as the settings let a model see it."""
        settings, history = self._engine.settings, History(self._engine, self._id, lambda _: None)
        found = history.window(settings.window_entries or None, settings.window_tokens or None, until=self.before)
        return Window(opened(self._engine.guard, list(found), self._id), found.tokens, found.counted_by)
