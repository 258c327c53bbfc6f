"""A process that makes or restores backups again and again, to be killed at any moment.

killed.py create|restore|restore-apart DATABASE_URL DATA_DIR BACKUPS_DIR
"""

from __future__ import annotations

import sys

from celeriac.config import Settings
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.backups import restoring
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.engine import Engine


def main(what: str, url: str, folder: str, backups_dir: str) -> None:
    """Go on until killed; says so before each start and after each end."""
    if what == "restore-apart":  # however small: by a process of its own
        restoring.APART_BYTES = 0
    settings = Settings.load({"data_dir": folder, "database_url": url, "backups_dir": backups_dir}, environ={})
    engine = Engine(settings, Registry())
    backups = Backups(engine, engine.caller)
    ids = [one.id for one in backups.list()]
    number = 0
    while True:
        print("begin", flush=True)
        if what == "create":
            print("made", backups.create(full=True).id, flush=True)
        else:
            backups.restore(ids[number % len(ids)], safety=False)
            print("restored", flush=True)
        number += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
