"""Backups: made while work goes on, checked, restored into this or another database, and let go in time."""
