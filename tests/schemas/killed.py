"""Two versions of a schema, and a process that migrates between them and is killed: `python -m schemas.killed`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from driver import Driver

from celeriac.orchestration.schemas import Number, Schema, Schemas, String, convert, rename
from celeriac.orchestration.schemas.runs import Migrations
from celeriac.orchestration.schemas.values import KeyedValues
from celeriac.orchestration.state.classes import Values
from celeriac.orchestration.state.state import State
from celeriac.storage.states.opening import open_backend
from celeriac.storage.states.protocol import Write

FIRST = Schema("profile", "1.0.0", {"nom": String(), "age": String()})
SECOND = Schema(
    "profile",
    "2.0.0",
    {"name": String(), "age": Number()},
    compatibility="none",
    migrate=[rename("nom", "name"), convert("age", "number")],
)
TWO_VERSIONS = (FIRST, SECOND)


def state_of(driver: Driver, **options: Any) -> State:
    """A state in the driver's database; options are those of `Values`."""
    engine = driver.engine
    return State(open_backend("", engine.database, engine.blobs, 1 << 20), values=Values(1 << 24, **options))


class Killing(KeyedValues):
    """Ends this process before or after its n-th write."""

    where = "after"
    left = 0

    def write(self, scope: str, writes: Sequence[Write]) -> list[int]:
        Killing.left -= 1
        if Killing.left == 0 and self.where == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        versions = super().write(scope, writes)
        if Killing.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return versions


def main(url: str, folder: str, what: str, where: str, count: str) -> None:
    import celeriac.orchestration.schemas.runs as runs

    runs.KeyedValues = Killing  # type: ignore[misc]
    Killing.where, Killing.left = where, int(count)
    driver = Driver(url, Path(folder))
    schemas = Schemas()
    for one in TWO_VERSIONS:
        schemas.add(one)
    schemas.bind("agent:*", "profile*", "profile", "1.0.0")
    state = state_of(driver, schemas=schemas)
    migrations = Migrations(state, schemas, driver.engine)
    if what == "run":
        migrations.run("agent:a", schema="profile", to="2.0.0")
    else:
        migrations.undo(migrations.list()[0].run)


if __name__ == "__main__":
    main(*sys.argv[1:])
