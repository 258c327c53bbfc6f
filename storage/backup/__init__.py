"""Backups as bytes and rows: chunks that backups share, a manifest for each backup, and tables as streams."""
