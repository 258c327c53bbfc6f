"""A process that archives and restores sessions again and again, to be killed at any moment.

killed.py DATABASE_URL DATA_DIR [ROOT]

With the root of a tree it is that tree, as a whole.
"""

from __future__ import annotations

import sys

from celeriac.config import Settings
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.engine import Engine
from celeriac.orchestration.sessions import Sessions


def main(url: str, folder: str, *roots: str) -> None:
    """Go on until killed; says so before the start and after each move."""
    settings = Settings.load({"data_dir": folder, "database_url": url, "inline_result_bytes": 2000}, environ={})
    engine = Engine(settings, Registry())
    archives = Archives(engine, engine.caller, Sessions(engine))
    print("begin", flush=True)
    while True:
        known = Sessions(engine)
        for session in map(known.get, roots) if roots else known.list(status=["completed", "archived"]):
            if session.status == "archived":
                archives.restore(session.id, recursive=bool(roots))
            else:
                archives.create(session.id, recursive=bool(roots))
            print("moved", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
