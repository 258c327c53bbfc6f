"""A handful of tests on pytest-celery's nodes: local processes, and its Redis container where Docker answers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryBrokerCluster, CeleryTestBroker, CeleryTestSetup, CeleryTestWorker, CeleryWorkerCluster
from servers import RedisServer

from celeriac import Celeriac
from tasks.conftest import chain, one
from tasks.processes import Worker

SIGNALS = {one.name: one for one in signal.Signals}


class LocalProcess:
    """As much of a container as a node of pytest-celery asks for, over a process of this machine."""

    def __init__(self, name: str, start: Callable[[], Any], config: dict[str, Any]) -> None:
        self.name = self.id = name
        self.celeryconfig = config
        self._start = start
        self.process = start()

    @property
    def status(self) -> str:
        return "running" if self._popen.poll() is None else "exited"

    @property
    def _popen(self) -> Any:
        return self.process.process

    def ready(self) -> bool:
        if isinstance(self.process, Worker):
            self.process.wait_until_ready()
        return self.status == "running"

    def logs(self) -> str:
        return str(self.process.log)

    def kill(self, signal: str | int = signal.SIGKILL) -> None:
        number = SIGNALS[signal] if isinstance(signal, str) else signal
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)
        self._popen.wait(20)

    def reload(self) -> None:
        """A process has no attributes to fetch anew."""

    def restart(self, timeout: float | None = None) -> None:
        if self.status == "running":
            self.kill("SIGTERM")
        self.process = self._start()

    def teardown(self) -> None:
        if self.status == "running":
            self.kill()

    def worker_name(self) -> str:
        return self.name

    def worker_queue(self) -> str:
        return "celeriac"

    def log_level(self) -> str:
        return "INFO"

    def version(self) -> str:
        from celery import __version__

        return str(__version__)


def _docker_answers() -> bool:
    docker = pytest.importorskip("docker")
    with contextlib.suppress(docker.errors.DockerException):
        return bool(docker.from_env().ping())
    return False


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def celery_broker(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[CeleryTestBroker]:
    if request.param == "docker":
        if not _docker_answers():
            pytest.skip("no Docker engine answers")
        yield request.getfixturevalue("celery_redis_broker")
        return
    server = RedisServer()

    def start() -> RedisServer:
        server.start()
        return server

    node = CeleryTestBroker(LocalProcess("redis", start, {"url": server.url, "host_url": server.url}))
    yield node
    node.teardown()
    server.close()


@pytest.fixture
def celery_broker_cluster(celery_broker: CeleryTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend_cluster() -> None:
    """Steps need no result backend."""


@pytest.fixture
def celeriac_of_test(celery_broker: CeleryTestBroker, tmp_path: Path) -> Iterator[Celeriac]:
    made = Celeriac(data_dir=tmp_path / "data", agents=["edge_agents"], broker_url=celery_broker.config()["host_url"])
    yield made
    made.close()


@pytest.fixture
def celery_setup_app(celeriac_of_test: Celeriac) -> Any:
    return celeriac_of_test.app


@pytest.fixture
def celery_worker_cluster(
    celery_broker: CeleryTestBroker, celery_setup_app: Any, tmp_path: Path
) -> Iterator[CeleryWorkerCluster]:
    url = celery_broker.config()["host_url"]

    def node(name: str) -> CeleryTestWorker:
        process = LocalProcess(name, lambda: Worker(tmp_path, "-c", "1", name=name, wait=False, broker_url=url), {})
        return CeleryTestWorker(process, celery_setup_app)

    cluster = CeleryWorkerCluster(node("first"), node("second"))
    yield cluster
    cluster.teardown()


def test_a_session_runs_on_the_nodes(celery_setup: CeleryTestSetup, celeriac_of_test: Celeriac) -> None:
    assert celeriac_of_test.sessions.start(chain(5)).wait(15) == "completed"


def test_a_killed_worker_loses_no_step_and_comes_back(
    celery_setup: CeleryTestSetup, celeriac_of_test: Celeriac, tmp_path: Path
) -> None:
    sessions = [celeriac_of_test.sessions.start(chain(4, "edge.nap", s=0.1)) for _ in range(6)]
    celery_setup.worker.kill()
    assert {s.wait(20) for s in sessions} == {"completed"}
    celery_setup.worker.restart()
    celery_setup.worker.assert_log_exists("ready.")
    assert celeriac_of_test.sessions.start(one("edge.inc")).wait(10) == "completed"


def test_a_broker_that_is_restarted_brings_hints_again(
    celery_setup: CeleryTestSetup, celeriac_of_test: Celeriac
) -> None:
    celery_setup.broker.restart(force=True)
    session = celeriac_of_test.sessions.start(chain(3))
    assert session.wait(30) == "completed"
