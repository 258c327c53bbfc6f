"""No changed byte of an archive goes unseen, and nothing of a damaged one is restored."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable

import pytest

from celeriac.errors import CeleriacError, KeyMissing

from .conftest import Store, archives_of, rich_session

NewStore = Callable[..., Store]
SEED = int(os.environ.get("CELERIAC_TEST_SEED") or 5)


def corrupt(new_store: NewStore, count: int, **settings: str) -> None:
    """Change one byte of an archive after the other; see that it is detected, and that nothing is restored."""
    store, chance = new_store(**settings), random.Random(SEED)
    session_id = rich_session(store)
    archives = archives_of(store)
    archives.create(session_id)
    before = store.content()
    (path,) = (store.folder / "archives").rglob("*.archive")
    sound = path.read_bytes()
    for place in [*range(0, len(sound), len(sound) // (count // 2)), *chance.sample(range(len(sound)), count // 2)]:
        changed = bytearray(sound)
        changed[place] ^= chance.randrange(1, 256)
        path.write_bytes(bytes(changed))
        what = f"byte {place} of {len(sound)} (seed {SEED})"
        with contextlib.suppress(KeyMissing):  # where a byte of the key's name was changed
            assert not archives.verify(session_id).ok, what
        with pytest.raises(CeleriacError):
            archives.restore(session_id)
    for cut in (0, 511, 512, len(sound) - 512, len(sound) - 1):
        path.write_bytes(sound[:cut])
        assert not archives.verify(session_id).ok, cut
    path.write_bytes(sound + bytes(512))
    assert not archives.verify(session_id).ok
    assert store.content() == before
    path.write_bytes(sound)
    archives.restore(session_id)


@pytest.mark.parametrize("sealed", [False, True])
def test_each_of_200_changed_bytes_is_detected_and_nothing_is_restored(
    new_store: NewStore, keys_file: str, sealed: bool
) -> None:
    corrupt(new_store, 200, **({"keys_file": keys_file} if sealed else {}))
