"""Entries of a history as messages of pydantic-ai, and messages as entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_core import to_jsonable_python

from ..history.entries import text_of
from .keeping import OWN

#: What a model is told of a call whose message ended before it was made.
_NOT_MADE: Final = "This call was not made: the message that it belongs to ended before."


def messages_of(entries: Iterable[dict[str, Any]]) -> list[ModelMessage]:
    """What a model is shown of a history: every call of a tool with its result, and no result without its call."""
    found: list[ModelMessage] = []
    open_calls: dict[str, str] = {}
    for entry in entries:
        role = entry.get("role")
        if role == "tool" and entry.get("tool_call_id") in open_calls:
            name = open_calls.pop(entry["tool_call_id"])
            result = ToolReturnPart(name, entry.get("content"), tool_call_id=entry["tool_call_id"])
            found.append(ModelRequest([result]))
            continue
        if role == "tool":
            continue
        found += _unanswered(open_calls)
        if role == "assistant":
            response, open_calls = _response(entry)
            found += [response] if response.parts else []
        elif role == "system":
            own = (entry.get("metadata") or {}).get("by") == OWN
            found += [] if own else [ModelRequest([SystemPromptPart(text_of(entry))])]
        else:
            found += _said(entry)
    return [*found, *_unanswered(open_calls)]


def _unanswered(open_calls: dict[str, str]) -> Iterator[ModelMessage]:
    if open_calls:
        yield ModelRequest([ToolReturnPart(name, _NOT_MADE, tool_call_id=one) for one, name in open_calls.items()])
        open_calls.clear()


def _response(entry: dict[str, Any]) -> tuple[ModelResponse, dict[str, str]]:
    content = entry.get("content")
    parts: list[Any] = [TextPart(text_of({"content": content}))] if content else []
    calls = [one for one in entry.get("tool_calls") or () if one.get("id") and one.get("name")]
    parts += [ToolCallPart(one["name"], one.get("args"), tool_call_id=one["id"]) for one in calls]
    return ModelResponse(parts), {one["id"]: one["name"] for one in calls}


def _said(entry: dict[str, Any]) -> list[ModelMessage]:
    """What a user said, or a whole exchange, or another speaker, who is named."""
    if entry.get("user_request") is not None or entry.get("response") is not None:
        asked, given = (
            text_of({"user_request": entry.get("user_request")}),
            text_of({"response": entry.get("response")}),
        )
        exchange: list[ModelMessage] = [ModelRequest([UserPromptPart(asked)])] if asked else []
        return [*exchange, ModelResponse([TextPart(given)])] if given else exchange
    role = entry.get("role")
    text = text_of(entry)
    return [ModelRequest([UserPromptPart(text if role == "user" else f"{role}: {text}")])] if text else []


def entry_of(response: ModelResponse) -> dict[str, Any] | None:
    """What a model answered; None where it is neither text nor a call of a tool."""
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    calls = [
        {"id": part.tool_call_id, "name": part.tool_name, "args": _arguments(part)}
        for part in response.parts
        if isinstance(part, ToolCallPart)
    ]
    if not text and not calls:
        return None
    entry: dict[str, Any] = {"role": "assistant", "content": text or None}
    return entry | ({"tool_calls": calls} if calls else {})


def _arguments(part: ToolCallPart) -> Any:
    """The arguments of a call as an object; as the model wrote them where that is none."""
    try:
        return to_jsonable_python(part.args_as_dict(raise_if_invalid=True))
    except (ValueError, AssertionError):
        return to_jsonable_python(part.args)


def results_in(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """The results of tools that messages end with: what the model is told next."""
    found: list[dict[str, Any]] = []
    for message in reversed(messages):
        if not isinstance(message, ModelRequest):
            break
        found[:0] = [entry for part in message.parts if (entry := _result(part)) is not None]
    return found


def _result(part: Any) -> dict[str, Any] | None:
    if isinstance(part, ToolReturnPart):
        entry = {"role": "tool", "tool_call_id": part.tool_call_id, "name": part.tool_name}
        failed = {} if part.outcome == "success" else {"failed": True}
        return entry | {"content": to_jsonable_python(part.content, fallback=str)} | failed
    if isinstance(part, RetryPromptPart) and part.tool_name:
        entry = {"role": "tool", "tool_call_id": part.tool_call_id, "name": part.tool_name}
        return entry | {"content": part.model_response(), "failed": True}
    return None
