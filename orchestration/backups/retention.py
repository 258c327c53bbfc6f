"""Which backups stay: the newest, the young, the marked, and of longer ago one a day, a week, a month."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Policy(Protocol):
    """What the settings say of backups."""

    @property
    def backups_kept(self) -> int: ...

    @property
    def backups_kept_days(self) -> float: ...

    @property
    def backups_kept_least(self) -> int: ...

    @property
    def backups_kept_daily(self) -> int: ...

    @property
    def backups_kept_weekly(self) -> int: ...

    @property
    def backups_kept_monthly(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Dated:
    """A backup as retention sees it; `created_at` in seconds since 1970."""

    id: str
    created_at: float
    marked: bool


def reasons(backups: Sequence[Dated], policy: Policy, now: float) -> dict[str, str]:
    """Why each backup that stays does, by id. Those that are not named go. Periods are those of UTC."""
    newest = sorted(backups, key=lambda one: (one.created_at, one.id), reverse=True)
    kept = {one.id: "marked" for one in newest if one.marked}
    for place, one in enumerate(newest):
        young = place < policy.backups_kept and one.created_at > now - policy.backups_kept_days * 86400
        if place < policy.backups_kept_least:
            kept.setdefault(one.id, "newest")
        elif young:
            kept.setdefault(one.id, "young")
    for period, form, most in (
        ("daily", "%Y-%m-%d", policy.backups_kept_daily),
        ("weekly", "%G-%V", policy.backups_kept_weekly),
        ("monthly", "%Y-%m", policy.backups_kept_monthly),
    ):
        last_of: dict[str, str] = {}
        for one in newest:
            last_of.setdefault(time.strftime(form, time.gmtime(one.created_at)), one.id)
        for backup_id in list(last_of.values())[:most]:
            kept.setdefault(backup_id, period)
    return kept
