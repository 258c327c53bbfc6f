"""Archives: a session with all that belongs to it in one file, out of the active stores and back."""
