"""kill -9 at any moment: a session is in the active stores and whole, or in an archive and whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import invariants
import pytest

from .conftest import Store, archives_of, rich_session
from .test_archives import lasting, shown
from .test_trees import tree_of

NewStore = Callable[..., Store]
SEED = int(os.environ.get("CELERIAC_TEST_SEED") or 17)


def kill_while_moving(store: Store, rounds: int) -> None:
    """Kill archiving and restoring at random moments; see that each session is whole, here or there."""
    chance = random.Random(SEED)
    ids = [rich_session(store, f"q{number}") for number in range(2)]
    whole = {session_id: shown(store, session_id) for session_id in ids}
    content = lasting(store)
    moved = 0
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed.py")), store.url, str(store.folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(1 + chance.randrange(4))]
        time.sleep(chance.uniform(0.0, 0.1))
        process.kill()
        moved += seen.count("moved\n") + process.stdout.read().count("moved")
        process.wait()
        for session_id in ids:
            if store.driver.sessions.get(session_id).status == "archived":
                assert archives_of(store).verify(session_id).ok, f"seed {SEED}"
            else:
                assert shown(store, session_id) | {"found": 0} == whole[session_id] | {"found": 0}, f"seed {SEED}"
    assert moved
    archives_of(store).tidy(older_than=0)
    for session_id in ids:
        if store.driver.sessions.get(session_id).status == "archived":
            archives_of(store).restore(session_id)
    assert lasting(store) == content
    invariants.check(store.driver.engine)
    archives_of(store).tidy(older_than=0)
    assert not [path for path in (store.folder / "archives").rglob("*") if path.is_file() and path.name != ".lock"]


def kill_while_moving_a_tree(store: Store, rounds: int) -> None:
    """The same of a whole tree; what is there has all above it there, too."""
    chance = random.Random(SEED)
    root, *_ = ids = tree_of(store)
    heard = {one: store.driver.sessions.get(one).history() for one in ids}
    content = lasting(store)
    moved = 0
    for _ in range(rounds):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed.py")), store.url, str(store.folder), root],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        moved += [process.stdout.readline() for _ in range(1 + chance.randrange(3))].count("moved\n")
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        moved += process.stdout.read().count("moved")
        process.wait()
        for one in ids:
            if (session := store.driver.sessions.get(one)).status == "archived":
                assert archives_of(store).show(one, last=None)["history"] == heard[one], f"seed {SEED}"
            else:
                assert session.history() == heard[one], f"seed {SEED}"
                assert "archived" not in [above.status for above in session.path()], f"seed {SEED}"
    assert moved
    archives_of(store).tidy(older_than=0)
    if "archived" in [store.driver.sessions.get(one).status for one in ids]:
        archives_of(store).restore(root, recursive=True)
    assert lasting(store) == content
    invariants.check(store.driver.engine)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_tree_is_whole_wherever_a_process_was_killed(new_store: NewStore, kind: str) -> None:
    kill_while_moving_a_tree(new_store(kind), 2)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_session_is_whole_wherever_a_process_was_killed(new_store: NewStore, kind: str) -> None:
    kill_while_moving(new_store(kind), 3)
