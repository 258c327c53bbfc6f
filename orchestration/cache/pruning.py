"""Deleting entries by age, use and size, in transactions of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...storage.cache import entries
from ...storage.database import Database, Transaction

#: Deletes entries, with their copies.
Remove = Callable[[Sequence[str]], None]
_NO_LIMIT = 1 << 62


def _until_none(database: Database, find: Callable[[Transaction], list[str]], remove: Remove) -> int:
    count = 0
    while keys := database.read(find):
        remove(keys)
        count += len(keys)
    return count


# Where a `tenant` may be given, None means all.


def expired(database: Database, remove: Remove, most: int | None, tenant: str | None = None) -> int:
    """Delete entries that may not be served any more, at most `most`; gives how many."""
    if most is None:
        return _until_none(database, lambda tx: entries.expired(tx, tenant=tenant), remove)
    keys = database.read(lambda tx: entries.expired(tx, most, tenant))
    remove(keys)
    return len(keys)


def little_used(database: Database, remove: Remove, least: int, tenant: str | None = None) -> int:
    """Delete entries that were used less than `least` times; gives how many."""
    return _until_none(database, lambda tx: entries.little_used(tx, least, tenant=tenant), remove)


def over(
    database: Database, remove: Remove, max_entries: int | None, max_bytes: int | None, tenant: str | None = None
) -> int:
    """Delete the entries whose use is longest ago, as many as are over the limits; gives how many."""
    most, size = (_NO_LIMIT if limit is None else limit for limit in (max_entries, max_bytes))
    return _until_none(database, lambda tx: entries.over(tx, most, size, tenant=tenant), remove)
