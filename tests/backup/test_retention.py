"""What pruning keeps, and that nothing goes that a kept backup needs."""

from __future__ import annotations

import calendar
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.errors import BackupDamaged
from celeriac.orchestration.backups.retention import Dated, reasons

from .conftest import Store

NewStore = Callable[..., Store]
NOW = float(calendar.timegm((2026, 11, 21, 12, 0, 0)))
DAY = 86400.0


def policy(**values: Any) -> Any:
    """The defaults, but for some."""
    names = {"kept": 50, "kept_days": 30.0, "kept_least": 5, "kept_daily": 0, "kept_weekly": 0, "kept_monthly": 0}
    return SimpleNamespace(**{f"backups_{name}": value for name, value in (names | values).items()})


def daily(count: int) -> list[Dated]:
    """A backup a day, the oldest first; the last one is of now."""
    return [Dated(f"{n:03}", NOW - (count - 1 - n) * DAY, False) for n in range(count)]


def test_no_more_than_the_count_stay() -> None:
    assert sorted(reasons(daily(20), policy(kept=7), NOW)) == [f"{n:03}" for n in range(13, 20)]


def test_what_is_too_old_goes_but_the_newest_stay_whatever_their_age() -> None:
    assert len(reasons(daily(60), policy(), NOW)) == 30
    kept = reasons(daily(60), policy(), NOW + 365 * DAY)
    assert sorted(kept) == [f"{n:03}" for n in range(55, 60)]
    assert set(kept.values()) == {"newest"}


def test_of_longer_ago_one_a_day_a_week_a_month_stays() -> None:
    backups = [Dated(f"{n:04}", NOW - n * DAY / 4, False) for n in range(400 * 4)]
    kept = reasons(backups, policy(kept=1, kept_least=1, kept_daily=7, kept_weekly=4, kept_monthly=12), NOW)
    assert list(kept.values()).count("newest") == 1
    by_reason = {why: [b for b in backups if kept.get(b.id) == why] for why in ("daily", "weekly", "monthly")}
    assert len(by_reason["daily"]) == 6  # the seventh is the newest
    months = {time.strftime("%Y-%m", time.gmtime(b.created_at)) for b in backups if b.id in kept}
    assert len(months) == 12
    assert 15 <= len(kept) <= 22


def test_a_marked_backup_stays() -> None:
    backups = [Dated("old", NOW - 900 * DAY, True), *daily(10)]
    assert reasons(backups, policy(), NOW)["old"] == "marked"


def test_pruning_deletes_backups_and_keeps_what_others_need(new_store: NewStore) -> None:
    a = new_store(backups_kept=2, backups_kept_least=1, backups_kept_daily=0, backups_kept_weekly=0,
                  backups_kept_monthly=0)  # fmt: skip
    first = a.backups.create(mark=True)
    sessions, made = [], []
    for number in range(4):
        sessions.append(a.work(f"{number}", 10, 5000 + number))
        made.append(a.backups.create())
    before = a.backups.prune(dry_run=True)
    assert before.deleted == [made[0].id, made[1].id] and before.dry_run
    assert len(a.backups.list()) == 5
    done = a.backups.prune()
    assert (done.deleted, done.kept, done.objects, done.size) == (
        before.deleted, before.kept, before.objects, before.size)  # fmt: skip
    assert done.objects > 0
    assert [one.id for one in a.backups.list()] == [first.id, made[2].id, made[3].id]
    assert all(a.backups.verify(one.id).ok for one in a.backups.list())
    assert a.backups.prune().objects == 0
    a.backups.restore(made[3].id, safety=False)
    assert len(a.results(sessions[0])["s1"]["text"]) == 5000


def test_pruning_while_a_backup_is_written_deletes_nothing_of_it(new_store: NewStore) -> None:
    a = new_store()
    for number in range(20):
        a.work(f"{number}", 10, 5000 + number)
    made: list[str] = []
    writer = threading.Thread(target=lambda: made.extend(a.backups.create(full=True).id for _ in range(5)))
    writer.start()
    other = new_store()
    while writer.is_alive():
        other.backups.prune()
    writer.join()
    assert len(made) == 5
    assert all(a.backups.verify(one).ok for one in made)


def test_nothing_is_pruned_where_it_cannot_be_told_what_a_backup_needs(new_store: NewStore) -> None:
    a = new_store()
    a.work("one", 5000)
    made = a.backups.create()
    path = a.backups.folder / f"{made.id}.backup"
    path.write_bytes(path.read_bytes()[:-1])
    objects = sorted(a.backups.folder.glob("objects/*/*"))
    with pytest.raises(BackupDamaged):
        a.backups.prune()
    assert sorted(a.backups.folder.glob("objects/*/*")) == objects
    a.backups.delete(made.id)  # a damaged one can be deleted by hand
    assert not list(a.backups.folder.glob("objects/*/*"))
