"""Which cached results stem from a session: those that hold what its steps gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...errors import CeleriacError
from ...storage import serial
from ...storage.keys.codec import Seals
from ..cache.packing import content_of


def contents(
    columns: Sequence[str], found: Iterable[Sequence[Any]], seals: Seals, blob: Callable[[str], bytes]
) -> set[str]:
    """The hashes that results of these rows have in the cache. What cannot be read was cached by nobody who could."""
    places = [columns.index(name) for name in ("session_id", "number", "epoch", "body", "blob")]
    known = set()
    for row in found:
        session_id, number, epoch, body, name = (row[place] for place in places)
        try:
            text = seals.open(body, "results.body", session_id, number, epoch) if name is None else blob(name)
            known.add(content_of(serial.decode(text or "null")))
        except CeleriacError:
            continue
    return known
