"""The servers that the tests start for themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import sqlalchemy
from kombu import Connection
from servers import PostgresServer, RabbitServer, RedisServer, answers


def test_redis_answers_and_comes_back_after_a_kill(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.set("key", "value")
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    redis_server.kill()
    assert not answers(redis_server.port)
    redis_server.start()
    assert redis_server.client().get("key") is None


def test_a_paused_redis_keeps_its_connections_and_says_nothing(redis_server: RedisServer) -> None:
    import redis

    client = redis_server.client(socket_timeout=0.2, retry=None)
    assert client.ping()
    redis_server.pause()
    try:
        with pytest.raises(redis.TimeoutError):
            client.ping()
    finally:
        redis_server.resume()
    assert redis_server.client().ping()


def test_each_test_has_an_empty_database(database_url: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    with engine.begin() as connection:
        assert sqlalchemy.inspect(connection).get_table_names() == []
        connection.exec_driver_sql("CREATE TABLE t (a integer)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    engine.dispose()


def test_postgresql_keeps_what_was_committed_through_an_immediate_restart(postgres_server: PostgresServer) -> None:
    engine = sqlalchemy.create_engine(postgres_server.create_database("restarted"))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SHOW fsync").scalar() == "on"
        connection.exec_driver_sql("CREATE TABLE t AS SELECT 7 AS a")
    postgres_server.restart(immediate=True)
    engine.dispose()
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT a FROM t").scalar() == 7
    engine.dispose()
    postgres_server.drop_database("restarted")


def test_a_paused_postgresql_keeps_its_sessions_and_says_nothing(postgres_server: PostgresServer) -> None:
    engine = sqlalchemy.create_engine(postgres_server.url())
    with engine.connect() as connection, ThreadPoolExecutor(1) as background:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        postgres_server.pause()
        try:
            answer = background.submit(lambda: connection.exec_driver_sql("SELECT 7").scalar())
            assert not wait([answer], timeout=0.2).done
        finally:
            postgres_server.resume()
        assert answer.result(timeout=5) == 7
    engine.dispose()


@pytest.mark.slow
def test_rabbitmq_carries_a_message(rabbitmq_server: RabbitServer) -> None:
    with Connection(rabbitmq_server.url) as connection:
        queue = connection.SimpleQueue("probe")
        queue.put({"step": 1})
        message = queue.get(timeout=5)
        message.ack()
        assert message.payload == {"step": 1}
        queue.close()


def test_a_server_dies_with_a_killed_test_run(redis_server: RedisServer) -> None:
    program = (
        "from servers import RedisServer; import time; s = RedisServer(); s.start();"
        "print(s.port, s.process.pid, s.folder, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    assert owner.stdout is not None
    port, pid, folder = owner.stdout.readline().split()
    assert answers(int(port))
    owner.kill()
    owner.wait()
    deadline = time.monotonic() + 5
    while answers(int(port)) and time.monotonic() < deadline:
        time.sleep(0.01)
    alive = answers(int(port))
    if alive:
        os.kill(int(pid), signal.SIGKILL)
    Path(folder, "server.log").unlink()
    Path(folder).rmdir()
    assert not alive


def test_a_missing_server_skips_by_name_and_fails_where_servers_are_required(tmp_path: Path) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "servers.py").write_text(
        Path(__file__).with_name("servers.py").read_text().replace('_program("redis-server")', '_program("no-such")')
    )
    (tmp_path / "test_it.py").write_text("def test_it(redis_server): pass\n")

    def run(**extra: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "CELERIAC_REQUIRE_SERVERS"} | extra
        command = [sys.executable, "-m", "pytest", "-rs", "-q", "-p", "no:cacheprovider", "test_it.py"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    assert "no-such not found: install it or run make test as root on Debian" in run()
    assert "1 error" in run(CELERIAC_REQUIRE_SERVERS="1")
