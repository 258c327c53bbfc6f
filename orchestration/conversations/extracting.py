"""Answering a message without a model: with sentences of a folder's documents, found as the research job finds them."""

from __future__ import annotations

import os
from typing import Any, Final

from ...errors import CeleriacError
from ..agents import AgentOutput
from ..context import Context
from ..research import documents
from .chat import NO_MODEL, NOTHING
from .keeping import Keeping

#: Documents that are read for a message.
_DOCUMENTS: Final = 12


async def extracted(text: str, folders: list[str], ctx: Context) -> AgentOutput:
    """The answer of the documents in `folders`, with its sources; a failure says how to name a folder or a model."""
    engine, session_id = ctx.behind
    keeping = Keeping(engine, session_id, ctx, text)
    await keeping.begin()
    await keeping.prompt(NO_MODEL)
    ctx.give_way()

    def look_up() -> dict[str, Any]:
        if not folders:
            return {"error": NOTHING}
        try:
            return {"answer": _found(text, folders, ctx)}
        except CeleriacError as fault:
            ctx.check()
            return {"error": str(fault)}

    found = await ctx.once_told(
        "look up",
        look_up,
        lambda value: keeping.items([{"role": "assistant", "content": value["answer"]}] if "answer" in value else []),
    )
    answer, error = found.get("answer"), found.get("error")
    if answer:
        ctx.partial({"request": 1, "at": 0, "text": answer})
    steps = [{"call": "tool", "name": "look up", "arguments": {"text": text}, **({"error": error} if error else {})}]
    return AgentOutput(data={"success": error is None, "result": answer, "steps": steps, "error": error})


def _found(text: str, folders: list[str], ctx: Context) -> str:
    """What the documents say, in paragraphs that cite, and the sources below."""
    where = {"question": text, "folders": folders, "limit": _DOCUMENTS}
    located = documents.locate(where, ctx).data
    quiet = _Quiet(ctx)
    read = [
        documents.analyze({"question": text, "document": one, "weights": located["weights"]}, quiet).data
        for one in located["documents"]
    ]
    check = documents.crosscheck({"analyses": read}, quiet).data
    report = documents.synthesise({"question": text, "located": located, "check": check}, quiet).data
    sources = [f"[{one['number']}] {_place(one, folders)}" for one in report["sources"]]
    told = "\n\n".join(report["summary"])
    cited = [line for line in sources if line.partition(" ")[0] in told]
    return "\n\n".join([told, *(["\n".join(cited)] if cited else [])])


def _place(source: dict[str, Any], folders: list[str]) -> str:
    path = source["path"]
    inside = min((os.path.relpath(path, f) for f in folders if path.startswith(f)), key=len, default=path)
    lines = f"{source['line_start']}" + (f"-{source['line_end']}" if source["line_end"] > source["line_start"] else "")
    return f"{inside}:{lines}" + (f" (page {source['page']})" if source["page"] else "")


class _Quiet:
    """What agents of the research job are given here: they can be stopped, and tell nobody how far they are."""

    def __init__(self, ctx: Context) -> None:
        self.check = ctx.check

    def progress(self, part: float, task: str = "") -> None:
        """Nothing: the whole look-up is one call."""

    def partial(self, value: Any) -> None:
        """Nothing: the answer is handed out when it stands."""
