"""Without a broker: steps run in threads of the process that starts them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.errors import SessionNotFound, StorageError
from celeriac.tasks import serving
from tasks.conftest import chain, one
from tasks.processes import Process, ended, python, until

START = """
import time
began = time.monotonic()
from celeriac import Celeriac, Plan, step
c = Celeriac()
session = c.sessions.start(Plan("p", [step("a", "edge.inc", {})]))
status = session.wait()
print(status, round(time.monotonic() - began, 3))
"""


#: Importing Celery and SQLAlchemy, which nobody can do without: how slow the machine is just now.
FLOOR = """
import time
began = time.perf_counter()
import celery.app.base, celery.worker, pydantic, sqlalchemy
print(round(time.perf_counter() - began, 3))
"""


def test_a_fresh_process_has_its_first_step_done_within_a_second(tmp_path: Path) -> None:
    python("import edge_agents, celeriac.tasks.app", tmp_path)  # compiles what is not compiled yet
    took = []
    while not took or (min(took) >= 1 and len(took) < 5):  # a machine that others use is slow now and then
        done = python(START, tmp_path)
        status, seconds = done.stdout.split()
        assert (status, done.stderr) == ("completed", "")
        took.append(float(seconds))
    floor = min(float(python(FLOOR, tmp_path).stdout) for _ in range(2))
    print(f"imports to first result: {took} s; what it stands on is imported in {floor} s")
    assert min(took) < max(1, 3.5 * floor)  # 3 times is usual


def test_a_failing_step_prints_nothing(tmp_path: Path) -> None:
    script = START.replace("edge.inc", "edge.fails")
    done = python(script, tmp_path)
    assert done.stdout.startswith("failed") and done.stderr == ""


def test_an_output_outlives_a_database_that_is_away(tmp_path: Path, client: Any, monkeypatch: Any) -> None:
    c = client(tmp_path)
    record, tries = c.engine.finish, []

    def finish(*args: Any) -> Any:
        tries.append(args)
        if len(tries) < 3:
            raise StorageError("the database is away")
        return record(*args)

    monkeypatch.setattr(c.engine, "finish", finish)
    monkeypatch.setattr(serving, "RECORD_AGAIN_SECONDS", 0.02)
    session = c.sessions.start(one("edge.inc"))
    assert session.wait(10) == "completed"
    assert [s["attempts"] for s in session.steps()] == [1] and len(tries) == 3


def test_two_celeriacs_in_one_process_do_not_mix(tmp_path: Path, client: Any) -> None:
    a, b = client(tmp_path / "a"), client(tmp_path / "b")
    of_a = [a.sessions.start(chain(5)) for _ in range(5)]
    of_b = [b.sessions.start(chain(5)) for _ in range(5)]
    assert {s.wait(10) for s in of_a + of_b} == {"completed"}
    with pytest.raises(SessionNotFound):
        a.sessions.get(of_b[0].id)
    a.close()
    assert b.sessions.start(chain(3)).wait(10) == "completed", "stopping one worker stopped the other"


def test_many_starts_and_stops_leave_no_thread_behind(tmp_path: Path) -> None:
    def run() -> None:
        c = Celeriac(data_dir=tmp_path / "data", agents=["edge_agents"])
        assert c.sessions.start(chain(2)).wait(10) == "completed"
        began = time.monotonic()
        c.close()
        assert time.monotonic() - began < 2

    run()
    before = set(threading.enumerate())
    for _ in range(5):
        run()
    time.sleep(0.2)
    # The heartbeat of each Celeriac stays: a thread that waits.
    left = sorted(t.name for t in set(threading.enumerate()) - before)
    assert left == ["celeriac-heartbeat"] * len(left)


def test_stopping_lets_the_running_step_finish_and_starts_no_other(tmp_path: Path, client: Any) -> None:
    c = client(tmp_path)
    session = c.sessions.start(chain(3, "edge.nap", s=0.4))
    until(lambda: session.steps()[0]["status"] == "running")
    c.close()
    assert [s["status"] for s in session.steps()] == ["done", "ready", "blocked"]
    assert session.wait(10) == "completed"


def test_an_exit_in_the_middle_leaves_a_session_that_goes_on_elsewhere(tmp_path: Path, client: Any) -> None:
    script = START.replace("status = session.wait()", "time.sleep(0.3); status = session.id")
    began = time.monotonic()
    done = python(script.replace('"edge.inc", {}', '"edge.nap", {"s": 1}'), tmp_path)
    assert done.stderr == "" and time.monotonic() - began < 10
    assert client(tmp_path).sessions.get(done.stdout.split()[0]).wait(10) == "completed"


SERVE = ["-c", "from celeriac import Celeriac; c = Celeriac(); print('up', flush=True); c.serve()"]


def test_a_session_of_another_process_is_taken_up_within_a_fifth_of_a_second(tmp_path: Path, client: Any) -> None:
    server = Process(SERVE, tmp_path, "serve")
    with ended(server):
        server.wait_for("up")
        c = client(tmp_path, embed=False)
        assert c.sessions.start(one("edge.inc")).wait(20) == "completed"
        waits = []
        for _ in range(20):
            session = c.sessions.start(one("edge.inc"))
            began = time.time()
            assert session.wait(5) == "completed"
            waits.append(time.time() - began)
            time.sleep(0.03)
        print(
            f"from start here to done there: median {sorted(waits)[10] * 1e3:.0f} ms, worst {max(waits) * 1e3:.0f} ms"
        )
        assert sorted(waits)[-4] < 0.2  # but for a few: a machine that others use is slow now and then
        assert server.stop() == 0
        assert server.log == "up\n"


def test_an_interrupted_server_finishes_its_step_and_ends(tmp_path: Path, client: Any) -> None:
    server = Process(SERVE, tmp_path, "serve")
    with ended(server):
        server.wait_for("up")
        session = client(tmp_path, embed=False).sessions.start(chain(2, "edge.nap", s=0.8))
        until(lambda: session.steps()[0]["status"] == "running")
        server.signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert [s["status"] for s in session.steps()] == ["done", "ready"]
        assert "Traceback" not in server.log


def test_a_second_interrupt_ends_a_server_at_once(tmp_path: Path, client: Any) -> None:
    server = Process(SERVE, tmp_path, "serve")
    with ended(server):
        server.wait_for("up")
        session = client(tmp_path, embed=False).sessions.start(one("edge.nap", s=60))
        until(lambda: session.steps()[0]["status"] == "running")
        server.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.process.wait(5) == -signal.SIGTERM


def test_making_one_writes_nothing_and_starts_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    c = Celeriac(data_dir=tmp_path / "data", broker_url="redis://127.0.0.1:1/0", redis_url="redis://127.0.0.1:1/1")
    assert threading.active_count() == threads
    assert not (tmp_path / "data" / "celeriac.db").exists()
    c.close()
    assert os.listdir(tmp_path) in ([], ["data"])


def test_results_of_ordinary_tasks_can_be_waited_for_beside_an_embedded_worker(tmp_path: Path, client: Any) -> None:
    from celery import current_app
    from celery.result import assert_will_not_block

    before = current_app._get_current_object()
    c = client(tmp_path)
    assert c.sessions.start(one("edge.inc")).wait(10) == "completed"
    assert_will_not_block()
    assert current_app._get_current_object() is before


def test_a_fault_that_nobody_foresaw_in_recording_fails_the_step_and_is_told(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = client(tmp_path)

    def finish(*_: Any, **__: Any) -> None:
        raise OverflowError("too large for the database")

    monkeypatch.setattr(c.engine, "finish", finish)
    session = c.sessions.start(one("edge.inc"))
    assert session.wait(10) == "failed"
    assert "OverflowError: too large for the database" in session.error
