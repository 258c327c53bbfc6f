"""Bringing all that is sealed under the active key, and, with `encrypt = "all"`, all that lies plain under seal: in the
database, in blobs, in other places of keyed state, in archives.

May run beside workers, in any number of processes, and again after it was killed: each part passes over what is done.
"""

from __future__ import annotations

from collections.abc import Callable

from ..storage.keys import covering, memories, putaway, restating, rewrapping
from ..storage.keys.rewrapping import Tally
from ..storage.keys.sealing import KeyRing
from .archives import keyed, renewing
from .engine import Engine
from .state import covering as state_covering

Told = Callable[[Tally], None]


def rotate(engine: Engine, keyring: KeyRing, told: Told = lambda tally: None) -> Tally:
    """Do it; `told` hears how far it is. What cannot be opened stays as it is, and is named in the tally's `refused`.

    Archives come last: what is archived meanwhile is among them, or has been brought before.
    """
    total = _bring(engine, keyring, told)
    return total + renewing.renew_all(engine, keyring, _bring, lambda tally: told(total + tally))


def _bring(engine: Engine, keyring: KeyRing, told: Told = lambda tally: None) -> Tally:
    """Bring rows, blobs, and keyed state in other places.

    Keyed state comes first: what is written there is recorded in rows, which come after it.
    """
    database, total = engine.database, Tally()

    def so_far(tally: Tally) -> None:
        told(total + tally)

    parts: tuple[Callable[[], Tally], ...] = (
        lambda: state_covering.cover(engine.state, database, keyring, so_far),
        lambda: covering.cover(database, so_far),
        lambda: memories.rewrap_memories(
            database, engine.blobs, keyring, state_covering.KeptState(engine.state, keyring, engine.blobs), so_far
        ),
        lambda: restating.rewrap_all(database, engine.state.places.backend, keyring, so_far),
        lambda: putaway.rewrap_cold(database, keyring, so_far),
        lambda: covering.rewrap_blobs(database, engine.blobs, keyring, so_far),
    )
    for part in parts:
        total += part()
    return total


def counted(engine: Engine) -> Tally:
    """How many objects there are in rows and blobs by the key that they are sealed with, and how many archives by those
    that they need.
    """
    tally = rewrapping.counted(engine.database) + covering.counted_blobs(engine.database, engine.blobs)
    tally.archives = keyed.counted(engine)
    if engine.keyring is None:
        return tally
    return tally + putaway.counted_cold(engine.database, engine.keyring)
