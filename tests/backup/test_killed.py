"""kill -9 at any moment: no half backup is listed, the live store is untouched, a restore is in or not (T24)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.storage.backup.store import IMPORTING

from .conftest import Store

NewStore = Callable[..., Store]
SEED = int(os.environ.get("CELERIAC_TEST_SEED") or 11)


def kill_later(store: Store, what: str, seconds: float) -> str:
    """Run `killed.py` for so long after it has begun, kill it; gives what it said."""
    arguments = [what, store.url, str(store.folder), str(store.backups.folder)]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed.py")), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.kill()
    said = first + process.stdout.read()
    process.wait()
    return said


def kill_while_creating(store: Store, rounds: int) -> None:
    """Kill backups at random moments; see that what is listed is whole, and the store as it was."""
    chance = random.Random(SEED)
    for number in range(12):
        store.work(f"{number}", 10, 6000 + number, 6100 + number, 6200 + number)
    before = store.content()
    cut = 0
    for _ in range(rounds):
        said = kill_later(store, "create", chance.uniform(0.0, 0.15))
        acknowledged = [line.split()[1] for line in said.splitlines() if line.startswith("made")]
        listed = store.backups.list()
        assert {one.id for one in listed} >= set(acknowledged), f"seed {SEED}"
        assert all(one.problem is None and store.backups.verify(one.id).ok for one in listed), f"seed {SEED}"
        cut += said.count("begin") > said.count("made")
    assert cut
    assert store.content() == before
    left = list(store.backups.folder.rglob(".tmp-*"))
    store.backups.prune()
    assert not list(store.backups.folder.rglob(".tmp-*")), left
    made = store.backups.create()
    store.backups.restore(made.id, safety=False)


def kill_while_restoring(store: Store, rounds: int, apart: bool = False) -> None:
    """Kill restores of two backups at random moments; see that the store is as in one of them, whole."""
    chance = random.Random(SEED)
    whole = []
    for _ in range(2):
        for number in range(8):
            store.work(f"{number}", 10, 6000 + number, 300)
        made = store.backups.create()
        whole.append(made.id)
    store.driver.engine.database.dispose()
    states = []
    for backup_id in whole:
        store.backups.restore(backup_id, safety=False)
        states.append({k: v for k, v in store.content().items() if k not in ("sessions", "steps", "cache_cutoffs")})
    for number in range(rounds):
        if number % 2:  # nobody else has it open: a SQLite file is written in place
            store.driver.engine.database.connections.let_go()
        how, most = ("restore", 0.15) if not apart else ("restore-apart", 0.6)
        kill_later(store, how, chance.uniform(0.0, most))
        now = {k: v for k, v in store.content().items() if k not in ("sessions", "steps", "cache_cutoffs")}
        assert now in states, f"seed {SEED}"
        for one in store.driver.sessions.list(limit=1000):
            assert len(store.results(one.id)["s1"]["text"]) >= 6000


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_that_is_killed_is_not_listed_and_the_store_is_as_it_was(new_store: NewStore, kind: str) -> None:
    kill_while_creating(new_store(kind), 2)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restore_that_is_killed_is_in_or_not(new_store: NewStore, kind: str) -> None:
    kill_while_restoring(new_store(kind), 2)


def test_a_restore_by_a_process_of_its_own_that_is_killed_is_in_or_not(new_store: NewStore) -> None:
    kill_while_restoring(new_store(), 4, apart=True)


def test_what_a_killed_import_leaves_is_swept(new_store: NewStore) -> None:
    a = new_store()
    made = a.backups.create()
    left = a.backups.folder / f"{IMPORTING}ab" / "objects"
    left.mkdir(parents=True)
    a.backups.prune()
    assert not left.exists()
    assert a.backups.verify(made.id).ok
