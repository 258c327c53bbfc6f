"""Texts that say nearly the same: found by MinHash, confirmed by comparing them."""

from __future__ import annotations

import re
from typing import Any, Final

from ...errors import CeleriacError

#: Texts of fewer characters are like no other one: `yes` twice is not the same said twice.
LEAST: Final = 32
#: Characters that are compared at a time.
_SHINGLE: Final = 5
_HASHES: Final = 128
_SPACES: Final = re.compile(r"\s+")


def shingles(text: str) -> frozenset[str]:
    """The runs of five characters of a text, whatever its case and spaces; none of a short one."""
    plain = _SPACES.sub(" ", text).strip().casefold()
    if len(plain) < LEAST:
        return frozenset()
    return frozenset(plain[n : n + _SHINGLE] for n in range(len(plain) - _SHINGLE + 1))


class Likeness:
    """Finds texts that were seen before, nearly. `similarity`: the share of runs that two have in common (Jaccard).

    Raises CeleriacError where rensa is not installed.
    """

    def __init__(self, similarity: float) -> None:
        try:
            import rensa
        except ImportError:
            raise CeleriacError(
                "pruning by semantic needs the package rensa: pip install 'celeriac[pruning]'"
            ) from None
        self._rensa: Any = rensa
        self._similarity = similarity
        bands = 32 if similarity >= 0.5 else 64
        self._index: Any = rensa.RMinHashLSH(threshold=similarity, num_perm=_HASHES, num_bands=bands)
        self._seen: list[frozenset[str]] = []

    def seen(self, text: str) -> int | None:
        """Which text that was added says nearly the same (0: the first one that was), or None."""
        found = shingles(text)
        return self._match(found, self._sketch(found)) if found else None

    def add(self, text: str) -> int:
        """Add a text; gives its place."""
        found = shingles(text)
        place = len(self._seen)
        self._seen.append(found)
        if found:
            self._index.insert(place, self._sketch(found))
        return place

    def _match(self, found: frozenset[str], sketch: Any) -> int | None:
        for place in sorted(self._index.query(sketch)):
            other = self._seen[place]
            if len(found & other) >= self._similarity * len(found | other):
                return int(place)
        return None

    def _sketch(self, found: frozenset[str]) -> Any:
        sketch = self._rensa.RMinHash(num_perm=_HASHES, seed=7)
        sketch.update(list(found))
        return sketch
