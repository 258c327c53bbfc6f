"""What users of pydantic-ai import (the extra `llm`): `CeleriacDurability`, `conversation`, `MessageResult`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import CeleriacError

#: Public name -> module that owns it. Imported on first use: pydantic-ai takes a second.
_HOMES = {
    "CeleriacDurability": "orchestration.conversations.durability",
    "MessageResult": "orchestration.conversations.sending",
    "conversation": "orchestration.conversations.registering",
}

__all__ = ["CeleriacDurability", "MessageResult", "conversation"]

if TYPE_CHECKING:
    from .orchestration.conversations.durability import CeleriacDurability
    from .orchestration.conversations.registering import conversation
    from .orchestration.conversations.sending import MessageResult


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f".{_HOMES[name]}", __package__)
    except ImportError as fault:
        if not (fault.name or "").startswith("pydantic_ai"):
            raise
        raise CeleriacError(
            f"{name} needs pydantic-ai, 2.68 or later: pip install 'celeriac[llm]' ({fault})"
        ) from fault
    value = getattr(home, name)
    globals()[name] = value
    return value
