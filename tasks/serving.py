"""Serving a hint: claim a step, run it as a Celery task of its own, record it, carry on with the next, in bounds."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from billiard.common import terminate_handler_fired
from celery import Celery, Task
from celery.app.trace import build_tracer
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from ..errors import CeleriacError, SessionNotFound, StepCancelled, StepTimeout, StorageError
from ..orchestration import runner, sweeping
from ..orchestration.agents import AgentOutput
from ..orchestration.cache.sharing import StepCache
from ..orchestration.context import Context
from ..orchestration.engine import Engine, Lost, Work
from ..orchestration.heartbeat import Heartbeat
from ..orchestration.pacing import Pacing
from ..orchestration.state.stepstate import HeldFailed
from ..orchestration.unserved import NotServed, Unserved
from ..orchestration.work import PutBack
from ..storage.faults import point
from .flower import StepEvents

logger = logging.getLogger("celeriac.serving")

#: Seconds between looks at how many workers there are, for the number of hints of a fan-out.
COUNT_SECONDS = 20.0
#: Seconds between tries to record a step's end while the database is away, and for how long at least.
RECORD_AGAIN_SECONDS = 1.0
LEAST_PATIENCE = 60.0
#: Steps of agents that this worker lacks which it puts back before it leaves a session's other steps to the sweeper.
MOST_UNSERVED = 5
#: Of our own errors, those that another attempt may not meet; the others are said on purpose, and final.
PASSING_FAULTS = (StepTimeout, StorageError, HeldFailed)
#: Whatever else a hint names, it did not come from us.
_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class AgentExit(Exception):
    """An agent raised what ends a process (`sys.exit`), not an error."""


class Flag:
    """An event that the children of a pool share with their parent: a page of memory that was made before the fork."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Raise the flag, in every process that shares it."""
        self._page[0] = 1

    def is_set(self) -> bool:
        """Whether it is raised."""
        return self._page[0] == 1


@dataclass(slots=True)
class _Job:
    """One step on its way through a Celery task."""

    work: Work
    may_carry: Callable[[], bool]
    queue: str | None
    following: Work | None = None
    outcome: tuple[str, str] = ("task-failed", "")
    unserved: bool = False

    @property
    def carry(self) -> bool:
        """Whether this worker goes on with the session's next step. Asked when the step has ended, not before."""
        return self.may_carry()


class Serving:
    """Runs steps in this process. One for each Celeriac; safe in threads and after forks."""

    def __init__(
        self, app: Celery, engine: Engine, heartbeat: Heartbeat, events: StepEvents, cached: StepCache
    ) -> None:
        self._app = app
        self._engine = engine
        self._heartbeat = heartbeat
        self._events = events
        self._cached = cached
        self._pacing = Pacing(engine)
        self._unserved = Unserved(engine)
        self._local = threading.local()
        self._tracers: dict[str, Any] = {}
        self._count_at = 0.0
        #: Raised when the worker stops: what runs is finished, nothing more is claimed.
        self.stopping = Flag()
        #: Publishes a hint that came too late to this worker, for another one.
        self.pass_on: Callable[[str, str | None], None] | None = None
        #: Whether a failed step is reported in the log as Celery does it, with its traceback.
        self.loud = True
        #: The worker's own time limit of a task in seconds, if it has one: measured from the hint, not the step.
        self.worker_limit: float | None = None

    def serve(self, session_id: str, queue: str | None = None) -> int:
        """Run a session's ready steps, then those of other sessions, until none is left or this turn is over.

        Gives how many it ran. To go on with another session at once spares it the way over the broker; its own hint
        then finds nothing to do.
        """
        if not (isinstance(session_id, str) and _SESSION.fullmatch(session_id) and isinstance(queue, str | None)):
            logger.warning("a hint that names no session was dropped")
            return 0
        if self.stopping.is_set():
            if self.pass_on is not None:
                self.pass_on(session_id, queue)
            return 0
        self.count_slots()
        try:
            work = self._engine.claim(session_id, queue)
        except SessionNotFound:  # deleted since, or a hint from another database
            return 0
        count = unserved = 0
        settings = self._engine.settings
        # Where the worker limits the time of a hint, each step gets a hint of its own.
        until = time.monotonic() + (0 if self.worker_limit else settings.carry_seconds)

        def may_carry() -> bool:
            more = count < settings.carry_steps and unserved < MOST_UNSERVED
            return more and time.monotonic() < until and not self.stopping.is_set()

        while work is not None:
            count += 1
            job = _Job(work, may_carry, queue)
            work = self._run(job)
            unserved += job.unserved
            if work is None and may_carry():
                work = self._engine.claim_any(queue)
        return count

    def count_slots(self) -> None:
        """Learn, now and then, how many steps can run at once."""
        if time.monotonic() >= self._count_at:
            self._count_at = time.monotonic() + COUNT_SECONDS
            self._engine.database.read(self._engine.hints.count_slots)

    def _run(self, job: _Job) -> Work | None:
        """One step as a Celery task: its own id, signals and events; named after its agent."""
        c = job.work.claimed
        task_id = f"{c.session_id}-{c.number}-{c.epoch}"
        kwargs = {"session": c.session_id, "step": c.name, "attempt": c.attempts}
        request = {
            "id": task_id,
            "root_id": c.session_id,
            "hostname": self._events.hostname,
            "kwargs": kwargs,
            "args": (),
            "retries": c.failures,
            "timelimit": (None, self._limit(c.timeout)),
            "delivery_info": {"routing_key": c.queue, "exchange": "", "priority": None, "redelivered": False},
            "celeriac_session": c.session_id,
            "celeriac_correlation": job.work.session[3],
            "celeriac_step": c.name,
        }
        self._local.job = job
        name = f"celeriac.agent.{c.agent}"
        self._events.started(task_id, name, kwargs, c.failures)
        began = time.monotonic()
        self._tracer(c.agent, name)(task_id, (), kwargs, request)
        self._events.ended(task_id, job.outcome, time.monotonic() - began)
        return job.following

    def _limit(self, timeout: float | None) -> float | None:
        return timeout or self._engine.settings.step_time_limit or None

    def _tracer(self, agent: str, name: str) -> Any:
        tracer = self._tracers.get(agent)
        if tracer is None:
            task = _agent_task(self._app, name, self)
            task.throws = () if self.loud else (Exception,)
            tracer = build_tracer(name, task, app=self._app, hostname=self._events.hostname)
            self._tracers[agent] = tracer
        return tracer

    def perform(self) -> None:
        """The body of the Celery task: run this thread's step, record how it went, and tell Celery the same."""
        job: _Job = self._local.job
        try:
            output = self._call_agent(job.work)
        except PutBack as fault:
            self._put_back(job, fault)
        except Lost:
            self._lost(job)
        except (StepTimeout, SoftTimeLimitExceeded):
            self._failed(job, self._timed_out(job.work))
        except StepCancelled:
            self._lost(job)
        except Exception as fault:
            self._failed(job, fault)
        except BaseException as fault:
            if not terminate_handler_fired():  # the agent itself wants to exit
                self._failed(job, AgentExit(f"agent {job.work.claimed.agent!r} raised {fault!r}"))
            # The process is being ended: give the step back, so that another worker takes it at once.
            self._give_back([job.work])
            raise
        else:
            self._done(job, output)

    def _call_agent(self, work: Work, caller: Context | None = None) -> AgentOutput:
        self._unserved.admit(work)
        flush = partial(self._heartbeat.flush, work)
        agent, context = runner.prepare(self._engine, work, flush, self._make_call, caller)
        hit = self._cached.look(work, agent, context.permissions)
        if hit is not None:
            return hit.output
        self._pacing.admit(work, agent)
        point("before-effect")
        with self._heartbeat.over(work, context, self._limit(work.claimed.timeout)):
            output = runner.run(agent, context, work.request)
        point("after-effect")
        return output

    def _make_call(self, work: Work, caller: Context) -> None:
        """Make a durable call within the step that asks for it, and record how it ended. It is no Celery task."""
        try:
            output = self._call_agent(work, caller)
            self._recorded(lambda: self._engine.finish(work, output))
            self._cached.landed(work, output)
        except (PutBack, Lost):
            self._cached.crashed(work)
        except Exception as fault:
            if caller.is_stopped:  # it is the caller that was stopped
                self._give_back([work])
                raise
            self._call_failed(work, fault)
        except BaseException:
            self._give_back([work])
            raise

    def _call_failed(self, work: Work, fault: Exception) -> None:
        self._cached.crashed(work)
        if isinstance(fault, StepTimeout | SoftTimeLimitExceeded):
            fault = self._timed_out(work)
        with contextlib.suppress(Lost):
            self._recorded(lambda: self._engine.fail(work, fault, retry=not _is_final(fault)))

    def _timed_out(self, work: Work) -> StepTimeout:
        limit = self._limit(work.claimed.timeout) or self.worker_limit or 0
        return StepTimeout(f"ran past its limit of {limit:g} s")

    def _done(self, job: _Job, output: AgentOutput) -> None:
        try:
            job.following = self._recorded(lambda: self._engine.finish(job.work, output, job.carry, job.queue))
        except Lost:
            self._lost(job)
        except StorageError:
            raise
        except Exception as fault:  # it cannot be recorded as it is; left alone, the step would run until it is dead
            self._failed(job, fault)
        self._cached.landed(job.work, output)
        job.outcome = ("task-succeeded", "")

    def _recorded(self, record: Callable[[], Work | None]) -> Work | None:
        """Record how a step ended. While the database or the disk is away, try on: what the agent gave was paid for.

        The claim decides for how long: once another worker has taken the step over, recording raises Lost.
        """
        until = time.monotonic() + max(self._engine.settings.lease_seconds, LEAST_PATIENCE)
        while True:
            try:
                return record()
            except StorageError as fault:
                if time.monotonic() > until or self.stopping.is_set():
                    raise
                logger.warning("a step's end could not be recorded, trying again: %s", fault)
                time.sleep(RECORD_AGAIN_SECONDS)

    def _failed(self, job: _Job, fault: Exception) -> None:
        c = job.work.claimed
        self._cached.crashed(job.work)
        final = _is_final(fault)
        carry, queue = job.carry, job.queue
        try:
            job.following = self._recorded(
                lambda: self._engine.fail(job.work, fault, retry=not final, carry=carry, queue=queue)
            )
        except Lost:
            self._lost(job)
        if not final and c.failures < c.retries:
            job.outcome = ("task-retried", self._engine.guard.told(fault))
            raise Retry(exc=fault, when=c.backoff * 2**c.failures) from fault
        job.outcome = ("task-failed", self._engine.guard.told(fault))
        raise fault

    def _put_back(self, job: _Job, why: PutBack) -> None:
        """The step was put back, as a rule before its agent was called. Go on with what the session has ready."""
        self._cached.crashed(job.work)
        job.outcome, job.unserved = ("task-retried", str(why)), isinstance(why, NotServed)
        if job.carry:
            job.following = self._engine.claim(job.work.session_id, job.queue)
        raise Ignore

    def _lost(self, job: _Job) -> None:
        """The step is another's, or cancelled: what it gave is not recorded. Go on with what the session has ready."""
        job.outcome = ("task-revoked", "")
        self._cached.crashed(job.work)
        logger.info("step %s of session %s is no longer this worker's", job.work.claimed.name, job.work.session_id)
        if job.carry:
            job.following = self._engine.claim(job.work.session_id, job.queue)
        raise Ignore

    def _give_back(self, works: list[Work]) -> None:
        for work in works:
            try:
                sweeping.take_back(self._engine, work.session_id, [work.claimed], given_back=True, leaving=[work])
                self._cached.crashed(work)
            except Exception as fault:  # the lease will end by itself
                logger.warning("step %s could not be given back: %s", work.claimed.name, fault)

    def give_all_back(self) -> None:
        """Give back the steps that are still running here, when the process ends before they do."""
        self._give_back(self._heartbeat.works())


def _is_final(fault: Exception) -> bool:
    """Whether another attempt would meet the same fault."""
    return isinstance(fault, CeleriacError) and not isinstance(fault, PASSING_FAULTS)


def _agent_task(app: Celery, name: str, serving: Serving) -> Task:
    """The task that an agent's steps run as. It is not registered: nothing that comes over the broker can start it."""

    class AgentTask(Task):
        ignore_result = True
        store_errors_even_if_ignored = False
        max_retries = None

        def run(self, session: str, step: str, attempt: int) -> None:
            serving.perform()

    AgentTask.name = name
    AgentTask.__name__ = name.rsplit(".", 1)[-1]
    task = AgentTask()
    task.bind(app)
    return task


def end_this_process(_work: Work) -> None:
    """End a child whose agent heeds no time limit, so that its pool can start a fresh one."""
    os.kill(os.getpid(), signal.SIGKILL)
