"""Runs plan.yaml in this process: no server, no second terminal. Run it twice: nothing is done a second time.

python examples/run_plan.py
"""

from __future__ import annotations

import json
from pathlib import Path

from celeriac import Celeriac, Plan

HERE = Path(__file__).parent


def main() -> None:
    """Start the plan (or find the session that was started before), follow it to its end, print what it gave."""
    celeriac = Celeriac(agents=["agents"])
    plan = Plan.from_file(HERE / "plan.yaml")
    with celeriac.embedded():
        session = celeriac.sessions.start(plan, query="How long are they?", key="words of three texts")
        for event in session.stream():
            print(f"{event.seq:3} {event.type:18} {event.step or ''}")
        print(json.dumps(session.result, indent=2))


if __name__ == "__main__":
    main()
