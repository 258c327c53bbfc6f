"""For tests of what plugs into Celeriac: the suites that our own implementations pass too. Needs pytest."""

from __future__ import annotations

from .histories import HistoryPlaceSuite
from .states import StateBackendSuite

__all__ = ["HistoryPlaceSuite", "StateBackendSuite"]
