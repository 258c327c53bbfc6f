"""A thousand checkpoints of an agent's state of 100 KB that grows by 100 bytes a time."""

from __future__ import annotations

import random
import string
import time
from pathlib import Path

import machine

COUNT = 1000
START_BYTES = 100_000
GROWTH = 100


def measure(base: Path) -> None:
    """Write the checkpoints, restore some, print time and bytes each."""
    from celeriac import Celeriac
    from celeriac.orchestration.memory import remembering
    from celeriac.orchestration.memory.memory import Changes
    from celeriac.storage import serial

    celeriac = Celeriac(data_dir=str(base / "checkpoints"), embed=False)
    engine = celeriac.engine
    session = celeriac.sessions.create("a long conversation")
    dice = random.Random(1)

    def text() -> str:
        return "".join(dice.choices(string.ascii_letters + string.digits, k=GROWTH - 3))

    messages = [text() for _ in range(START_BYTES // GROWTH)]
    known = serial.encode(messages).decode()
    seconds = []

    def write(tx: object, before: str | None, new: str) -> None:
        turn = engine.turn(tx, session.id)
        changes = Changes(parts={"execution/messages": (before, new)})
        turn.change.agents.update(remembering.written(turn, "talker", changes))
        turn.close()

    engine.database.write(lambda tx: write(tx, None, known))
    states = {}
    for i in range(COUNT):
        messages.append(text())
        new = serial.encode(messages).decode()
        began = time.perf_counter()
        engine.database.write(lambda tx, known=known, new=new: write(tx, known, new))
        seconds.append(time.perf_counter() - began)
        known = new
        if i % 100 == 99:
            states[session.checkpoints()[-1]["number"]] = list(messages)
    listed = session.checkpoints()
    size = sum(row["size"] for row in listed)
    back = [machine.timed(lambda n=n, m=m: _same(session, n, m)) for n, m in states.items()]
    print(
        f"{COUNT} checkpoints of a state of {START_BYTES // 1000} to {len(known) // 1000} KB, each with fsync:"
        f" p50 {machine.middle(seconds) * 1e3:.2f} ms, p95 {machine.quantile(seconds, 0.95) * 1e3:.2f} ms,"
        f" {size / 1e6:.2f} MB in all; read back in {machine.middle(back) * 1e3:.0f} ms"
    )
    print("target: < 1 ms each, < 3 MB\n")
    celeriac.close()


def _same(session: object, number: int, messages: list[str]) -> None:
    assert session.checkpoint_state(number)["agents"]["talker"]["execution"]["messages"] == messages  # type: ignore[attr-defined]
