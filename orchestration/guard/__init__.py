"""The guard: what is taken out of values and texts, or sealed in them, before they are written or shown."""

from .policy import Policy

__all__ = ["Policy"]
