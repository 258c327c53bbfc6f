"""A process that adds 1 to a key so many times: `python counting.py URL FOLDER COUNT`. Begins when it is told to."""

from __future__ import annotations

import sys
from pathlib import Path

from celeriac.orchestration.state.state import State
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.states.opening import open_backend


def main(url: str, folder: str, count: int) -> None:
    unused = Database(f"sqlite:///{folder}/unused.db")
    state = State(open_backend(url, unused, BlobStore(Path(folder) / "blobs"), 1 << 20))
    state.get("global", "n")
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(count):
        state.update("global", "n", lambda value: value + 1, 0)
    print(state.get("global", "n"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
