"""Opening the place for conversations that a URL names: ours, or one of an installed package."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path

from ...config.urls import masked
from ...errors import SettingsError
from ..blobs import BlobStore
from ..database import Database
from .protocol import Place

logger = logging.getLogger("celeriac.history")

#: Entry points of other packages: the name is the URL's scheme, the object takes the URL and gives a `Place`.
GROUP = "celeriac.histories"
_FORMS = ("memory:", "file:///folder", "redis://host:port/number", "rediss://", "unix://")


def open_place(url: str, database: Database, blobs: BlobStore, inline: int) -> Place:
    """The place of a URL; an empty one means the database of the sessions. Nothing is connected to yet.

    One that cannot make calls durable says so in the log. Raises SettingsError for a URL that no place is known for,
    listing those that are, and for any elsewhere where all is to be sealed.
    """
    if not url:
        from .sql import SqlPlace

        return SqlPlace(database, blobs, inline)
    place = _elsewhere(url)
    if database.codec is not None and database.codec.whole:
        raise SettingsError(
            f'history_url = {masked(url)!r} is not allowed with encrypt = "all": entries are sealed only in the '
            "database of the sessions; leave it empty"
        )
    for fault in shortcomings(place):
        logger.warning("history_url = %s: %s", masked(url), fault)
    return place


def shortcomings(place: Place) -> list[str]:
    """What a place cannot do, in sentences."""
    can, found = place.capabilities, []
    if not can.with_steps:
        found.append(
            "calls of a conversation cannot be made durable there: an entry is not written in the transaction that"
            " records the call, so a crash between the two loses the entry or writes it twice"
        )
    if not can.durable:
        found.append("entries are gone when the process ends")
    if not can.shared:
        found.append("other processes do not see them")
    return found


def _elsewhere(url: str) -> Place:
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        from .memory import MemoryPlace

        if rest.strip("/"):
            raise SettingsError(f"history_url = {url!r}: memory has no place; write memory:")
        return MemoryPlace()
    if scheme == "file":
        from .files import FilePlace

        if not rest.startswith("//") or len(rest) < 3:
            raise SettingsError(f"history_url = {url!r} names no folder; write file:///folder")
        return FilePlace(Path(rest[2:]).expanduser().absolute())
    if scheme in ("redis", "rediss", "unix"):
        from .redis import RedisPlace

        return RedisPlace(url)
    for entry in entry_points(group=GROUP, name=scheme):
        made: Place = entry.load()(url)
        if not isinstance(made, Place):
            raise SettingsError(f"history_url: entry point {entry.value} of {GROUP} gave no Place but {made!r}")
        return made
    raise SettingsError(f"history_url = {masked(url)!r}: no place is known for it; there are: {', '.join(known())}")


def known() -> list[str]:
    """What a `history_url` can be."""
    theirs = {f"{entry.name}: ({entry.value})" for entry in entry_points(group=GROUP)}
    return ["'' (the database of the sessions)", *_FORMS, *sorted(theirs)]
