"""Worker processes, each in a process group of its own, killed by the ids that were noted when they were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).parents[1]


def environment(settings: Mapping[str, object], **variables: str) -> dict[str, str]:
    """The environment of a process of the system under test: these settings and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CELERIAC_")}
    ours = {f"CELERIAC_{name.upper()}": str(value) for name, value in settings.items()}
    return kept | ours | variables | {"PYTHONPATH": str(TESTS)}


class Process:
    """A Celery process of the system under test. `start` after `kill` is a new one in its place."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str], app: str, *words: str) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._folder = folder
        self._env = dict(env)
        self._command = [sys.executable, "-m", "celery", "-A", app, *words]
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[int]:
        """Process ids of its pool."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to this worker's group."""
        with suppress(ProcessLookupError):
            return os.getpgid(pid) == self.pid
        return False

    def kill(self) -> None:
        """SIGKILL to the whole group: a machine that goes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


class Worker(Process):
    """A `celery worker`."""

    def __init__(
        self, name: str, folder: Path, env: Mapping[str, str], concurrency: int, pool: str, app: str = "chaos.worker"
    ) -> None:
        options = {"concurrency": concurrency, "pool": pool, "loglevel": "WARNING", "hostname": f"{name}@test"}
        words = [f"--{option}={value}" for option, value in options.items()]
        super().__init__(name, folder, env, app, "worker", *words, "--without-gossip", "--without-mingle")


class Beat(Process):
    """A `celery beat`, with a file of its own for what it has sent."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str], app: str) -> None:
        super().__init__(name, folder, env, app, "beat", f"--schedule={folder / name}", "--pidfile=")
