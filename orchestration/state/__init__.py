"""Keyed state: scopes, what is done to values, where they live, and how steps write it."""
