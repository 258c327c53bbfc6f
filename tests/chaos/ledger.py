"""What really happened, written by the agents themselves into a file that the system under test knows nothing of."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CELERIAC_TEST_LEDGER"
PHASES = ("start", "effect", "end")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: step `key` (session/number) was in `phase` of its attempt `attempt`. Times are seconds."""

    key: str
    attempt: int
    pid: int
    phase: str
    monotonic: float
    wall: float

    @property
    def session_id(self) -> str:
        return self.key.partition("/")[0]


class Ledger:
    """An append-only file, one short line for each phase of each attempt. All processes share the clock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, key: str, attempt: int, phase: str) -> None:
        """Append a line. One `write` of less than a page with O_APPEND goes in whole, also when others write."""
        line = f"{key} {attempt} {os.getpid()} {phase} {time.monotonic():.6f} {time.time():.6f}\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def lines(self, phase: str | None = None) -> list[Line]:
        """All lines in the order in which they were written, or those of one phase."""
        if not self.path.exists():
            return []
        found = []
        for text in self.path.read_text().splitlines():
            key, attempt, pid, of, monotonic, wall = text.split(" ")
            assert of in PHASES, text
            if phase in (None, of):
                found.append(Line(key, int(attempt), int(pid), of, float(monotonic), float(wall)))
        return found

    def by_key(self, phase: str) -> dict[str, list[Line]]:
        """The lines of one phase by step."""
        found: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines(phase):
            found[line.key].append(line)
        return found


def here() -> Ledger:
    """The ledger that this process was told to write."""
    return Ledger(Path(os.environ[VARIABLE]))
