"""Going through a conversation in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...storage.histories.protocol import Kept, Place

#: Bytes of a page, about; and entries of the first and of the largest one.
_BYTES: Final = 2_000_000
_FIRST: Final = 20
_MOST: Final = 500


def pages(place: Place, conversation: str, after: int = 0, last: int | None = None) -> Iterator[list[Kept]]:
    """Entries with numbers over `after`, up to `last`, page by page; of large ones fewer at once."""
    limit = _FIRST
    while page := place.load(conversation, after + 1, last, limit=limit):
        after = page[-1].number
        size = sum(len(kept.body) for kept in page) // len(page)
        yield page
        limit = min(max(_BYTES // max(size, 1), 1), _MOST)
