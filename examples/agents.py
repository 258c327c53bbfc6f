"""Three agents that count the words of texts. `plan.yaml` beside this file says who runs when."""

from __future__ import annotations

from collections import Counter
from typing import Any

from celeriac import AgentOutput, Finding, agent

TEXTS = {
    "sonnet": "shall I compare thee to a summer's day thou art more lovely and more temperate",
    "speech": "to be or not to be that is the question",
    "proverb": "all that glisters is not gold",
}


@agent("words.list")
def list_texts(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Say which texts there are. What an agent returns is JSON; other steps refer to it as `${list.texts}`."""
    return {"texts": sorted(TEXTS)[: request.get("most")]}


@agent("words.count", retries=2, timeout=10)
def count(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Count the words of one text. Runs once for each text, on as many workers as there are."""
    ctx.progress(0.5, f"counting {request['text']}")
    words = Counter(TEXTS[request["text"]].split())
    word, times = min(words.items(), key=lambda pair: (-pair[1], pair[0]))
    ctx.partial({request["text"]: sum(words.values())})
    return AgentOutput(
        data={"text": request["text"], "total": sum(words.values()), "most": word},
        findings=[Finding(request["text"], "most frequent word", word, confidence=times / sum(words.values()))],
    )


@agent("words.report")
def report(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Put the counts together."""
    totals = {one["text"]: one["total"] for one in request["counts"]}
    return {"question": request["question"], "totals": totals, "all": sum(totals.values())}
