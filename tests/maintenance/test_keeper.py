"""One due time, one run: whoever looks, however many, and whatever becomes of who runs it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from celeriac.errors import MaintenanceError, StorageError
from celeriac.orchestration.maintenance.jobs import Run
from celeriac.orchestration.maintenance.maintenance import Maintenance, PastRun
from maintenance.conftest import Upkeep

MakeKeeper = Callable[..., Upkeep]
PERIOD = 100.0


def nothing(run: Run) -> dict[str, Any]:
    return {}


def runs(keeper: Upkeep, name: str = "job") -> list[PastRun]:
    return Maintenance(keeper._engine, keeper, keeper._engine.caller).history(name)


def made_due(keeper: Upkeep, periods: float = 1.0) -> None:
    """Let the clock of all processes stand so many periods later: due times before that are in the past."""
    keeper._look()
    keeper._engine.database.write(
        lambda tx: tx.run(text("UPDATE maintenance_jobs SET scheduled_at = scheduled_at - :ago"), ago=periods * PERIOD)
    )


def test_a_new_job_waits_for_its_first_time(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing})
    assert keeper.run_if_due("job", "beat") is None and runs(keeper) == []


def test_a_due_time_is_run_once_however_many_look(make_keeper: MakeKeeper) -> None:
    done: list[Run] = []
    keepers = [make_keeper({"job": lambda run: done.append(run) or {"n": 1}}) for _ in range(6)]
    made_due(keepers[0])
    threads = [threading.Thread(target=k.run_if_due, args=("job", "beat")) for k in keepers for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (one,) = runs(keepers[0])
    assert len(done) == 1 and (one.outcome, one.detail, one.source, one.epoch) == ("done", {"n": 1}, "beat", 1)
    assert one.scheduled_at % PERIOD == 0 and one.seconds is not None


def test_times_that_were_missed_are_caught_up_once(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing})
    made_due(keeper, 50)
    assert keeper.run_if_due("job", "beat") is not None and keeper.run_if_due("job", "beat") is None
    assert len(runs(keeper)) == 1


def test_a_run_that_takes_longer_than_its_period_does_not_overlap_itself(make_keeper: MakeKeeper) -> None:
    running, go_on = threading.Event(), threading.Event()

    def slow(run: Run) -> dict[str, Any]:
        running.set()
        assert go_on.wait(10)
        return {}

    first, second = make_keeper({"job": slow}), make_keeper({"job": nothing})
    made_due(first)
    thread = threading.Thread(target=first.run_if_due, args=("job", "beat"))
    thread.start()
    assert running.wait(5)
    second.later = 3 * PERIOD
    assert second.run_if_due("job", "beat") is None
    second.attend(threading.Event())
    with pytest.raises(MaintenanceError, match="the job job is at work already"):
        second.run_now("job")
    go_on.set()
    thread.join()
    assert [one.outcome for one in runs(first)] == ["done"]
    second.run_if_due("job", "beat")
    assert [one.outcome for one in runs(first)] == ["done", "done"]


def test_a_job_that_fails_is_tried_again_at_its_next_time(make_keeper: MakeKeeper) -> None:
    def fails(run: Run) -> dict[str, Any]:
        raise ValueError("the disk of postgresql://me:hunter2@db is full")

    keeper = make_keeper({"job": fails})
    made_due(keeper)
    ended = keeper.run_if_due("job", "beat")
    assert ended is not None and ended.outcome == "failed"
    (one,) = runs(keeper)
    assert "ValueError: the disk of" in str(one.error) and "hunter2" not in str(one.error)
    assert keeper.run_if_due("job", "beat") is None
    keeper.later = PERIOD
    assert keeper.run_if_due("job", "beat") is not None


@pytest.mark.parametrize(("fault", "traced"), [(StorageError("the disk is full"), False), (ValueError("a bug"), True)])
def test_only_what_nobody_expects_is_logged_with_a_traceback(
    make_keeper: MakeKeeper, caplog: pytest.LogCaptureFixture, fault: Exception, traced: bool
) -> None:
    def fails(run: Run) -> dict[str, Any]:
        raise fault

    keeper = make_keeper({"job": fails})
    made_due(keeper)
    keeper.run_if_due("job", "beat")
    (record,) = (one for one in caplog.records if "the job job failed" in one.message)
    assert bool(record.exc_info) is traced


def die_at(keeper: Upkeep) -> None:
    """Take the job in a child, which is killed at it."""
    keeper._engine.database.dispose()
    if (child := os.fork()) == 0:
        keeper.run_if_due("job", "beat")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_the_job_of_a_killed_runner_is_taken_over_for_the_same_time(make_keeper: MakeKeeper) -> None:
    parent = os.getpid()

    def deadly(run: Run) -> dict[str, Any]:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"epoch": run.epoch}

    keeper = make_keeper({"job": deadly})
    made_due(keeper)
    die_at(keeper)
    assert [one.outcome for one in runs(keeper)] == ["running"]  # its lease has not ended
    keeper.attend(threading.Event())  # its lock file tells that it is dead
    (one,) = runs(keeper)
    assert (one.outcome, one.detail, one.epoch, one.source) == ("done", {"epoch": 2}, 2, "worker")


def test_a_time_that_kills_its_runners_is_given_up_and_the_next_one_tried(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": lambda run: os.kill(os.getpid(), signal.SIGKILL)})
    made_due(keeper)
    for _ in range(3):
        die_at(keeper)
    keeper.attend(threading.Event())  # would kill this process
    (one,) = runs(keeper)
    assert one.epoch == 3
    healthy = make_keeper({"job": nothing})
    healthy.later = PERIOD
    healthy.attend(threading.Event())
    assert [one.outcome for one in runs(keeper)] == ["done", "lost"]


def test_a_runner_that_was_silent_for_too_long_records_nothing(make_keeper: MakeKeeper) -> None:
    second = make_keeper({"job": lambda run: {"by": "second"}}, lease_seconds=0.3)

    def suspended(run: Run) -> dict[str, Any]:
        time.sleep(0.5)
        assert second.run_if_due("job", "beat") is not None
        return {"by": "first"}

    first = make_keeper({"job": suspended}, lease_seconds=0.3)
    first._engine.database.write = _deaf(first._engine.database.write)  # type: ignore[method-assign]
    made_due(first)
    ended = first.run_if_due("job", "beat")
    assert ended is not None and ended.outcome == "lost"
    (one,) = runs(first)
    assert (one.detail, one.epoch) == ({"by": "second"}, 2)


def _deaf(write: Any) -> Any:
    """The lease is renewed as far as its runner knows, and is not."""

    def wrapped(*args: Any, **more: Any) -> Any:
        return True if threading.current_thread().name.startswith("celeriac-lease") else write(*args, **more)

    return wrapped


def test_a_worker_that_stops_gives_its_job_back(make_keeper: MakeKeeper) -> None:
    ending = threading.Event()

    def long(run: Run) -> dict[str, Any]:
        ending.set()
        run.check()
        raise AssertionError

    first, second = make_keeper({"job": long}), make_keeper({"job": nothing})
    made_due(first)
    first.run_if_due("job", "worker", ending)
    assert [one.outcome for one in runs(first)] == ["stopped"]
    second.attend(threading.Event())
    assert [one.outcome for one in runs(first)] == ["done"]


@pytest.mark.parametrize(("source", "outcomes"), [("hand", ["failed"]), ("worker", ["done"])])
def test_a_run_that_is_interrupted_is_given_back_unless_it_was_by_hand(
    make_keeper: MakeKeeper, source: str, outcomes: list[str]
) -> None:
    def interrupted(run: Run) -> dict[str, Any]:
        raise KeyboardInterrupt

    first, second = make_keeper({"job": interrupted}), make_keeper({"job": nothing})
    made_due(first)
    with pytest.raises(KeyboardInterrupt):
        first.run_now("job") if source == "hand" else first.run_if_due("job", "worker")
    second.attend(threading.Event())
    assert [one.outcome for one in runs(first)] == outcomes


def test_a_run_by_hand_counts_as_the_run_of_a_time_that_was_missed(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing})
    made_due(keeper)
    assert keeper.run_now("job").outcome == "done" and runs(keeper)[0].source == "hand"
    assert keeper.run_if_due("job", "beat") is None
    keeper.later = PERIOD
    assert keeper.run_if_due("job", "beat") is not None
    with pytest.raises(MaintenanceError, match="there is no job 'jop'; there are: job"):
        keeper.run_now("jop")


def test_a_job_that_is_off_runs_by_hand_alone(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing}, {"job": "off"})
    made_due(keeper)
    assert keeper.run_if_due("job", "beat") is None and keeper.attend(threading.Event()) > 1
    assert keeper.run_now("job").outcome == "done"


def test_workers_leave_a_job_to_beat_for_a_while(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing})
    keeper.attend(threading.Event())
    keeper.later = keeper.schedules["job"].following(keeper._clock()) - keeper._clock() + 1
    assert 0 < keeper.attend(threading.Event()) <= 9 and runs(keeper) == []
    keeper.later += 10
    keeper.attend(threading.Event())
    assert [one.source for one in runs(keeper)] == ["worker"]


def test_who_waits_for_the_next_time_asks_the_database_nothing(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing})
    keeper.attend(threading.Event())
    keeper._engine.database.dispose()
    read, asked = keeper._engine.database.read, []
    keeper._engine.database.read = lambda *a: asked.append(a) or read(*a)  # type: ignore[method-assign]
    due = keeper.schedules["job"].following(keeper._clock()) - keeper._clock()
    for share in range(10):
        keeper.later = due * share / 10
        assert 0 < keeper.attend(threading.Event()) <= 60
    assert not asked


def test_only_so_many_runs_are_kept(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper({"job": nothing}, maintenance_kept=3)
    for _ in range(6):
        keeper.run_now("job")
    assert [one.epoch for one in runs(keeper)] == [6, 5, 4]
