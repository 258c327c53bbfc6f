"""Celeriac: durable state for multi-agent workflows on Celery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> module that owns it. Imported on first use, so that `import celeriac` costs nothing.
_HOMES = {
    "AgentOutput": "orchestration.agents",
    "Finding": "orchestration.agents",
    "agent": "orchestration.agents",
    "Celeriac": "tasks.app",
    "CeleriacError": "errors",
    "Plan": "orchestration.plans",
    "Schema": "orchestration.schemas",
    "Scope": "orchestration.state.scopes",
    "State": "orchestration.state.state",
    "schemas": "orchestration.schemas",
    "step": "orchestration.plans",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from .errors import CeleriacError
    from .orchestration.agents import AgentOutput, Finding, agent
    from .orchestration.plans import Plan, step
    from .orchestration.schemas import Schema, schemas
    from .orchestration.state.scopes import Scope
    from .orchestration.state.state import State
    from .tasks.app import Celeriac


def __getattr__(name: str) -> Any:
    if name in ("app", "celery"):  # what `celery -A celeriac` looks for
        return import_module(".tasks.app", __name__).default().app
    if name not in _HOMES:
        raise AttributeError(f"module 'celeriac' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
