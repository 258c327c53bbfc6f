"""The embedded worker: a Celery worker in threads of this process, over the memory transport. No server is needed."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from celery import Celery, _state, bootsteps, signals
from celery.app import trace
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.exceptions import SecurityWarning

#: Seconds after which a running thread lets another one go on, once a worker runs in this process.
SWITCH_SECONDS = 0.001
#: A worker that is not ready by then has failed to start.
START_SECONDS = 10.0
#: Running steps are given so long to finish when the worker stops, in seconds; then they are given back.
STOP_SECONDS = 30.0


class DaemonThreads:
    """As much of an executor as Celery's threads pool needs. Daemon threads: a step keeps no process from ending."""

    def __init__(self, slots: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Any, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._threads = {
            threading.Thread(target=self._run, name=f"celeriac-step-{n}", daemon=True) for n in range(slots)
        }
        for thread in self._threads:
            thread.start()

    def submit(self, function: Any, *args: Any) -> Future[Any]:
        """Have a thread call the function."""
        future: Future[Any] = Future()
        self._jobs.put((future, function, args))
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            try:
                future.set_result(function(*args))
            except BaseException as fault:
                future.set_exception(fault)

    def shutdown(self, cancel_futures: bool = True) -> None:
        """Wait for what runs, for STOP_SECONDS at most. What waits is dropped: hints only."""
        while cancel_futures and not self._jobs.empty():
            self._jobs.get_nowait()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))


class DaemonPool(TaskPool):
    """Celery's threads pool, with threads that let the process end."""

    # Else Celery would refuse `result.get()` to all of this process, which runs more than a worker.
    task_join_will_block = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super(TaskPool, self).__init__(*args, **kwargs)
        self.executor = DaemonThreads(self.limit)
        # Where Celery looks tasks up. Its own place for that holds the tasks of one app for each process.
        self._tasks = (self.app._tasks, trace.prepare_accept_content(self.app.conf.accept_content), None)

    def on_apply(
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> ApplyResult:
        found = {**(kwargs or {}), "_loc": self._tasks}
        return ApplyResult(self.executor.submit(apply_target, target, args, found, callback, accept_callback))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep Celery's worker from making its app that of the whole process: a user's own app may be there too."""
    current, default, localized = getattr(_state._tls, "current_app", None), _state.default_app, list(trace._localized)
    try:
        yield
    finally:
        _state._set_current_app(current)
        _state.set_default_app(default)
        trace._localized[:] = localized


class EmbeddedWorker:
    """A Celery worker of `slots` threads that takes hints from one queue of this process."""

    def __init__(self, app: Celery, queue: str, slots: int) -> None:
        self._app = app
        self._queue = queue
        self.slots = slots
        self._worker: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the worker and return once it takes hints."""
        # Steps wait for the disk and for each other's transactions all the time; with Python's 5 ms between switches a
        # thread that could go on would often stand still for longer than a step takes.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
        ready = threading.Event()

        def is_ready(sender: Any = None, **_: Any) -> None:
            if getattr(sender, "hostname", None) == self._hostname:
                ready.set()

        def keep_logging(**_: Any) -> None:
            """Connected, it tells Celery to leave this process's logging as it is."""

        signals.worker_ready.connect(is_ready)
        signals.setup_logging.connect(keep_logging)
        try:
            self._worker = self._new_worker()
            self._thread = threading.Thread(target=self._run, name="celeriac-worker", daemon=True)
            self._thread.start()
            if not ready.wait(START_SECONDS):
                raise RuntimeError(f"the worker in this process was not ready after {START_SECONDS:g} s")
        finally:
            signals.worker_ready.disconnect(is_ready)
            signals.setup_logging.disconnect(keep_logging)

    @property
    def _hostname(self) -> str:
        return f"embedded@{self._queue}"

    def _new_worker(self) -> Any:
        with _undisturbed(), warnings.catch_warnings():
            # That running as root is unwise is for those to be told who start a worker, not for each user of a library.
            warnings.simplefilter("ignore", SecurityWarning)
            return self._app.Worker(
                pool=DaemonPool,
                concurrency=self.slots,
                queues=[self._queue],
                quiet=True,
                without_gossip=True,
                without_mingle=True,
                without_heartbeat=True,
                hostname=self._hostname,
            )

    def _run(self) -> None:
        self._worker.start()
        if self._worker.blueprint.state == bootsteps.RUN:  # `stop` has ended its consumer only
            self._worker.stop()

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """Let running steps finish and stop; False if they have not finished in time (they are daemon threads)."""
        if self._thread is None:
            return True
        deadline = time.monotonic() + seconds
        # Celery's own way (`state.should_stop`) would stop every worker of the process.
        self._worker.consumer.blueprint.state = bootsteps.CLOSE
        while self._thread.is_alive() and time.monotonic() < deadline:
            # The consumer looks at its state only between messages, and waits up to two seconds for one.
            if self._worker.blueprint.state == bootsteps.RUN:
                self._app.control.broadcast("ping", destination=[self._hostname])
            self._thread.join(0.02)
        return not self._thread.is_alive()
