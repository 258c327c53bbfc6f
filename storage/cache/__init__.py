"""Rows and bytes of the result cache: shared entries, what invalidates them, who computes what, and counters."""
