"""A process that makes backups of a store at work, to be killed in one of them.

python -m chaos.saver DATABASE_URL DATA_DIR BACKUPS_DIR PAUSE FULL
"""

from __future__ import annotations

import sys
import time

from celeriac.config import Settings
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.engine import Engine


def main(url: str, folder: str, backups_dir: str, pause: float, full: bool) -> None:
    """One backup each `pause` seconds until killed; says so before each and after each."""
    settings = Settings.load(
        {"data_dir": folder, "database_url": url, "backups_dir": backups_dir, "inline_result_bytes": 1000}, environ={}
    )
    engine = Engine(settings, Registry())
    backups = Backups(engine, engine.caller)
    while True:
        began = time.monotonic()
        print("begin", flush=True)
        print("made", backups.create(full=full).id, flush=True)
        time.sleep(max(pause - (time.monotonic() - began), 0))


if __name__ == "__main__":
    main(*sys.argv[1:4], float(sys.argv[4]), sys.argv[5] == "full")
