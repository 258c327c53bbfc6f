"""The built-in conversation, `celeriac.chat`: a model with tools that read a folder; without a model, sentences of the
folder's documents. The folder is what the session has as `file_paths`.
"""

from __future__ import annotations

from typing import Any, Final

from ...storage import serial, sessions
from ..agents import AgentOutput, Registry, registry
from ..context import Context
from .registering import CHAT, add, answering

NO_MODEL: Final = (
    "No model is set, so answers are sentences of the documents, word for word. For answers of a model: pip install "
    "'celeriac[llm]', and set `model`, such as CELERIAC_MODEL=openai:gpt-5."
)
NOTHING: Final = (
    "There is no model and no folder to answer from. Name a folder (celeriac chat --folder DIR, or file_paths of the "
    "session), or a model: pip install 'celeriac[llm]' and CELERIAC_MODEL=openai:gpt-5."
)


async def answer(request: dict[str, Any], ctx: Context) -> AgentOutput:
    """Answer a message; see `answering.answered` for request and output."""
    engine, session_id = ctx.behind
    paths = engine.database.read(lambda tx: sessions.document(tx, session_id, "file_paths"))
    folders: list[str] = serial.decode(paths) if paths else []
    model = request.get("model") or engine.settings.model
    if not model:
        from .extracting import extracted

        return await extracted(request["text"], folders, ctx)
    answered = answering()
    from .folder import speaker_for

    return await answered(request, ctx, lambda: speaker_for(folders), True)


def register(to: Registry = registry) -> None:
    """Register the built-in conversation."""
    add(CHAT, answer, answer, to, {"retries": 2, "backoff": 1.0})


register()
