"""Where keyed state lives: one small protocol (`protocol.py`) and the places that keep it."""
