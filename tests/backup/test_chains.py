"""Whatever is made, deleted, pruned and marked, in any order: each backup that is left is whole, and gives back what
there was when it was made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.orchestration.backups.retention import Dated, reasons

from .conftest import Store
from .test_retention import DAY, NOW, policy

NewStore = Callable[..., Store]
#: What is done to a store and its backups, and how often it is picked beside the others.
ACTS = {"work": 6, "forget": 2, "create": 6, "full": 1, "delete": 2, "prune": 2, "mark": 1}


class Chain:
    """A store, and what there was of results in it when each backup was made."""

    def __init__(self, store: Store, pick: random.Random) -> None:
        self.store, self.pick = store, pick
        self.live: dict[str, dict[str, Any]] = {}
        self.made: dict[str, dict[str, dict[str, Any]]] = {}
        self.marked: set[str] = set()
        self.number = 0

    def act(self, name: str) -> None:
        """Do it, if there is something to do it to."""
        backups, listed = self.store.backups, [one.id for one in self.store.backups.list()]
        if name == "work":
            self.number += 1
            sizes = [self.pick.choice([10, 1500, 9000]) for _ in range(self.pick.randint(1, 3))]
            session = self.store.work(f"{self.number} {self.pick.random()}", *sizes)
            self.live[session] = self.store.results(session)
        elif name == "forget" and self.live:
            session = self.pick.choice(sorted(self.live))
            self.store.driver.sessions.delete(session)
            del self.live[session]
        elif name in ("create", "full"):
            compression = self.pick.choice(["zstd", "gzip", "none"])
            self.made[backups.create(full=name == "full", compression=compression).id] = dict(self.live)
        elif name == "prune":
            gone = backups.prune().deleted
            assert self.marked.isdisjoint(gone) and listed[-1:] != gone
        elif listed:
            one = self.pick.choice(listed)
            if name == "mark":
                backups.mark(one)
                self.marked.add(one)
            else:
                backups.delete(one)
                self.marked.discard(one)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_each_backup_that_is_left_is_whole_and_gives_back_its_moment(
    new_store: NewStore, keys_file: str, seed: int, sealed: bool
) -> None:
    few = {f"backups_kept_{period}": 0 for period in ("daily", "weekly", "monthly")}
    keys = {"backup_keys_file": keys_file} if sealed else {}
    chain = Chain(new_store(backups_kept=3, backups_kept_least=1, **few, **keys), random.Random(seed))
    acts = chain.pick.choices(list(ACTS), weights=list(ACTS.values()), k=22)
    for name in ("work", "create", *acts, "work", "create"):
        chain.act(name)
    listed = chain.store.backups.list()
    ids = [one.id for one in listed]
    assert ids[-1] == max(chain.made) and chain.marked <= set(ids)
    for one in listed:
        found = chain.store.backups.verify(one.id)
        there = "first" if one.previous is None else "whole" if one.previous in ids else "gone"
        assert (found.problems, found.chain) == ([], there)
    other = new_store(name="b", **keys)
    for one in chain.pick.sample(listed, len(listed)):
        other.backups.restore(one.id, safety=False)
        wanted = chain.made[one.id]
        assert {session.id for session in other.driver.sessions.list(limit=100)} == set(wanted)
        assert {session: other.results(session) for session in wanted} == wanted


@given(
    ages=st.lists(st.tuples(st.floats(0, 900), st.booleans()), max_size=60),
    numbers=st.fixed_dictionaries(
        {"kept": st.integers(1, 60), "kept_least": st.integers(1, 10), "kept_days": st.floats(0.1, 400)}
        | {f"kept_{period}": st.integers(0, 14) for period in ("daily", "weekly", "monthly")}
    ),
)
def test_what_a_policy_keeps_is_what_it_says(ages: list[tuple[float, bool]], numbers: dict[str, Any]) -> None:
    found = [Dated(f"{n:03}", NOW - age * DAY, marked) for n, (age, marked) in enumerate(ages)]
    newest = sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)
    kept = reasons(found, policy(**numbers), NOW)
    assert {one.id for one in found if one.marked} <= set(kept)
    assert {one.id for one in newest[: numbers["kept_least"]]} <= set(kept)
    for place, one in enumerate(newest):
        among = place < numbers["kept"] and one.created_at > NOW - numbers["kept_days"] * DAY
        assert one.id in kept or not among
        if kept.get(one.id) == "young":
            assert among
    longer = sum(numbers[f"kept_{period}"] for period in ("daily", "weekly", "monthly"))
    assert len(kept) <= sum(one.marked for one in found) + max(numbers["kept"], numbers["kept_least"]) + longer
    again = [one for one in found if one.id in kept]
    assert set(reasons(again, policy(**numbers), NOW)) == set(kept)  # what stays, stays
