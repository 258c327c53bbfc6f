"""The entries of beat, of our own app and of a user's."""

from __future__ import annotations

import pickle
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from celery import Celery

from celeriac import Celeriac
from celeriac.tasks.beating import Times


def test_a_users_beat_gets_an_entry_for_each_job_that_is_not_off(tmp_path: Path) -> None:
    app = Celery("proj", broker="memory://")
    app.conf.timezone = "Asia/Kolkata"
    c = Celeriac(app, data_dir=tmp_path, maintenance={"backup": "0 4 * * *", "sweep": "off"}, maintenance_queue="slow")
    app.finalize()
    try:
        entries = app.conf.beat_schedule
        assert sorted(entries) == [
            "celeriac.archive", "celeriac.backup", "celeriac.backup_retention", "celeriac.checkpoints",
            "celeriac.expiry", "celeriac.pruning", "celeriac.retention", "celeriac.statistics",
        ]  # fmt: skip
        backup = entries["celeriac.backup"]
        assert (backup["task"], backup["args"], backup["schedule"]) == (
            "celeriac.maintain",
            ("backup",),
            Times("0 4 * * *"),
        )
        assert backup["options"] == {"queue": "slow", "expires": 3600.0}
        assert entries["celeriac.expiry"]["options"]["expires"] == 300.0
        yesterday = datetime.now(UTC).astimezone(app.timezone) - timedelta(days=1)
        is_due, seconds = backup["schedule"].is_due(yesterday)
        assert is_due and abs((time.time() + seconds) % 86400 - 4 * 3600) < 1
        assert backup["schedule"].is_due(datetime.now(UTC))[0] is False
    finally:
        c.close()


def test_beat_can_write_down_what_it_has_sent() -> None:
    times = Times("*/5 * * * *")
    assert pickle.loads(pickle.dumps(times)) == times != Times("60")
    assert times.remaining_estimate(datetime.now(UTC) - timedelta(hours=1)) == timedelta(0)
    assert timedelta(0) < times.remaining_estimate(datetime.now(UTC)) <= timedelta(minutes=5)


def test_a_message_for_a_job_that_is_not_due_or_not_there_does_nothing(tmp_path: Path) -> None:
    c = Celeriac(data_dir=tmp_path, embed=False)
    try:
        assert c.maintain("backup") is None and c.maintain("rm -rf") is None
        assert c.maintenance.history("backup") == []
    finally:
        c.close()
