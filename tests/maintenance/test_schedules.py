"""When jobs are due: seconds and cron texts by UTC, and what is said of texts that are neither."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.config import Settings, schedules
from celeriac.errors import SettingsError
from celeriac.orchestration.maintenance.jobs import JOBS


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "now", "last", "following"),
    [
        ("0 3 * * *", "2026-11-21 03:00:00", "2026-11-21 03:00", "2026-11-22 03:00"),
        ("0 3 * * *", "2026-11-21 02:59:59", "2026-11-20 03:00", "2026-11-21 03:00"),
        ("*/15 * * * *", "2026-11-21 23:59:30", "2026-11-21 23:45", "2026-11-22 00:00"),
        ("30 9-17/4 * * mon-fri", "2026-11-21 12:00:00", "2026-11-20 17:30", "2026-11-23 09:30"),
        ("0 0 1,15 * *", "2026-12-31 12:00:00", "2026-12-15 00:00", "2027-01-01 00:00"),
        ("0 0 13 * fri", "2026-11-12 00:00:00", "2026-11-06 00:00", "2026-11-13 00:00"),  # either is enough
        ("0 0 29 feb *", "2026-11-21 00:00:00", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("0 0 * * 7", "2026-11-21 00:00:00", "2026-11-15 00:00", "2026-11-22 00:00"),
        ("@hourly", "2026-11-21 00:00:00", "2026-11-21 00:00", "2026-11-21 01:00"),
        ("3600", "2026-11-21 01:00:00", "2026-11-21 01:00", "2026-11-21 02:00"),
        ("90", "2026-11-21 00:01:00", "2026-11-21 00:00", "2026-11-21 00:01:30"),
    ],
)
def test_a_schedule_has_a_last_and_a_following_time(text: str, now: str, last: str, following: str) -> None:
    found = schedules.parse(text)
    assert found is not None
    assert (found.last(at(now)), found.following(at(now))) == (at(last), at(following))


@given(
    st.sampled_from(["7 */3 * * *", "0 4 * * 1-5", "*/7 1,13 2-30/4 * *", "0.3", "17", "86400", "0 0 1 1 0"]),
    st.floats(0, 4e9),
)
def test_nothing_lies_between_the_last_time_and_the_following_one(text: str, now: float) -> None:
    found = schedules.parse(text)
    assert found is not None
    last, following = found.last(now), found.following(now)
    assert last <= now < following
    assert found.following(last) == following and found.last(following) == following


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 fields where cron has 5"),
        ("0 3 * *", "4 fields where cron has 5"),
        ("60 3 * * *", "minute '60' is not allowed; allowed: 0 to 59"),
        ("0 3 * * 8", "weekday '8' is not allowed; allowed: 0 to 7"),
        ("0 3 0 * *", "day '0' is not allowed; allowed: 1 to 31"),
        ("5-1 * * * *", "minute '5-1' is not allowed"),
        ("*/0 * * * *", "minute '*/0' is not allowed"),
        ("x * * * *", "minute 'x' is not allowed"),
        ("0 0 30 feb *", "there is no such day in any year"),
        ("0.05", "allowed: 0.1 seconds or more"),
        ("-3", "allowed: 0.1 seconds or more"),
        ("nan", "allowed: 0.1 seconds or more"),
    ],
)
def test_a_text_that_is_no_schedule_is_one_clear_error(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load(environ={"CELERIAC_MAINTENANCE": f"backup={text}"})
    (line,) = str(error.value).splitlines()
    assert line.startswith("setting maintenance (from CELERIAC_MAINTENANCE): backup = ") and says in line


def test_an_unknown_job_is_named_with_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match="there is no job 'backups'; did you mean 'backup'"):
        Settings.load({"maintenance": {"backups": "off"}}, environ={})


def test_a_job_that_is_named_changes_no_other(tmp_path: Path) -> None:
    file = tmp_path / "celeriac.toml"
    file.write_text('[maintenance]\nbackup = "0 5 * * *"\nsweep = 20\n')
    settings = Settings.load(file=file, environ={"CELERIAC_MAINTENANCE": "sweep=off; statistics = 60"})
    defaults = Settings.load(environ={}).maintenance
    changed = {"backup": "0 5 * * *", "sweep": "off", "statistics": "60"}
    assert settings.maintenance == {**defaults, **changed}


def test_each_job_has_a_schedule_by_default_and_each_schedule_a_job() -> None:
    assert set(Settings.load(environ={}).maintenance) == set(JOBS)
    assert all(job.what.endswith(".") for job in JOBS.values())
