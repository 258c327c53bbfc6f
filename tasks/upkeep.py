"""What keeps all that there is in order: backups, and retention. Imported when it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..orchestration.backups.backups import Backups
    from ..orchestration.engine import Engine
    from ..orchestration.keeping.pruning import Pruning
    from ..orchestration.keeping.retention import Retention


class Upkeep(ABC):
    """The upkeep of a Celeriac, which has an engine."""

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The engine."""

    @property
    def backups(self) -> Backups:
        """Backups of all there is, of all tenants. Raises AccessDenied without admin on everything."""
        from ..orchestration.backups.backups import Backups

        return Backups(self.engine, self.engine.caller)

    @property
    def pruning(self) -> Pruning:
        """Letting go sessions and messages by use, age, size and likeness."""
        from ..orchestration.keeping.pruning import Pruning

        return Pruning(self.engine, self.engine.caller)

    @property
    def retention(self) -> Retention:
        """Letting go what the settings `retention_...` do not keep. Raises AccessDenied without admin on everything."""
        from ..orchestration.keeping.retention import Retention

        return Retention(self.engine, self.engine.caller)
