"""What can be set: typed settings from defaults, a file and the environment."""

from .settings import Settings

__all__ = ["Settings"]
