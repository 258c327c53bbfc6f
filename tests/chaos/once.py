"""A process that starts a plan under a key, runs it itself, and waits for its end: it is started until it gets there.

Nothing of Celeriac is imported before `run` has set the environment: crash points are armed on import.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait

#: Imported once and then forked from: they take longer to import than the plan takes to run.
HEAVY = "celery.app.amqp celery.worker celery.worker.consumer celery.concurrency.thread kombu.transport.memory".split()
HEAVY += "sqlalchemy alembic pydantic psycopg msgspec markdown_it license_expression".split()
KEY = "crash"
#: `start` polls every other process of this one, and of two threads that poll at once one reads a wrong exit code, 255.
_polling = threading.Lock()


def run(env: Mapping[str, str], folder: str) -> None:
    """The process: exits with 0 once the session has ended."""
    log = os.open(os.path.join(folder, "once.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(env)
    from celeriac import Celeriac
    from chaos import plans

    celeriac = Celeriac()
    celeriac.sessions.start(plans.six_steps(folder), key=KEY).wait(20)
    celeriac.close()


def exit_code(env: Mapping[str, str], folder: str) -> int | None:
    """Run a process to its end or its crash; gives its exit code, -9 after a crash."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(HEAVY)
    process = processes.Process(target=run, args=(dict(env), folder))
    with _polling:
        process.start()
    wait([process.sentinel], 60)
    with _polling:
        process.join(0)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None
        return process.exitcode
