"""Agents that let secrets out through every door that there is.

They run in a worker's process, and make their secrets from a harmless word, so that nothing but what they let out can
give them away.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from celeriac import AgentOutput, Finding, agent, step


def text_of(word: str, number: int) -> str:
    """A secret that a pattern tells."""
    return f"canary-{hashlib.sha256(f'text {word} {number}'.encode()).hexdigest()[:24]}"


def name_of(word: str, number: int) -> str:
    """A secret that only the name of its field gives away."""
    return f"Zq{hashlib.sha256(f'name {word} {number}'.encode()).hexdigest()[:20]}"


#: So many of each kind `canary.pass` makes, and `canary.large` and `canary.fail` of the first kind.
TEXTS, NAMES = 16, 10


@agent("canary.pass", retries=1, backoff=0.01)
def let_out(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Says what it should not in all ways that it has; `pin` came sealed and is open here, `password` never came."""
    texts = [text_of(request["word"], n) for n in range(TEXTS)]
    names = [name_of(request["word"], n) for n in range(NAMES)]
    assert request["password"] == "[redacted]"
    ctx.progress(0.5, f"reading {texts[0]}")
    ctx.partial({"text": texts[1], "deep": [{"password": names[0]}]})
    ctx.memory.history.append({"role": "user", "content": f"use {texts[11]}", "password": names[6]})
    ctx.memory.config["password"] = names[7]
    ctx.memory[texts[12]] = {"secret": names[8], "said": [texts[13]]}
    ctx.state.set("seen", {"password": names[9], "text": texts[14]})
    ctx.state.update("count", lambda value: {"text": texts[15]})
    ctx.memory.save()
    ctx.logger.warning("log %s", texts[2], extra={"note": texts[3]})
    logging.getLogger("celeriac.own").error("password=%s", names[1])
    if ctx.attempt == 1:
        raise ValueError(f"cannot use {texts[4]} with password={names[2]}")
    return AgentOutput(
        {"sum": hashlib.sha256(request["pin"].encode()).hexdigest(), "secret": names[3], "said": texts[5], texts[6]: 1},
        [
            Finding(f"who {texts[7]}", "password", names[4], evidence=[{"text": texts[8]}]),
            Finding("who", "colour", texts[9]),
            Finding("who", "colour", "red"),
        ],
        add_steps=[step("more", "canary.large", {"text": texts[10], "password": names[5], "word": "", "lines": 5})],
    )


@agent("canary.large")
def large(request: dict[str, Any], ctx: Any) -> Any:
    """An output that is kept as a blob."""
    secret = text_of(request["word"], 100)
    return {"lines": [f"{secret} {n}" for n in range(request["lines"])], "request": request}


@agent("canary.fail")
def fail(request: dict[str, Any], ctx: Any) -> Any:
    """Fails for good, with an error that says what it should not."""
    raise RuntimeError(f"gave up on {text_of(request['word'], 200)}")


def plain_of(word: str, number: int) -> str:
    """A secret that nothing tells."""
    return f"Qq{hashlib.sha256(f'plain {word} {number}'.encode()).hexdigest()[:20]}"


#: So many of that kind `canary.tell` makes.
PLAIN = 22


@agent("canary.tell", retries=1, backoff=0.01, cache_ttl=60)
def tell(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Says secrets that no rule is for in all ways that are kept."""
    said = [plain_of(request["word"], n) for n in range(PLAIN)]
    ctx.progress(0.5, f"reading {said[0]}")
    ctx.partial({"text": said[1]})
    ctx.memory.history.append({"role": "user", "content": said[2]})
    ctx.memory.config["a"] = said[3]
    ctx.memory["b"] = {"said": [said[4]]}
    ctx.memory.save()
    for number, class_ in enumerate(("ephemeral", "trusted", "standard", "sensitive")):
        ctx.state.set(class_, {"text": said[5 + number]}, state_class=class_)
    ctx.state.update("grows", lambda value: [*(value or []), said[9]])
    ctx.once("look up", lambda: {"text": request["text"]})
    ctx.call("canary.wide", {"text": request["text"]}, name="look wide")
    if ctx.attempt == 1:
        raise ValueError(f"cannot use {said[10]}") from KeyError(said[11])
    return AgentOutput(
        {"said": said[12], said[13]: 1},
        [
            Finding(f"who {said[14]}", f"what {said[15]}", said[16], evidence=[{"text": said[17]}]),
            Finding("who", "colour", said[18]),
            Finding("who", "colour", said[19]),
        ],
        add_steps=[step("more", "canary.wide", {"text": said[20], "more": said[21]})],
    )


@agent("canary.wide")
def wide(request: dict[str, Any], ctx: Any) -> Any:
    """An output that is kept as a blob."""
    return {"lines": [f"{request} {n}" for n in range(1000)]}


@agent("canary.break")
def give_up(request: dict[str, Any], ctx: Any) -> Any:
    """Fails for good, with an error that says what it should not."""
    raise RuntimeError(f"gave up on {plain_of(request['word'], 200)}")
