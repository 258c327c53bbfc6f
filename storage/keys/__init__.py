"""Sealing what is stored: key rings, the files they come from, and the change to a new key."""
