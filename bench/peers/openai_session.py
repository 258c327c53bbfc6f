"""OpenAI's agents SDK: appending to its SQLiteSession, and reading the last messages of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib.metadata import version
from statistics import median

from agents import SQLiteSession

APPENDS, READS, ENTRIES, LAST, BYTES = json.loads(sys.argv[2])
TEXT = "x" * BYTES


async def main() -> None:
    """Serve `0` (appends) and `1` (reads) until standard input ends: the median of single ones, in seconds."""
    full = SQLiteSession("full", "session.db")
    await full.add_items([{"role": "user", "content": TEXT} for _ in range(ENTRIES)])
    growing = SQLiteSession("growing", "session.db")
    print("answer", version("openai-agents"), flush=True)
    for line in sys.stdin:
        count = READS if int(line) else APPENDS
        times = []
        for _ in range(count):
            began = time.perf_counter()
            if int(line):
                await full.get_items(LAST)
            else:
                await growing.add_items([{"role": "user", "content": TEXT}])
            times.append(time.perf_counter() - began)
        print("answer", median(times), flush=True)


asyncio.run(main())
