"""kill -9 between any two calls of a message: each request to the model and each call of a tool is made once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.orchestration.conversations import sending

from . import talker
from .service import Service

pytest.importorskip("pydantic_ai")

#: Imported once and then forked from.
HEAVY = "celery.app.amqp celery.worker celery.worker.consumer celery.concurrency.thread kombu.transport.memory".split()
HEAVY += "sqlalchemy alembic pydantic psycopg msgspec pydantic_ai pydantic_ai.models.function".split()
HEAVY += ["celeriac.orchestration.conversations.answering"]
CALLS = ["model-0", "tool-0", "model-1", "tool-1", "model-2", "tool-2", "model-3"]


def sides(messages: list[dict[str, Any]]) -> dict[str, Any]:
    done = [message["content"] for message in messages if message["role"] == "tool"]
    if done:
        return {"content": "; ".join(done)}
    functions = [{"name": "side_of", "arguments": f'{{"number": {number}}}'} for number in range(2)]
    calls = [{"id": f"call-{n}", "type": "function", "function": one} for n, one in enumerate(functions)]
    return {"tool_calls": calls}


def script(messages: list[dict[str, Any]]) -> dict[str, Any]:
    done = [message["content"] for message in messages if message["role"] == "tool"]
    if len(done) == 3:
        return {"content": "; ".join(done)}
    function = {"name": "step_of", "arguments": f'{{"number": {len(done)}}}'}
    return {"tool_calls": [{"id": f"call-{len(done)}", "type": "function", "function": function}]}


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service(script)
    yield one
    one.close()


def exit_code(env: dict[str, str], session_id: str) -> int | None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(HEAVY)
    process = processes.Process(target=talker.run, args=(env, session_id))
    process.start()
    wait([process.sentinel], 60)
    process.join(1)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode


def variables(service: Service, database_url: str, folder: Path) -> dict[str, str]:
    """The environment of the process."""
    settings = {"DATABASE_URL": database_url, "DATA_DIR": str(folder / "data"), "SWEEP_SECONDS": "0.05"}
    settings |= {"MAX_ATTEMPTS": "50", "LEASE_SECONDS": "30"}
    env = {**os.environ, **{f"CELERIAC_{name}": value for name, value in settings.items()}}
    return env | {"TALK_LEDGER": str(folder / "ledger"), "TALK_SERVICE": service.url}


def test_no_call_is_made_twice_wherever_the_worker_is_killed(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    ledger, env = tmp_path / "ledger", variables(service, database_url, tmp_path)
    talker.register()
    celeriac = Celeriac(data_dir=tmp_path / "data", database_url=database_url, embed=False)
    session = celeriac.sessions.create("walk", agent="talker")
    sending.send(celeriac.engine, session.id, "Walk three steps.", 10, None, None)
    codes = [exit_code(env, session.id) for _ in range(len(CALLS) + 1)]
    log = Path(f"{ledger}.log").read_text()
    assert codes == [-9] * len(CALLS) + [0], log
    assert ledger.read_text().split() == CALLS
    assert len(service.asked) == 4 and service.asked == sorted(service.asked)
    said = [(entry["role"], entry["content"]) for entry in session.history()]
    taken = [("tool", f"step {number} taken") for number in range(3)]
    assert said[:2] == [("system", "Walk."), ("user", "Walk three steps.")]
    assert [one for one in said if one[0] == "tool"] == taken and len(said) == 9
    assert said[-1] == ("assistant", "step 0 taken; step 1 taken; step 2 taken")
    assert session.steps()[0]["attempts"] == len(CALLS) + 1
    celeriac.close()


def test_of_two_tools_at_once_the_one_that_ended_is_not_called_again_after_a_kill(
    database_url: str, tmp_path: Path
) -> None:
    service = Service(sides)
    env = variables(service, database_url, tmp_path)
    talker.register()
    celeriac = Celeriac(data_dir=tmp_path / "data", database_url=database_url, embed=False)
    session = celeriac.sessions.create("look", agent="talker")
    sending.send(celeriac.engine, session.id, "Look at both sides.", 10, None, None)
    Path(f"{env['TALK_LEDGER']}.model-0").touch()  # requests do not die here
    Path(f"{env['TALK_LEDGER']}.model-2").touch()
    codes = [exit_code(env, session.id) for _ in range(2)]
    assert codes == [-9, 0], Path(f"{env['TALK_LEDGER']}.log").read_text()
    made = Path(env["TALK_LEDGER"]).read_text().split()
    assert sorted(made[1:3]) == ["side-0", "side-1"] and made[3:] == ["side-1", "model-2"]
    result = sending.answer_to(celeriac.engine, session.id, "message:1", timeout=1)
    assert result.result == "side 0 seen; side 1 seen"
    assert [one["arguments"] for one in result.steps if one["call"] == "tool"] == [{"number": 0}, {"number": 1}]
    said = [entry["content"] for entry in session.history() if entry["role"] == "tool"]
    assert said == ["side 0 seen", "side 1 seen"]
    celeriac.close()
    service.close()
