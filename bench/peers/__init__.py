"""The same work in other systems, each in an interpreter of its own, beside Celeriac's embedded worker.

They are installed into an environment below the folder of the run, from the package index; without one they are left
out. Each child reads which work to do and writes how many seconds it took.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from run import EACH, KINDS, SEQUENCE, SESSIONS, WIDTH
from steps import calls_of

HERE = Path(__file__).parent
#: Script and what it needs.
PEERS = {
    "LangGraph, SqliteSaver, in process": ("langgraph_peer.py", ["langgraph", "langgraph-checkpoint-sqlite"]),
    "DBOS, SQLite, in process": ("dbos_peer.py", ["dbos"]),
}


def measure(base: Path, rounds: int) -> None:
    """Print steps per second of each; they take turns."""
    python = installed(base, [package for _, packages in PEERS.values() for package in packages])
    if python is None:
        return
    from celeriac import Celeriac

    celeriac = Celeriac(data_dir=str(base / "beside"), agents=["agents"])
    children = {name: Child(python, base, script) for name, (script, _) in PEERS.items()}
    systems = {"Celeriac, SQLite, embedded": _timed(calls_of(celeriac))}
    systems |= {name: child.seconds for name, child in children.items()}
    found: dict[str, list[list[float]]] = {name: [[] for _ in KINDS] for name in systems}
    turns = [(kind, name) for kind in range(len(KINDS)) for name in systems]
    try:
        for number, (kind, name) in itertools.product(range(rounds + 1), turns):
            took = systems[name](kind)
            if number:  # the first round warms up
                found[name][kind].append(took)
    finally:
        celeriac.close()
        for child in children.values():
            child.close()
    print(f"steps/s beside others, ~1 KB each, each on a SQLite file of its own, in turns, median of {rounds} rounds")
    print(f"  {'':36}" + "".join(f"{kind:>24}" for kind, _, _ in KINDS))
    for name, times in found.items():
        rates = [count / median(took) for (_, count, _), took in zip(KINDS, times, strict=True)]
        print(f"  {name:36}" + "".join(f"{rate:>24,.0f}" for rate in rates))
    print("  " + ", ".join(f"{name.partition(',')[0]} {child.version}" for name, child in children.items()) + "\n")


def installed(base: Path, needed: list[str]) -> Path | None:
    """The interpreter of an environment that has what is needed; None where it cannot be made."""
    python = base / "peers" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, str(base / "peers")],
        [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python), "--compile-bytecode", *needed],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"without others: {done.stderr.strip()[-300:]}\n")
            return None
    return python


def _timed(calls: tuple[Callable[[], object], ...]) -> Callable[[int], float]:
    def seconds(kind: int) -> float:
        began = time.perf_counter()
        calls[kind]()
        return time.perf_counter() - began

    return seconds


class Child:
    """Another system in an interpreter of its own."""

    def __init__(self, python: Path, base: Path, script: str, *given: str) -> None:
        sizes = json.dumps([SEQUENCE, WIDTH, SESSIONS, EACH])
        folder = base / script
        folder.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [str(python), str(HERE / script), sizes, *given],
                cwd=folder,
                env=kept,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.version = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("answer "):
                return line.split()[1]
        raise RuntimeError(f"{self._process.args} ended")

    def seconds(self, kind: int) -> float:
        """Have one kind of work done; gives how long it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
