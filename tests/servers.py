"""Servers that the tests start for themselves, on free ports of the loopback and in folders of their own.

Each dies with the process that started it, even when that one is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerMissing(Exception):
    """The server's program is not on this machine; the message says how to get it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens on that port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _die_with_parent() -> None:
    # Tied to the thread that starts the server: start servers from the main thread.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One server process with a folder of its own; `start` after `kill` or `stop` finds its data again."""

    name = "server"
    stop_signal = signal.SIGTERM
    start_seconds = 30.0

    def __init__(self, account: str | None = None) -> None:
        self.port = free_port()
        # Programs that refuse to run as root get their system account; a folder of pytest's would be closed to it.
        self._account = account if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix=f"celeriac-{self.name}-"))
        self.folder.chmod(0o755)
        if self._account is not None:
            entry = pwd.getpwnam(self._account)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        return answers(self.port)

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    @property
    def log(self) -> str:
        """The last of what the server said."""
        return (self.folder / "server.log").read_text(errors="replace")[-2000:]

    def start(self) -> None:
        """Starts the process and returns when it answers; raises RuntimeError with its log when it does not."""
        self.process = self.spawn(self.command())
        deadline = time.monotonic() + self.start_seconds
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log}")
            time.sleep(0.01)

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        as_account: dict[str, Any] = {}
        if self._account is not None:
            gid = pwd.getpwnam(self._account).pw_gid
            as_account = {"user": self._account, "group": gid, "extra_groups": []}
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                **as_account,
            )

    def stop(self) -> None:
        """Asks the server to stop and waits for it."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Ends the server as a crash would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freezes the server: its connections stay open and nothing answers, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stops the server and removes its folder."""
        self.resume()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def _end(self, number: int) -> None:
        self._signal(number)
        if self.process is not None:
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class RedisServer(Server):
    """A Redis that keeps nothing on disk and never evicts."""

    name = "redis-server"

    def __init__(self) -> None:
        self._program = _program("redis-server")
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        return [self._program, *(word for key, value in options.items() for word in (f"--{key}", str(value)))]

    def client(self, **options: Any) -> Any:
        """A `redis.Redis` for this server, with a timeout of five seconds."""
        import redis

        return redis.Redis(port=self.port, **{"socket_timeout": 5, "decode_responses": True, **options})


class PostgresServer(Server):
    """A PostgreSQL that syncs to disk as in production; user postgres, no password."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # a fast shutdown: does not wait for clients

    def __init__(self) -> None:
        self._initdb, self._postgres = _program("initdb", name=self.name), _program("postgres", name=self.name)
        self._has_template = False
        super().__init__(account="postgres")

    def start(self) -> None:
        if not (self.folder / "data").exists():
            options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
            made = self.spawn([self._initdb, "-D", str(self.folder / "data"), *options])
            if made.wait(timeout=60) != 0:
                raise RuntimeError(f"initdb failed:\n{self.log}")
        super().start()

    def url(self, dbname: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{dbname}"

    def command(self) -> list[str]:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "on",
            "synchronous_commit": "on",
            "max_connections": 200,
        }
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        return [self._postgres, "-D", str(self.folder / "data"), *settings]

    def ready(self) -> bool:
        import psycopg

        if answers(self.port):
            with contextlib.suppress(psycopg.OperationalError):
                self.execute("SELECT 1")
                return True
        return False

    def execute(self, statement: str) -> None:
        """Runs one statement outside any transaction, in the database postgres."""
        import psycopg

        plain = self.url().replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def create_database(self, name: str, ready: bool = False) -> str:
        """Makes a database, empty or with a schema that is `ready`, and gives its URL."""
        self.execute(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{self._template()}"' if ready else ""))
        return self.url(name)

    def _template(self) -> str:
        """The name of a database that has the schema, and nothing else."""
        if not self._has_template:
            from celeriac.storage import schema
            from celeriac.storage.database import Database

            database = Database(self.create_database("celeriac_template"))
            schema.ensure(database)
            database.dispose()
            self._has_template = True
        return "celeriac_template"

    def drop_database(self, name: str) -> None:
        """Drops a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def kill(self) -> None:
        # Leaves on disk what a crash leaves. After a SIGKILL, sessions that are still ending can prevent a start.
        self._end(signal.SIGQUIT)

    def _signal(self, number: int) -> None:
        # Each session is a process of its own, and is frozen with the server.
        if number in (signal.SIGSTOP, signal.SIGCONT) and self.process is not None and self.process.poll() is None:
            pid = self.process.pid
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), number)
        super()._signal(number)

    def restart(self, immediate: bool = False) -> None:
        """Restarts the server; `immediate` as after a crash: sessions are cut off and the log is replayed."""
        (self.kill if immediate else self.stop)()
        self.start()


class RabbitServer(Server):
    """A RabbitMQ node with an epmd of its own, both on the loopback alone."""

    name = "rabbitmq-server"
    start_seconds = 90.0

    def __init__(self) -> None:
        self._program = _program("rabbitmq-server")
        self._epmd_program = _program("epmd", name=self.name)
        super().__init__(account="rabbitmq")
        self._ports = {"epmd": free_port(), "dist": free_port()}
        self._epmd: subprocess.Popen[bytes] | None = None
        # The peer discovery and the default plugins of the machine's own node are left out.
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (self.folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self) -> list[str]:
        return [self._program]

    def environment(self) -> dict[str, str]:
        folder = self.folder
        return dict(os.environ) | {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"celeriac{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "absent"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Has the script become the node instead of waiting for it, so that our signals reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def ready(self) -> bool:
        import amqp

        if answers(self.port):
            with contextlib.suppress(OSError, amqp.AMQPError), amqp.Connection(f"127.0.0.1:{self.port}"):
                return True
        return False

    def start(self) -> None:
        # Started here, and so ended with us: one that Erlang starts would stay behind.
        if self._epmd is None:
            self._epmd = self.spawn([self._epmd_program])
        super().start()

    def close(self) -> None:
        super().close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()


def _program(program: str, name: str | None = None) -> str:
    """The path of a server's program, wherever Debian or the PATH has it; raises ServerMissing."""
    versioned = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[4]))
    # Debian's scripts around these change the account and the folders.
    places = [*versioned[::-1], Path("/usr/lib/rabbitmq/bin", program), Path("/usr/sbin", program)]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    if found := shutil.which(program):
        return found
    raise ServerMissing(f"{name or program} not found: install it or run make test as root on Debian")
