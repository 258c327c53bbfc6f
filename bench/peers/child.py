"""The end of a child: does the work that it is asked for, and says how long that took."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

PAD = "x" * 1000


def sizes() -> list[int]:
    """How many steps in sequence, how wide a fan-out, how many sessions, of how many steps."""
    return [int(n) for n in json.loads(sys.argv[1])]


def serve(package: str, *kinds: Callable[[], object]) -> None:
    """Answer until the parent ends."""
    print("answer", version(package), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        kinds[int(line)]()
        print("answer", time.perf_counter() - began, flush=True)
