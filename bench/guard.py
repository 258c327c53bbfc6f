"""What the guard costs: off, and on, beside the raw cipher and a bare JSON encoding of the same kilobyte."""

from __future__ import annotations

import json
import statistics
import time
import timeit
from collections.abc import Callable
from pathlib import Path

COUNT = 2000
REPEATS = 7
#: Steps of a session whose recording is measured, and how many sessions of each kind.
STEPS = 100
ROUNDS = 9
RULES = {
    "texts": ["api-keys", "bearer-tokens", "url-passwords", "private-keys"],
    "fields": [{"path": "password"}, {"path": "customer.email", "action": "hash"}, {"path": "*_token"}],
}


def _value() -> dict[str, object]:
    """About 1 KB of JSON, with two fields that rules are for."""
    items = [{"id": n, "text": "lorem ipsum dolor sit amet " * 2} for n in range(11)]
    return {"customer": {"name": "Ana", "email": "ana@example.org"}, "items": items, "password": "hunter2"}


def _micro(call: Callable[[], object]) -> float:
    """Microseconds of one call, the best of some."""
    return min(timeit.repeat(call, number=COUNT, repeat=REPEATS)) / COUNT * 1e6


def _check(base: Path) -> Callable[[], object]:
    """A check of a caller with a grant among a hundred of others."""
    from celeriac import Celeriac
    from celeriac.orchestration.guard.access import Caller
    from celeriac.orchestration.guard.grants import bootstrap

    c = Celeriac(data_dir=str(base / "access"), access="on", embed=False)
    bootstrap(c.engine.database, "", "root")
    for n in range(100):
        c.acting_as("root").grants.add(f"team-{n}-*", "read", f"custom:plans-{n}-*")
    c.acting_as("root").grants.add("ana", "write", "custom:plans")
    access, ana = c.engine.access, Caller("ana")
    return lambda: access.require(ana, "write", "custom:plans")


def measure(base: Path) -> None:
    """Print microseconds for a value of 1 KB, and the share of a step that the guard takes when it is off."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from celeriac import Celeriac, Plan, agent, step
    from celeriac.orchestration.guard import Policy, doors
    from celeriac.storage import serial
    from celeriac.storage.keys.keyfile import Keys, new_key
    from celeriac.storage.keys.sealing import KeyRing

    ring = KeyRing(Keys("a", {}).with_key("k", new_key()))
    off, on = Policy.load(""), Policy.load(RULES, ring)
    value, clean = _value(), {"items": [{"id": n, "text": "lorem ipsum dolor " * 3} for n in range(13)]}
    body = serial.encode(value)
    bare, nonce = AESGCM(b"k" * 32), b"n" * 12
    sealed = ring.seal(body, place="p")
    fault = "ValueError: the service at https://example.org/api answered 500 after 3 tries"

    def whole() -> bytes:
        return ring.seal(serial.encode(on.apply(value, "session:1")), place="p")

    print(f"guard, a value of {len(body)} bytes of JSON ({json.dumps(list(RULES))} set), in microseconds")
    rows = (
        ("bare AES-256-GCM", lambda: bare.encrypt(nonce, body, b"")),
        ("seal", lambda: ring.seal(body, place="p")),
        ("open", lambda: ring.open(sealed, place="p")),
        ("JSON alone", lambda: serial.encode(value)),
        ("rules, nothing to be found", lambda: on.apply(clean, "session:1")),
        ("rules, two fields found", lambda: on.apply(value, "session:1")),
        ("rules, JSON and seal", whole),
        ("an error text", lambda: on.text(fault)),
        ("a check of access", _check(base)),
    )
    for name, call in rows:
        print(f"  {name:28} {_micro(call):7.1f}")
    print("  target: rules, JSON, seal and a check of access together <= 60")

    @agent("bench.guard")
    def nothing(request: object, ctx: object) -> object:
        return request

    c = Celeriac(data_dir=str(base / "guard"), embed=False)
    session = c.sessions.start(Plan("p", [step("a", "bench.guard", {"n": 1})]))
    work = c.engine.claim(session.id)
    assert work is not None
    from celeriac.orchestration.agents import AgentOutput

    output = AgentOutput(value)

    def off_in_a_step() -> None:
        doors.opened(off, value, session.id)
        doors.guard_output(off, work, output)

    began = timeit.default_timer()
    c.engine.finish(work, output)
    taken = (timeit.default_timer() - began) * 1e6
    cost = _micro(off_in_a_step)
    print(f"  off: {cost:.2f} a step, whose recording takes {taken:.0f}: {100 * cost / taken:.2f} % (target < 5 %)")
    c.close()
    _sealed_steps(base)


def _sealed_steps(base: Path) -> None:
    """Print what a step with an output of 1 KB costs with `encrypt = "all"`: both in turns, the median of the pairs."""
    from celeriac import Celeriac, Plan, step
    from celeriac.orchestration.agents import AgentOutput
    from celeriac.storage.keys import keyfile
    from celeriac.storage.keys.keyfile import Keys, new_key

    base.mkdir(parents=True, exist_ok=True)
    keyfile.write(base / "keys.toml", Keys("a", {}).with_key("k", new_key()))
    keys = {"keys_file": str(base / "keys.toml"), "embed": False}
    places = {how: Celeriac(data_dir=str(base / how), encrypt=how, **keys) for how in ("sensitive", "all")}
    value = _value()
    plan = Plan("p", [step(f"s{n}", "bench.guard", value, after=[f"s{n - 1}"] if n else []) for n in range(STEPS)])

    def microseconds(c: Celeriac) -> tuple[float, float]:
        work = c.engine.claim(c.sessions.start(plan).id)
        began, worked = timeit.default_timer(), time.thread_time()
        while work is not None:
            work = c.engine.finish(work, AgentOutput(value), carry=True)
        return (timeit.default_timer() - began) / STEPS * 1e6, (time.thread_time() - worked) / STEPS * 1e6

    taken = [{how: microseconds(c) for how, c in places.items()} for _ in range(ROUNDS)]
    plain, wall = (statistics.median(one["sensitive"][n] for one in taken) for n in (1, 0))
    more = statistics.median(one["all"][1] - one["sensitive"][1] for one in taken)
    print(
        f"  sealed step: {more:.0f} us more of processor time than {plain:.0f} us"
        f" ({wall:.0f} us by the clock), on SQLite\n"
    )
    for c in places.values():
        c.close()
