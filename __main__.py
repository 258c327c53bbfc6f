"""`python -m celeriac`."""

from __future__ import annotations

from .interface.main import main

if __name__ == "__main__":
    main()
