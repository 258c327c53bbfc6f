"""Where conversations live: one small protocol (`protocol.py`) and the places that keep them."""
