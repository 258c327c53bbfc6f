"""Finding the agents of an installation."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from ..errors import SettingsError


def load_agents(modules: Sequence[str]) -> None:
    """Import the built-in agents, the modules that the settings name, and those of installed packages.

    Raises SettingsError naming a module that cannot be imported.
    """
    import_module("celeriac.orchestration.research.job")
    import_module("celeriac.orchestration.conversations.chat")
    for name in modules:
        try:
            import_module(name)
        except ImportError as fault:
            raise SettingsError(f"agents names the module {name!r}, which cannot be imported: {fault}") from fault
    for entry in entry_points(group="celeriac.agents"):
        entry.load()
