"""T13: beats and workers that die, and ten jobs of maintenance that have to go on."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import pairwise

from chaos.ledger import Line
from chaos.recipes import Size
from chaos.trial import Trial
from chaos.upkeep import NAMES, PERIOD
from chaos.verdict import Broken

APP = "chaos.upkeep"
#: Longest time between two runs of a job.
LONGEST_GAP = 3 * PERIOD


def two_beats(trial: Trial, size: Size) -> None:
    """T13: two beats, and two workers that look for themselves; one of all dies every `pause` seconds."""
    for _ in range(2):
        trial.worker(concurrency=2, app=APP)
        trial.beat(APP)
    trial.until(lambda: len(_by_job(trial)) == len(NAMES), 30, "every job has run")
    killed: set[int] = set()
    for n in range(size.rounds):
        time.sleep(size.pause * trial.dice.uniform(0.8, 1.2))
        victim = trial.dice.choice(trial.beats if n % 2 == 0 else trial.workers)
        killed |= {victim.pid, *victim.children()}
        trial.fault()
        victim.kill()
        victim.start()
    time.sleep(size.pause)
    ended = time.monotonic()
    trial.stop()
    judge(trial, killed, ended)


def _by_job(trial: Trial) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = defaultdict(list)
    for line in trial.ledger.lines("start"):
        found[line.session_id].append(line)
    return found


def judge(trial: Trial, killed: set[int], ended: float) -> None:
    """Check all that must hold. Raises Broken."""
    problems: list[str] = []
    ends = {(line.key, line.attempt): line.monotonic for line in trial.ledger.lines("end")}
    by_job = _by_job(trial)
    for job, lines in by_job.items():
        for a, b in pairwise(lines):
            over = ends.get((a.key, a.attempt))
            if b.attempt <= a.attempt:
                problems.append(f"{job}: epoch {b.attempt} began after {a.attempt}")
            if b.key == a.key and a.pid not in killed:
                problems.append(f"{b.key} was run twice, as {a.attempt} and {b.attempt}")
            if over is None and a.pid not in killed or over is not None and over > b.monotonic:
                problems.append(f"{b.key} began while {a.key} was at work")
        gap = max(b.monotonic - a.monotonic for a, b in pairwise([*lines, _end(lines[-1], ended)]))
        trial.counts.recoveries.append(gap)
        if gap > LONGEST_GAP:
            problems.append(f"{job} did not run for {gap:.2f} s")
    begun = {(line.key, line.attempt) for lines in by_job.values() for line in lines}
    recorded = trial.query("SELECT job, scheduled_at, epoch, outcome FROM maintenance_runs")
    done = [(f"{job}/{at}", epoch) for job, at, epoch, outcome in recorded if outcome == "done"]
    problems += [f"{key} is recorded, and never ended" for key, epoch in done if (key, epoch) not in ends]
    trial.counts.attempted = len({key for key, _ in begun})
    trial.counts.acknowledged = trial.counts.ok = len(done)
    trial.counts.duplicated = len(done) - len({key for key, _ in done})
    trial.counts.steps = len(begun)
    trial.counts.extra_attempts = len(begun) - trial.counts.attempted
    if trial.counts.duplicated:
        problems.append(f"{trial.counts.duplicated} times are recorded twice")
    if problems:
        raise Broken("\n".join([f"seed {trial.seed}:", *problems[:20], trial._logs()]))


def _end(line: Line, at: float) -> Line:
    return Line(line.key, line.attempt, line.pid, line.phase, at, line.wall)
