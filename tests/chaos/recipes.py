"""The recipes: a fault, a load, and what must hold afterwards. Each takes a fresh trial and raises Broken."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from servers import RedisServer

from celeriac.errors import SessionError
from chaos import commits, plans
from chaos.trial import LEASE_SECONDS, MARGIN_SECONDS, SWEEP_SECONDS, Trial
from chaos.verdict import Broken

#: A step of a dead worker is ready again within this, in seconds.
RECOVERY = LEASE_SECONDS + SWEEP_SECONDS + MARGIN_SECONDS
#: A start waits once for a broker that does not answer (a second), and then not again for a while.
LONGEST_START = 1.5


@dataclass(frozen=True)
class Size:
    """How much of a recipe is run: the short form in `make test`, the long one in `make chaos`."""

    sessions: int
    steps: int = 1
    rounds: int = 1
    pause: float = 1.0


def kill_child(trial: Trial, size: Size) -> None:
    """T1: a random child of the pool is killed, again and again."""
    worker = trial.worker(concurrency=2)
    for _ in range(size.sessions):
        trial.start(plans.fan(size.steps, trial.dice.uniform(50, 200)))
    trial.until(trial.starts(1), what="the first step starts")
    kills = 0
    while kills < size.rounds and len(trial.ended()) < size.sessions:
        time.sleep(size.pause * trial.dice.uniform(0.7, 1.3))
        children = worker.children()
        if not children:
            continue
        trial.fault()
        with suppress(ProcessLookupError):
            os.kill(trial.dice.choice(children), signal.SIGKILL)
        kills += 1
    trial.drain(60)
    trial.until(lambda: len(worker.children()) == 2, 10, "the pool has two children again")
    counts = trial.judge()
    if kills < size.rounds:
        raise Broken(f"only {kills} of {size.rounds} kills: the load was too small")
    if counts.extra_attempts > kills:
        raise Broken(f"{counts.extra_attempts} extra attempts by {kills} kills")


def kill_worker(trial: Trial, size: Size) -> None:
    """T2: a whole worker is killed and another one started in its place."""
    workers = [trial.worker(), trial.worker()]
    for _ in range(size.sessions):
        trial.start(plans.eight_steps(trial.dice.uniform(20, 80)))
    trial.until(trial.starts(1), what="the first step starts")
    for _ in range(size.rounds):
        time.sleep(size.pause)
        victim = trial.dice.choice(workers)
        trial.fault()
        victim.kill()
        time.sleep(size.pause / 3)
        victim.start()
    trial.drain(120)
    counts = trial.judge()
    slowest = max(counts.recoveries, default=0)
    if slowest > RECOVERY:
        raise Broken(f"a step of a killed worker was ready again only after {slowest:.1f} s")


def flush(trial: Trial, size: Size, redis: RedisServer, limit: float = 30) -> None:
    """T3: all that the broker holds is thrown away, first before there is a worker: then no hint is left at all."""
    for n in range(size.sessions):
        trial.start(plans.one(ms=30, agent="chaos.work" if n % 4 else "chaos.caller"))
    redis.client().flushall()
    worker = trial.worker(concurrency=2)
    for n in range(size.rounds):
        share = size.sessions * (n + 1) // (size.rounds + 1)
        trial.until(trial.starts(share), limit, "a share of the steps has started")
        trial.fault()
        redis.client().flushall()
    trial.counts.recoveries = [trial.drain(limit)]
    if not worker.is_alive():
        raise Broken(f"the worker has ended:\n{worker.log[-2000:]}")
    counts = trial.judge()
    if counts.extra_attempts:
        raise Broken(f"{counts.extra_attempts} steps were run again, though their leases lived")


def broker_down(trial: Trial, size: Size, redis: RedisServer) -> None:
    """T4: the broker is stopped while sessions are started and run; then it comes back, empty. Several times over."""
    worker = trial.worker(concurrency=2)
    took: list[float] = []
    recoveries = []
    for n in range(size.rounds):
        before = len(trial.ledger.lines("start"))
        for _ in range(10):  # more than run at once: some are with the worker, not acknowledged, when the broker goes
            trial.start(plans.one(ms=80))
        trial.until(trial.starts(before + 2), what="the first steps start")
        redis.kill()
        back_at = time.monotonic() + size.pause / (n + 1)
        try:
            for _ in range(size.sessions // (n + 1)):
                began = time.monotonic()
                trial.start(plans.eight_steps(ms=5))
                took.append(time.monotonic() - began)
            time.sleep(max(back_at - time.monotonic(), 0))
        finally:
            redis.start()
        recoveries.append(trial.drain(45))
        if not worker.is_alive():
            raise Broken(f"the worker has ended:\n{worker.log[-2000:]}")
    trial.counts.recoveries = recoveries
    trial.judge()
    p95 = sorted(took)[int(len(took) * 0.95)]
    if p95 > LONGEST_START:
        raise Broken(f"starting a session took {p95:.2f} s (p95) while the broker was away")


def unknown_commits(trial: Trial, size: Size) -> None:
    """T7: one COMMIT in ten raises; half of those have gone in all the same."""
    database = trial.celeriac.engine.database
    database._commit = commits.breaking(f"{trial.seed}:0.1", database.is_sqlite)
    for n in range(2):
        trial.worker(**{commits.VARIABLE: f"{trial.seed + n}:0.1"})
    for _ in range(size.sessions):
        trial.start(plans.eight_steps(ms=0))
    trial.drain(60)
    trial.judge()
    if not any(commits.BROKEN in worker.log for worker in trial.workers):
        raise Broken("no commit of a worker was broken")


def zombie(trial: Trial, size: Size) -> None:
    """T8: a child is frozen after its claim and wakes up when another one runs its step, or has run it."""
    for _ in range(2):
        trial.worker()
    for n in range(size.rounds):
        during = n % 2 == 0
        session_id = trial.start(plans.one(agent="chaos.stubborn", first=0.3, later=1.5 if during else 0.0))
        key = f"{session_id}/1"
        first = trial.until(lambda key=key: trial.ledger.by_key("start").get(key), what="the step starts")[0]
        os.kill(first.pid, signal.SIGSTOP)
        trial.fault()
        try:
            trial.until(lambda key=key: len(trial.ledger.by_key("start")[key]) > 1, what="another one takes the step")
            if not during:
                trial.until(lambda id_=session_id: trial.statuses()[id_] == "completed", what="the session ends")
        finally:
            os.kill(first.pid, signal.SIGCONT)
        trial.until(lambda key=key: _ends(trial, key, 1), what="the zombie comes to its end")
    trial.drain(20)
    time.sleep(0.3)  # what a zombie still wants to write
    trial.judge()
    for row in trial.query("SELECT session_id, number, body FROM results"):
        if '"attempt":1' in row[2].replace(" ", ""):
            raise Broken(f"the zombie's result of step {row[1]} of {row[0]} is recorded")


def _ends(trial: Trial, key: str, attempt: int) -> bool:
    return any(line.key == key and line.attempt == attempt for line in trial.ledger.lines("end"))


def duplicates(trial: Trial, size: Size, redis: RedisServer) -> None:
    """T9: each hint comes five times more, in any order, also for sessions that have ended or never were."""
    workers = [trial.worker(), trial.worker()]
    ids = [str(trial.start(plans.eight_steps(ms=5))) for _ in range(size.sessions)]
    cancelled = str(trial.start(plans.one(ms=0)))
    trial.celeriac.sessions.get(cancelled).cancel()
    unknown = "00000000-0000-7000-8000-000000000000"

    def storm() -> None:
        sent = [*ids, cancelled, unknown] * 5
        trial.dice.shuffle(sent)
        for session_id in sent:
            trial.celeriac.app.send_task("celeriac.step", (session_id, "celeriac"), queue="celeriac")

    storm()
    trial.drain(40)
    storm()
    client = redis.client()
    trial.until(lambda: client.llen("celeriac") == 0, 20, "the queue is empty")
    time.sleep(0.3)
    counts = trial.judge()
    if counts.extra_attempts:
        raise Broken(f"{counts.extra_attempts} steps were started twice")
    for worker in workers:
        records = [line for line in worker.log.splitlines() if line.startswith("[20")]
        if any("ERROR" in line for line in records) or len(records) > 5:
            raise Broken(f"the duplicates filled the log:\n{worker.log[-2000:]}")


def poison(trial: Trial, size: Size) -> None:
    """T16: a step ends its process each time; after the attempts that are allowed it is dead, and harms nobody."""
    worker = trial.worker(concurrency=2)
    poisonous = [trial.start(plans.one(agent="chaos.poison")) for _ in range(size.rounds)]
    for _ in range(size.sessions):
        trial.start(plans.one(ms=20))
    trial.drain(60)
    if not worker.is_alive():
        raise Broken(f"the worker has ended:\n{worker.log[-2000:]}")
    cap = trial.celeriac.settings.max_attempts
    trial.judge(cap=cap, failed=size.rounds)
    for session_id in poisonous:
        (step,) = trial.celeriac.sessions.get(str(session_id)).steps()
        tried = len(trial.ledger.by_key("start")[f"{session_id}/1"])
        if (step["status"], step["attempts"], tried) != ("dead", cap, cap) or "lost" not in str(step["error"]):
            raise Broken(f"the poisonous step is {step['status']} after {step['attempts']} ({tried}): {step['error']}")
    healthy = [s for id_, s in trial.statuses().items() if id_ not in poisonous]
    if set(healthy) != {"completed"}:
        raise Broken(f"healthy sessions: {healthy}")


def fan_in(trial: Trial, size: Size, limit: float = 60) -> None:
    """T26: eight steps end at once on four processes, and what waits for them starts once.

    Each step has a hint of its own, and there is no sweep before the end: a healthy system does not need the sweeper.
    Then a chain goes from hand to hand while everybody else is idle, and takes a hint as soon as it is out. Before that
    there is work for long enough that all four are up: one alone takes its own hints, and always after its commits.
    """
    for _ in range(2):
        trial.worker(concurrency=2)
    trial.start(plans.diamond(width=16, ms=150))
    for _ in range(size.sessions):
        trial.start(plans.diamond())
    trial.drain(limit)
    trial.start(plans.chain(12))
    trial.drain(limit)
    counts = trial.judge()
    if counts.extra_attempts:
        raise Broken(f"{counts.extra_attempts} steps were started twice")


def cancel(trial: Trial, size: Size) -> None:
    """T27: sessions are cancelled at any time; after the answer no step starts, and what is done stays done."""
    for _ in range(2):
        trial.worker(concurrency=2)
    trial.start(plans.diamond(ms=50))
    trial.until(trial.ended, what="the workers are up and have run a session")
    acknowledged: dict[str, float] = {}
    done: dict[str, set[str]] = {}

    def end(session_id: str, after: float) -> None:
        session = trial.celeriac.sessions.get(session_id)
        time.sleep(after)
        done[session_id] = {s["name"] for s in session.steps() if s["status"] == "done"}
        with suppress(SessionError):  # it has ended already
            session.cancel()
            acknowledged[session_id] = time.monotonic()

    threads = []
    for _ in range(size.sessions):
        session_id = str(trial.start(plans.eight_steps(ms=40)))
        threads.append(threading.Thread(target=end, args=(session_id, trial.dice.uniform(0, size.pause))))
        threads[-1].start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    trial.drain(30)
    time.sleep(0.3)
    trial.judge()
    _check_cancelled(trial, acknowledged, done)


#: From the claim of a step to the first line of its agent, on two busy cores, in seconds.
ON_ITS_WAY = 0.25


def _check_cancelled(trial: Trial, acknowledged: dict[str, float], done: dict[str, set[str]]) -> None:
    for line in trial.ledger.lines("start"):
        if line.monotonic > acknowledged.get(line.session_id, line.monotonic) + ON_ITS_WAY:
            raise Broken(f"a step of {line.session_id} started after its cancelling was acknowledged")
    over: set[str] = set()
    for session_id, type_ in trial.query("SELECT session_id, type FROM events ORDER BY session_id, seq"):
        if session_id in over and type_ in ("step.started", "step.done", "step.partial"):
            raise Broken(f"{type_} after session.cancelled in {session_id}")
        if type_ == "session.cancelled":
            over.add(session_id)
    if len(acknowledged) < len(done) / 4 or over != set(acknowledged):
        raise Broken(f"{len(acknowledged)} cancelled, {len(over)} recorded as cancelled")
    for session_id, names in done.items():
        now = {s["name"] for s in trial.celeriac.sessions.get(session_id).steps() if s["status"] == "done"}
        if not names <= now:
            raise Broken(f"steps of {session_id} were done and are so no longer: {names - now}")
