"""How many tokens a text has: by the tokenizer of a model where there is one, else an estimate that says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from .entries import text_of

logger = logging.getLogger("celeriac.history")

#: What the role and the marks around a message take, in tokens.
_AROUND: Final = 4
#: Bytes of UTF-8 that are taken for one token where there is no tokenizer.
_BYTES_A_TOKEN: Final = 4
#: Providers whose models are counted by tiktoken.
_OPENAI: Final = ("openai", "openai-chat", "openai-responses", "azure")


@dataclass(frozen=True)
class Tokens:
    """Counts tokens. `how` says by what: `tiktoken o200k_base`, or `estimate: UTF-8 bytes / 4`."""

    how: str
    count: Callable[[str], int]

    def of(self, entry: Mapping[str, Any]) -> int:
        """How many tokens an entry takes in a window."""
        return self.count(text_of(entry)) + _AROUND


def _estimated(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_A_TOKEN)


ESTIMATE = Tokens(f"estimate: UTF-8 bytes / {_BYTES_A_TOKEN}", _estimated)


@lru_cache(maxsize=16)
def tokens_of(model: str) -> Tokens:
    """What counts for a model as pydantic-ai names it. tiktoken is used where it is installed and knows the model."""
    provider, _, name = model.partition(":")
    if provider not in _OPENAI or not name:
        return ESTIMATE
    try:
        import tiktoken
    except ImportError:
        return ESTIMATE
    try:
        encoding = tiktoken.encoding_for_model(name)
        encoding.encode("a")
    except Exception as fault:  # it does not know the model, or cannot fetch the model's words
        logger.warning("tokens of model %s are estimated, tiktoken cannot count them: %s", model, fault)
        return ESTIMATE
    return Tokens(f"tiktoken {encoding.name}", lambda text: len(encoding.encode(text, disallowed_special=())))
