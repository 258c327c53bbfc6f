"""A user's own Celery app that Celeriac joins, with real workers over Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from servers import RedisServer

from celeriac import Celeriac
from celeriac.errors import SettingsError
from tasks.conftest import chain, fan, one
from tasks.processes import Worker, ended, until


class Proj:
    """The app `proj` with its worker, and a client of it in this process."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.signals = folder / "signals.jsonl"
        self.app = Celery("proj", broker=url, backend=url, set_as_current=False)
        self.app.conf.task_default_queue = "proj-tasks"
        self.c = Celeriac(self.app, data_dir=folder / "data", agents=["edge_agents"])
        self.settings = {"PROJ_BROKER": url, "PROJ_SIGNALS": self.signals, "sweep_seconds": 0.2}

    def worker(self, *options: str) -> Worker:
        return Worker(self.folder, *options, app="proj", **self.settings)

    def seen(self, name: str) -> list[dict[str, Any]]:
        lines = self.signals.read_text().splitlines() if self.signals.exists() else []
        return [line for line in map(json.loads, lines) if line["name"] == f"celeriac.agent.{name}"]


@pytest.fixture(scope="module")
def proj(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proj]:
    redis_server.client().flushall()
    made = Proj(tmp_path_factory.mktemp("proj"), redis_server.url)
    worker = made.worker("-c", "2")
    with ended(worker):
        yield made
        made.c.close()


def test_joining_an_app_connects_to_nothing_and_leaves_its_settings_open() -> None:
    app = Celery("late", set_as_current=False)
    Celeriac(app, data_dir="/nowhere/at/all")
    assert not app.configured
    app.conf.task_default_queue = "set-later"
    assert app.conf.task_default_queue == "set-later"


def test_an_app_that_accepts_pickle_is_refused(tmp_path: Path) -> None:
    app = Celery("open", broker="memory://", set_as_current=False)
    app.conf.accept_content = ["json", "pickle"]
    c = Celeriac(app, data_dir=tmp_path)
    with pytest.raises(SettingsError, match="'open' accepts pickle"):
        c.sessions.start(one("edge.inc"))


def test_a_worker_of_an_app_that_accepts_pickle_does_not_start(tmp_path: Path, redis_server: RedisServer) -> None:
    (tmp_path / "unsafe.py").write_text("from proj import app\napp.conf.accept_content = ['json', 'pickle']\n")
    with pytest.raises(AssertionError, match="'proj' accepts pickle"):
        Worker(tmp_path, "-c", "1", app="unsafe", PROJ_BROKER=redis_server.url, C_FORCE_ROOT=1)


def test_the_apps_own_tasks_go_on_beside_steps(proj: Proj) -> None:
    session = proj.c.sessions.start(chain(5))
    assert proj.app.send_task("proj.add", (2, 3)).get(timeout=10) == 5
    assert session.wait(10) == "completed" and session.result["n"] == 5


def test_a_fan_out_runs_in_all_children_of_the_pool(proj: Proj) -> None:
    session = proj.c.sessions.start(fan(12, "edge.nap", s=0.05))
    assert session.wait(10) == "completed"
    assert len({r["pid"] for r in session.result}) == 2


def test_an_agent_sees_itself_as_a_celery_task(proj: Proj) -> None:
    session = proj.c.sessions.start(one("edge.request"))
    assert session.wait(10) == "completed"
    seen = session.result
    assert seen["name"] == "celeriac.agent.edge.request"
    assert seen["id"].startswith(session.id) and seen["root_id"] == seen["celeriac_session"] == session.id
    assert (seen["hostname"], seen["retries"], seen["called_directly"]) == ("worker@test", 0, False)
    assert seen["kwargs"] == {"session": session.id, "step": "a", "attempt": 1}


def test_the_users_signal_handlers_see_agents_with_ids_of_their_own(proj: Proj) -> None:
    retried, failed = proj.c.sessions.start(one("edge.retried")), proj.c.sessions.start(one("edge.fails"))
    assert (retried.wait(15), failed.wait(15)) == ("completed", "failed")
    until(lambda: len(proj.seen("edge.retried")) == 9 and len(proj.seen("edge.fails")) == 3)
    per_signal: dict[str, set[str]] = {}
    for line in proj.seen("edge.retried"):
        per_signal.setdefault(line["signal"], set()).add(line["id"])
    assert {k: len(v) for k, v in per_signal.items()} == {
        "task_prerun": 3,
        "task_postrun": 3,
        "task_retry": 2,
        "task_success": 1,
    }
    assert [line["signal"] for line in proj.seen("edge.fails")] == ["task_prerun", "task_failure", "task_postrun"]


def _timeline(session: Any, task: str) -> list[str]:
    return [e.type for e in session.stream(follow=False) if e.component == "task" and e.data["task"] == task]


def test_tasks_sent_from_an_agent_are_on_its_sessions_timeline(proj: Proj) -> None:
    session = proj.c.sessions.start(one("edge.sends", task="proj.add", args=[1, 2]))
    assert session.wait(10) == "completed"
    until(lambda: _timeline(session, "proj.add") == ["task.started", "task.done"])


def test_tasks_of_tasks_belong_to_the_session_too(proj: Proj) -> None:
    session = proj.c.sessions.start(one("edge.sends", task="proj.outer", args=[3]))
    assert session.wait(10) == "completed"
    until(lambda: _timeline(session, "proj.outer").count("task.done") == 4)


def test_retries_failures_and_revocations_of_tasks_are_on_the_timeline(proj: Proj) -> None:
    flaky = proj.c.sessions.start(one("edge.sends", task="proj.flaky"))
    broken = proj.c.sessions.start(one("edge.sends", task="proj.broken"))
    late = proj.c.sessions.start(one("edge.sends", task="proj.add", args=[1, 1], options={"expires": -1}))
    assert {s.wait(10) for s in (flaky, broken, late)} == {"completed"}
    until(lambda: _timeline(flaky, "proj.flaky") == ["task.started", "task.retry", "task.started", "task.done"])
    until(lambda: _timeline(broken, "proj.broken") == ["task.started", "task.failed"])
    until(lambda: _timeline(late, "proj.add") == ["task.revoked"])


def test_tasks_outside_of_sessions_are_on_no_timeline(proj: Proj) -> None:
    result = proj.app.send_task("proj.add", (1, 1), headers={"celeriac_session": "no such session"})
    assert result.get(timeout=10) == 2
    assert proj.app.send_task("proj.add", (1, 1), headers={"celeriac_session": 7}).get(timeout=10) == 2


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_run_steps_too(pool: str, own_redis: RedisServer, tmp_path: Path) -> None:
    proj = Proj(tmp_path, own_redis.url)
    worker = proj.worker("-P", pool, "-c", "2")
    with ended(worker):
        session, task = proj.c.sessions.start(fan(8)), proj.app.send_task("proj.add", (1, 2))
        assert session.wait(15) == "completed"
        assert task.get(timeout=5) == 3
        assert proj.c.sessions.start(one("edge.sends", task="proj.add", args=[1, 2])).wait(10) == "completed"
        assert worker.stop() == 0
        assert "Traceback" not in worker.log
    proj.c.close()
