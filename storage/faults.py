"""Crash points for tests: `CELERIAC_TEST_CRASHPOINT=name[:nth]` kills the process at the nth pass of that point.

Without the variable `point` is an empty function, so production code pays one call and nothing can fire.
Every name that may be asked for is in `POINTS` or `ARCHIVE_POINTS`; the crash tests walk these lists and fail if one
is never reached.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

POINTS = (
    "after-claim",
    "before-effect",
    "after-effect",
    "after-call",
    "before-commit",
    "after-commit-before-publish",
    "after-publish-before-mark",
    "before-blob-rename",
    "after-blob-rename",
    "before-report-rename",
)
#: Where a process may end while it brings an archive under another key; no session that runs comes by.
ARCHIVE_POINTS = (
    "archive-staged",
    "before-archive-rename",
    "after-archive-rename",
    "before-archive-row",
    "after-archive-row",
)


def _armed(setting: str) -> tuple[str, int]:
    name, _, nth = setting.partition(":")
    if name not in POINTS + ARCHIVE_POINTS:
        raise ValueError(f"CELERIAC_TEST_CRASHPOINT names {name!r}; known: {', '.join(POINTS + ARCHIVE_POINTS)}")
    return name, int(nth or 1)


_setting = os.environ.get("CELERIAC_TEST_CRASHPOINT", "")

if _setting:
    _name, _nth = _armed(_setting)
    _passes: Counter[str] = Counter()

    def point(name: str) -> None:
        """Die here, without any clean-up, if this is the armed point and the armed pass."""
        _passes[name] += 1
        if name == _name and _passes[name] == _nth:
            os.kill(os.getpid(), signal.SIGKILL)

else:

    def point(name: str) -> None:
        """Nothing is armed: nothing happens."""
