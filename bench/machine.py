"""What the figures were measured on: the disk's own rates, versions, and processes started for a measurement."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def fsync_rate(folder: Path, seconds: float = 1.0) -> float:
    """Appends of 4 KiB with fsync per second."""
    with tempfile.TemporaryFile(dir=folder) as file:
        count, until = 0, time.perf_counter() + seconds
        while time.perf_counter() < until:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            count += 1
    return count / seconds


def commit_rate(folder: Path, seconds: float = 1.0) -> float:
    """One-row commits per second of the SQLite in use: WAL, synchronous=FULL."""
    from celeriac.storage import sqlite

    connection = sqlite.library().connect(str(folder / "rate.db"))
    sqlite.prepare(connection)
    connection.execute("CREATE TABLE t (x TEXT)")
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES ('row')")
        connection.execute("COMMIT")
        count += 1
    connection.close()
    return count / seconds


def worker(app: str, name: str, environ: dict[str, str], queue: str, log: Path) -> subprocess.Popen[bytes]:
    """A prefork worker with one child."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        app,
        "worker",
        "-c",
        "1",
        "-n",
        f"{name}@bench",
        "-Q",
        queue,
        "-l",
        "WARNING",
        "--without-gossip",
        "--without-mingle",
    ]
    return subprocess.Popen(
        command,
        env={**os.environ, **environ},
        cwd=HERE,
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes that were started here."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def children(pid: int) -> list[int]:
    """Process ids of a process and all below it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += children(int(child))
    return found


def memory_mb(pid: int) -> float:
    """Proportional memory (PSS) of a process and all below it, in MB: shared pages are counted once."""
    total = 0
    for one in children(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def middle(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def quantile(values: list[float], part: float) -> float:
    """The value below which `part` of the values lie."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]
