"""T10: a process that ends at a crash point, at its nth pass, and another one that takes up what it left."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chaos import once, plans
from chaos.trial import Trial
from chaos.verdict import Broken, Counts
from chaos.workers import environment

VARIABLE = "CELERIAC_TEST_CRASHPOINT"
#: Processes at once.
AT_ONCE = 2
#: Steps that a process which crashes may have had at work.
SLOTS = 2


@dataclass(frozen=True, slots=True)
class Crash:
    """What one crash point led to."""

    point: str
    nth: int
    reached: bool
    counts: Counts


def in_one_process(trial: Trial, point: str, nth: int) -> Crash:
    """Crash a process that starts a session and runs it itself, then start it again until it comes to its end."""
    reached = _once(trial, point, nth) == -signal.SIGKILL
    if (code := _once(trial)) != 0:
        said = (trial.folder / "once.log").read_text()[-3000:]
        raise Broken(f"{point}:{nth}: the second run did not get to the end, but to {code}:\n{said}")
    return _verdict(trial, point, nth, reached)


def _once(trial: Trial, point: str = "", nth: int = 1) -> int | None:
    """Run `once` to its end or its crash; gives the exit code."""
    variables = dict(trial.variables)
    if point:
        variables[VARIABLE] = f"{point}:{nth}"
    return once.exit_code(environment(trial.settings, **variables), str(trial.folder))


def in_a_worker(trial: Trial, point: str, nth: int) -> Crash:
    """Crash a worker that a broker brings the hints to, and start another one in its place."""
    session_id = trial.start(plans.six_steps(trial.folder))
    worker = trial.worker(pool="solo", **{VARIABLE: f"{point}:{nth}"})
    trial.until(lambda: not worker.is_alive() or session_id in trial.ended(), 20, f"{point}:{nth} or the end")
    reached = worker.process.poll() == -signal.SIGKILL
    trial.fault()
    trial.worker(pool="solo")
    trial.drain(20)
    return _verdict(trial, point, nth, reached)


def _verdict(trial: Trial, point: str, nth: int, reached: bool) -> Crash:
    if not trial.intents:
        trial.intents.append((once.KEY, trial.query("SELECT id FROM sessions")[0][0]))
    try:
        counts = trial.judge()
    except Broken as fault:
        raise Broken(f"{point}:{nth}: {fault}") from None
    if set(trial.statuses().values()) != {"completed"}:
        raise Broken(f"{point}:{nth}: {trial.statuses()}")
    if reached and counts.extra_attempts > SLOTS + 1:  # one slot may hold a step and the call that it makes
        raise Broken(f"{point}:{nth}: {counts.extra_attempts} extra attempts after one crash")
    return Crash(point, nth, reached, counts)


def sweep(crash: object, cases: list[tuple[Trial, str, int]]) -> list[Crash]:
    """Run one crash for each (trial, point, nth); Broken if one of them breaks, or if a point was never reached."""
    assert callable(crash)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        crashes: list[Crash] = list(pool.map(lambda case: crash(*case), cases))
    missed = {c.point for c in crashes if c.nth == 1 and not c.reached}
    if missed:
        raise Broken(f"crash points that were never reached: {', '.join(sorted(missed))}")
    return crashes
