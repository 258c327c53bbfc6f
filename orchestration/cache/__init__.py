"""Results of agents, computed once for each agent, version, request, permissions and tenant."""

from __future__ import annotations

from .hit import Hit
from .keys import Key, key_of
from .results import ResultCache

__all__ = ["Hit", "Key", "ResultCache", "key_of"]
