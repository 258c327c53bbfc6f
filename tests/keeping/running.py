"""Another process that runs retention: `running.py URL FOLDER [die]`; told to die, it is killed after a few batches."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from driver import Driver

from celeriac.orchestration.keeping.retention import Retention
from celeriac.storage import batches


def main(url: str, folder: str, *die: str) -> None:
    if die:
        left, once = [random.randint(1, 12)], batches.Batches._one

        def counted(self: Any, *args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return once(self, *args)

        batches.Batches._one = counted  # type: ignore[method-assign]
    names = ("completed", "cancelled", "events", "checkpoints")
    driver = Driver(url, Path(folder), **{f"retention_{name}_days": 30.0 for name in names})
    found = Retention(driver.engine, driver.engine.caller).run()
    print(sum(one.count for name, one in found.kinds.items() if name.startswith("sessions")))
    driver.close()


main(*sys.argv[1:])
