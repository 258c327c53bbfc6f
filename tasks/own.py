"""The tasks of ours that messages start: a hint is served, a job of maintenance run, a research job enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery

from . import beating, conf

if TYPE_CHECKING:
    from .app import Celeriac

#: Their names never change: workers of old and new releases share a queue.
NAMES = ("celeriac.step", "celeriac.sweep", "celeriac.maintain", "celeriac.research")


def add(celeriac: Celeriac) -> Any:
    """Register our tasks with the app of a Celeriac, and maintenance with its beat; gives the task of steps."""
    app = celeriac.app

    @app.task(
        name="celeriac.step",
        shared=False,
        ignore_result=True,
        send_events=False,
        acks_late=False,
        max_retries=0,
        serializer="json",
        typing=False,
    )
    def step(session_id: str = "", queue: str | None = None, *_: Any, **__: Any) -> int:
        # Whoever can write to the broker can send anything: what is no hint is for `serve` to refuse.
        return celeriac.take_hint(session_id, queue)

    @app.task(name="celeriac.maintain", shared=False, ignore_result=True, acks_late=False, serializer="json")
    def maintain(job: str = "", *_: Any, **__: Any) -> str | None:
        # Sent twice, late, or by anybody: a job runs once for each time that it is due.
        return celeriac.maintain(str(job))

    @app.task(name="celeriac.sweep", shared=False, ignore_result=True, acks_late=False, serializer="json")
    def sweep() -> list[int]:  # beat of earlier releases sends it
        swept = celeriac.sweep()
        return [swept.returned, swept.dead, swept.hinted]

    @app.task(name="celeriac.research", shared=False, ignore_result=False, acks_late=True, serializer="json")
    def research(
        question: str, folders: list[str], out: str, kind: str = "documents", user: str = "", key: str | None = None
    ) -> str:
        return celeriac.research(question, folders, out=out, kind=kind, user=user, key=key).id

    def schedule(sender: Celery, **_: Any) -> None:
        beating.schedule(sender, celeriac.settings, maintain)

    if app.finalized:
        schedule(app)
    else:
        app.on_after_finalize.connect(schedule, weak=False)
    return step


def sign(app: Celery) -> None:
    """Sign our messages where the app signs its own (Celery's serializer `auth`)."""
    if app.conf.task_serializer == conf.SIGNED:
        for name in NAMES:
            task = app.tasks[name]
            task.serializer, task._exec_options = conf.SIGNED, None
