"""Celery's signals, as far as Celeriac listens: the life of a worker, and tasks that belong to a session.

Handlers only observe and tidy (Celery swallows what they raise): nothing that a step's durability rests on is here.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import current_task, signals

from ..errors import CeleriacError
from ..orchestration.interrupting import raise_in_thread
from . import own

if TYPE_CHECKING:
    from .app import Celeriac

SESSION = "celeriac_session"
CORRELATION = "celeriac_correlation"
#: Our own messages and tasks: the engine itself records what becomes of them.
OWN = "celeriac."
#: After a cold shutdown, what is left to tidy is given so long, in seconds.
END_SECONDS = 5.0


def connect(celeriac: Celeriac) -> Callable[[], None]:
    """Listen for one Celeriac until the function that this gives is called."""
    workers, tasks = _Workers(celeriac), _Tasks(celeriac)
    listened = (
        (signals.worker_init, workers.init),
        (signals.worker_ready, workers.ready),
        (signals.worker_shutting_down, workers.shutting_down),
        (signals.worker_shutdown, workers.shutdown),
        (signals.worker_process_init, workers.child),
        (signals.worker_process_shutdown, workers.child_ends),
        (signals.beat_init, workers.beat),
        (signals.task_prerun, tasks.started),
        (signals.task_success, tasks.succeeded),
        (signals.task_failure, tasks.failed),
        (signals.task_retry, tasks.retried),
        (signals.task_revoked, tasks.revoked),
    )
    for sent, handler in listened:
        sent.connect(handler, weak=False)
    signals.before_task_publish.connect(_travel, weak=False)

    def disconnect() -> None:
        for sent, handler in listened:
            sent.disconnect(handler)

    return disconnect


def _travel(sender: Any = None, headers: dict[str, Any] | None = None, **_: Any) -> None:
    """A task that is sent from within a task of a session belongs to that session too."""
    if headers is None or SESSION in headers or str(sender).startswith(OWN) or not current_task:
        return
    request = current_task.request
    session_id = getattr(request, SESSION, None)
    if session_id:
        headers[SESSION] = session_id
        headers[CORRELATION] = getattr(request, CORRELATION, None) or session_id


class _Workers:
    """The life of a worker of this app, in its main process and in the children of its pool."""

    def __init__(self, celeriac: Celeriac) -> None:
        self._celeriac = celeriac
        self._worker: Any = None

    def init(self, sender: Any = None, **_: Any) -> None:
        if getattr(sender, "app", None) is not self._celeriac.app:
            return
        self._worker = sender
        try:
            self._celeriac.life.starts(sender)
        except CeleriacError as fault:
            # Celery would swallow it and start a worker that can run nothing.
            raise SystemExit(f"celeriac: {fault}") from fault

    def ready(self, sender: Any = None, **_: Any) -> None:
        if self._worker is not None and getattr(sender, "controller", None) is self._worker:
            self._celeriac.life.is_ready()

    def shutting_down(self, sender: Any = None, how: str = "", **_: Any) -> None:
        if self._worker is None or sender != self._worker.hostname:
            return
        self._celeriac.life.stops()
        if how == "Cold":  # the pool has been ended, and Celery sends no signal after this one
            # In a thread of its own: this is a signal handler, and may have interrupted what holds the database's lock.
            ending = threading.Thread(target=self._celeriac.life.has_stopped, daemon=True)
            ending.start()
            ending.join(END_SECONDS)

    def shutdown(self, sender: Any = None, **_: Any) -> None:
        if self._worker is not None and sender is self._worker:
            self._celeriac.life.has_stopped()
            self._worker = None

    def beat(self, **_: Any) -> None:
        # Our schedule file lies there, and beat makes no folder.
        self._celeriac.settings.data_dir.mkdir(parents=True, exist_ok=True)
        own.sign(self._celeriac.app)

    def child(self, **_: Any) -> None:
        """In a fresh child of a prefork pool (or the one process of the solo pool): steps run in its main thread."""
        if self._worker is not None and threading.current_thread() is threading.main_thread():
            self._celeriac.life.child_starts(MainThreadInterrupter())

    def child_ends(self, **_: Any) -> None:
        if self._worker is not None:
            self._celeriac.life.send_what_waits()


class MainThreadInterrupter:
    """Interrupts an agent that runs in the main thread, also in a system call, by a signal of our own."""

    def __init__(self) -> None:
        self._why: type[Exception] | None = None
        self._main = threading.main_thread().ident or 0
        signal.signal(signal.SIGUSR2, self._raise)

    def _raise(self, _number: int, _frame: Any) -> None:
        why, self._why = self._why, None
        if why is not None:
            raise why

    def __call__(self, thread: int, why: type[Exception] | None) -> None:
        if thread != self._main:
            raise_in_thread(thread, why)
            return
        self._why = why
        if why is not None:
            signal.pthread_kill(self._main, signal.SIGUSR2)


class _Tasks:
    """Ordinary tasks that carry a session's header."""

    def __init__(self, celeriac: Celeriac) -> None:
        self._celeriac = celeriac

    def _note(self, task: Any, request: Any, type_: str, **data: Any) -> None:
        # In the main process the request is the consumer's, which keeps the message's headers in a dictionary.
        carried = getattr(request, "request_dict", None) or {}
        session_id = getattr(request, SESSION, None) or carried.get(SESSION)
        name = getattr(task, "name", None) or str(task)
        if session_id and not name.startswith(OWN) and getattr(task, "app", None) is self._celeriac.app:
            self._celeriac.timeline.note(
                str(session_id), type_, {"task": name, "id": getattr(request, "id", None), **data}
            )

    def started(self, task: Any = None, **_: Any) -> None:
        self._note(task, task.request, "task.started", retries=task.request.retries)

    def succeeded(self, sender: Any = None, runtime: float | None = None, **_: Any) -> None:
        self._note(sender, sender.request, "task.done", seconds=runtime)

    def failed(self, sender: Any = None, exception: Any = None, **_: Any) -> None:
        with contextlib.suppress(AttributeError):  # sent for a task that this process does not know
            self._note(sender, sender.request, "task.failed", error=repr(exception))

    def retried(self, sender: Any = None, request: Any = None, reason: Any = None, **_: Any) -> None:
        self._note(sender, request, "task.retry", error=str(reason))

    def revoked(
        self, sender: Any = None, request: Any = None, terminated: bool = False, expired: bool = False, **_: Any
    ) -> None:
        self._note(sender, request, "task.revoked", terminated=bool(terminated), expired=bool(expired))
