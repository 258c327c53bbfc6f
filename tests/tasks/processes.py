"""Real worker, beat and client processes for these tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import _die_with_parent

HERE = Path(__file__).parent


def until(condition: Callable[[], Any], seconds: float = 10.0, every: float = 0.02) -> Any:
    """Wait for a condition and give its value; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(every)


def environment(folder: Path, **settings: Any) -> dict[str, str]:
    """The environment of a process whose Celeriac works in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CELERIAC_")}
    ours = {"data_dir": folder / "data", "agents": "edge_agents", **settings}
    shown = {f"CELERIAC_{name.upper()}": str(value) for name, value in ours.items() if name.islower()}
    others = {name: str(value) for name, value in settings.items() if not name.islower()}
    return kept | shown | others | {"PYTHONPATH": str(HERE)}


def python(script: str, folder: Path, timeout: float = 60, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class Process:
    """A process in a group of its own, with a log."""

    def __init__(self, command: list[str], folder: Path, name: str, **settings: Any) -> None:
        self.log_path = folder / f"{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment(folder, **settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def children(self) -> list[int]:
        """The pids of its children."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Wait until the log says so."""

        def said() -> bool:
            assert self.process.poll() is None or text in self.log, (
                f"ended with {self.process.returncode}:\n{self.log[-3000:]}"
            )
            return text in self.log

        until(said, seconds)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as when a machine goes."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self, seconds: float = 20.0) -> int:
        """A warm shutdown; gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop in {seconds:g} s:\n{self.log[-3000:]}") from None


class Worker(Process):
    """`celery -A APP worker`, ready when it is made."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        app: str = "celeriac",
        name: str = "worker",
        wait: bool = True,
        **settings: Any,
    ) -> None:
        command = [
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-l",
            "INFO",
            "-n",
            f"{name}@test",
            "--without-mingle",
            *options,
        ]
        super().__init__(command, folder, name, **settings)
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        try:
            self.wait_for(" ready.")
        except BaseException:
            self.kill()
            raise


@contextmanager
def ended(*processes: Process) -> Iterator[None]:
    """Kill what is left of these processes at the end; when the test fails, show what they said."""
    try:
        yield
    except BaseException:
        for process in processes:
            print(f"--- {process.log_path.name}\n{process.log[-4000:]}")
        raise
    finally:
        for process in processes:
            process.kill()
