"""`make bench`: durable steps per second beside bare Celery, on this machine, in this run; latencies, memory, growth.

    python bench/run.py [--rounds 5] [--without-postgresql]
                        [--only steps,latency,peers,calls,growth,checkpoints,state,history,trees,cache,guard,backup]
                        [--backup-megabytes 1000]

Rounds of the systems alternate, so that a slow moment of the machine hits all of them; medians and their ratios are
printed. Bare Celery keeps its results in the same Redis; every step of Celeriac is committed with fsync.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

SEQUENCE, WIDTH, SESSIONS, EACH = 100, 200, 50, 20
KINDS = (
    (f"{SEQUENCE} in sequence", SEQUENCE, 6.0),
    (f"{WIDTH} fanned out, joined", WIDTH + 1, 3.0),
    (f"{SESSIONS} sessions of {EACH}", SESSIONS * EACH, 4.0),
)


def main() -> None:
    """Run what was asked for, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="steps,latency,peers,calls,growth,checkpoints,state,history,trees,cache,guard,backup"
    )
    parser.add_argument("--backup-megabytes", type=int, default=1000)
    parser.add_argument("--without-postgresql", action="store_true")
    options = parser.parse_args()
    wanted = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder:
        base = Path(folder)
        base.chmod(0o755)
        from machine import commit_rate, fsync_rate

        import celeriac

        print(f"Celeriac {celeriac.__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores")
        print(
            f"disk: {fsync_rate(base):,.0f} fsync/s of 4 KiB;"
            f" SQLite: {commit_rate(base):,.0f} one-row commits/s (WAL, FULL)\n"
        )
        if "steps" in wanted or "latency" in wanted:
            from steps import measure

            measure(base, options.rounds, wanted, postgresql=not options.without_postgresql)
        if "peers" in wanted:
            from peers import measure as beside_others

            beside_others(base, options.rounds)
        if "calls" in wanted:
            from calls import measure as called

            called(base, options.rounds)
        if "growth" in wanted:
            from growth import measure as grown

            grown(base, options.rounds)
        if "guard" in wanted:
            from guard import measure as guarded

            guarded(base)
        if "checkpoints" in wanted:
            from checkpoints import measure as kept

            kept(base)
        if "state" in wanted:
            from state import measure as kept_by_key

            kept_by_key(base, options.rounds)
        if "history" in wanted:
            from history import measure as said

            said(base, options.rounds)
        if "trees" in wanted:
            from trees import measure as branched

            branched(base, options.rounds)
        if "cache" in wanted:
            from cache import measure as cached

            cached(base, options.rounds)
        if "backup" in wanted:
            from backup import measure as backed_up

            backed_up(base, options.backup_megabytes, postgresql=not options.without_postgresql)


if __name__ == "__main__":
    began = time.time()
    main()
    print(f"\nmeasured in {time.time() - began:.0f} s")
