"""Two hundred secrets go through every door; afterwards none of them is in any file, server, log or answer."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guard.canary_agents import NAMES, PLAIN, TEXTS, name_of, plain_of, text_of
from servers import RedisServer, free_port
from sqlalchemy import inspect
from tasks.processes import Process, Worker, ended, until

from celeriac import Celeriac, Plan, step
from celeriac.storage import checkpoints
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key

RULES = """
texts = ["api-keys"]

[[patterns]]
name = "canary"
pattern = "canary-[0-9a-f]{24}"

[[fields]]
path = "password"

[[fields]]
path = "secret"
action = "hash"

[[fields]]
path = "pin"
action = "encrypt"
"""
HERE = Path(__file__).parent


class Canaries:
    """Secrets of two kinds: those that a pattern tells, and those that only the name of their field gives away."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.names: list[str] = []

    def text(self) -> str:
        self.texts.append(f"canary-{secrets.token_hex(12)}")
        return self.texts[-1]

    def name(self) -> str:
        self.names.append(f"Zq{secrets.token_hex(10)}")
        return self.names[-1]

    def found_in(self, data: bytes | str) -> list[str]:
        """Those that are in the data, also as base64 at any offset or in hexadecimal digits."""
        text = data.decode("latin-1") if isinstance(data, bytes) else data
        return [one for one in (*self.texts, *self.names) if any(form in text for form in _forms(one))]


def _forms(secret: str) -> list[str]:
    inner = [base64.b64encode(b"\0" * pad + secret.encode()).decode()[4 * (pad > 0) : -4] for pad in range(3)]
    return [secret, secret.encode().hex(), *inner]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


def test_the_search_itself_finds_what_it_should() -> None:
    canaries = Canaries()
    one = canaries.name()
    for data in (one, f"x{one}".encode(), base64.b64encode(f"ab{one}c".encode()), one.encode().hex()):
        assert canaries.found_in(data) == [one]


def test_no_secret_is_anywhere(tmp_path: Path, redis_server: RedisServer, redis: RedisServer) -> None:
    canaries = Canaries()
    settings = _settings(tmp_path, redis)
    port = free_port()
    worker = Worker(tmp_path, "-c", "1", **settings)
    flower = Process(
        ["-m", "celery", "-A", "celeriac", "flower", "--address=127.0.0.1", f"--port={port}"],
        tmp_path, "flower", FLOWER_UNAUTHENTICATED_API="1", **settings,
    )  # fmt: skip
    own = {name.removeprefix("CELERIAC_").lower(): value for name, value in settings.items() if name.islower()}
    with ended(worker, flower):
        flower.wait_for("Connected to redis")
        c = Celeriac(embed=False, data_dir=str(tmp_path / "data"), **{k: v for k, v in own.items() if k != "agents"})
        try:
            sessions = [_run(c, canaries) for _ in range(6)]
            canaries.texts.append(text_of("failing", 200))
            failed = c.sessions.start(Plan("f", [step("a", "canary.fail", {"word": "failing"})]))
            assert failed.wait(30) == "failed", failed.to_dict()
            _keep_state(c, canaries)
            assert len(canaries.texts) + len(canaries.names) >= 200
            shown = until(lambda: _flower(port, 13), 20, every=0.2)
            time.sleep(0.3)
            assert canaries.found_in(shown) == []
            assert canaries.found_in(_dump(redis)) == []
            assert canaries.found_in(_inspected(c)) == []
            for session in (*sessions, failed):
                assert canaries.found_in(_answers(c, session)) == []
            assert canaries.found_in(_rows(c)) == []
            blobs = list(c.engine.blobs.hashes())
            assert len(blobs) >= 6 and canaries.found_in(b"".join(map(c.engine.blobs.get, blobs))) == []
        finally:
            c.close()
        assert worker.stop() == 0
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {"celeriac.db", "worker.log", "flower.log"} <= {path.name for path in files}
        for path in files:
            assert canaries.found_in(path.read_bytes()) == [], path
        assert "[redacted]" in worker.log and "Traceback" in worker.log


def test_no_secret_that_nothing_tells_is_anywhere_where_all_is_sealed(
    tmp_path: Path, database_url: str, redis_server: RedisServer, redis: RedisServer
) -> None:
    canaries = Canaries()
    settings = _settings(tmp_path, redis) | {"guard_rules": "", "encrypt": "all", "database_url": database_url}
    port = free_port()
    worker = Worker(tmp_path, "-c", "1", **settings)
    flower = Process(
        ["-m", "celery", "-A", "celeriac", "flower", "--address=127.0.0.1", f"--port={port}"],
        tmp_path, "flower", FLOWER_UNAUTHENTICATED_API="1", **settings,
    )  # fmt: skip
    with ended(worker, flower):
        flower.wait_for("Connected to redis")
        c = Celeriac(
            embed=False, data_dir=str(tmp_path / "data"), **{k: v for k, v in settings.items() if k != "agents"}
        )
        try:
            sessions = [_tell(c, canaries) for _ in range(5)]
            word = secrets.token_hex(4)
            canaries.names.append(plain_of(word, 200))
            failed = c.sessions.start(Plan("f", [step("a", "canary.break", {"word": word})]))
            assert failed.wait(30) == "failed" and canaries.names[-1] in failed.error
            assert len(canaries.names) >= 200
            shown = until(lambda: _flower(port, 11, "canary.break"), 20, every=0.2)
            time.sleep(0.3)
            assert canaries.found_in(shown) == []
            assert canaries.found_in(_dump(redis)) == []
            assert canaries.found_in(_inspected(c)) == []
            assert canaries.found_in(_rows(c)) == []
            told = "".join(_answers(c, session) for session in sessions)
            told += repr(c.state.get_many("agent:canary.tell", c.state.list_keys("agent:canary.tell")))
            assert len(canaries.found_in(told)) > 150
            blobs = [c.engine.blobs.key_of(name) for name in c.engine.blobs.hashes()]
            assert len(blobs) >= 5 and set(blobs) == {"k"}
            on_disk = c.engine.database.is_sqlite
        finally:
            c.close()
        assert worker.stop() == 0
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "canary_agents.py"]
        assert {"worker.log", "flower.log", *(["celeriac.db"] if on_disk else [])} <= {path.name for path in files}
        for path in files:
            assert canaries.found_in(path.read_bytes()) == [], path
        assert "canary.break" in worker.log and "RuntimeError" in worker.log and "Traceback" in worker.log


def _tell(c: Celeriac, canaries: Canaries) -> Any:
    """A session with secrets that no pattern recognises in all that is sealed of it."""
    n, word = canaries.name, secrets.token_hex(4)
    canaries.names += [plain_of(word, number) for number in range(PLAIN)]
    session = c.sessions.start(
        Plan("canary", [step("a", "canary.tell", {"word": word, "text": n(), "deep": [{n(): n()}]})], description=n()),
        f"who is {n()}",
        title=f"about {n()}",
        notes=n(),
        metadata={"deep": [{"text": n(), n(): 1}]},
        preferences={"like": n()},
        file_paths=[f"/tmp/{n()}"],
    )
    assert session.wait(30) == "completed", (session.error, session.steps())
    session.change(notes=n(), title=f"now {n()}", metadata={"t": n()})
    for conflict in session.conflicts():
        session.resolve_conflict(conflict["id"], {"text": n()}, by=f"ana {n()}")
    session.checkpoint(f"at {n()}")
    for _ in range(4):  # of which three are summed up and put away
        session.history.add("user", f"{n()} was said, and then it was said again.")
    session.compact(keep_last=1)
    c.timeline.note(session.id, "task.failed", {"error": n()})
    c.timeline.flush(5)
    empty = c.sessions.create(n())
    empty.complete({"report": n()})
    return session


def _settings(folder: Path, redis: RedisServer) -> dict[str, Any]:
    (folder / "rules.toml").write_text(RULES)
    shutil.copy(HERE / "canary_agents.py", folder)
    keyfile.write(folder / "keys.toml", Keys("a", {}).with_key("k", new_key()))
    return {
        "broker_url": redis.url,
        "redis_url": redis.url,
        "agents": "canary_agents",
        "guard_rules": str(folder / "rules.toml"),
        "keys_file": str(folder / "keys.toml"),
        "inline_result_bytes": 20_000,
        "sweep_seconds": 0.2,
    }


def _run(c: Celeriac, canaries: Canaries) -> Any:
    """A session with secrets in all that describes it, in its requests, and in what its agents give."""
    t, n = canaries.text, canaries.name
    pin, known, word = n(), n(), secrets.token_hex(4)
    canaries.texts += [text_of(word, number) for number in (*range(TEXTS), 100)]
    canaries.names += [name_of(word, number) for number in range(NAMES)]
    first = {"pin": pin, "word": word, "password": n(), "deep": [{"note": f"a {t()}", t(): 1, "secret": n()}]}
    plan = Plan(
        "canary",
        [
            step("a", "canary.pass", first),
            step("b", "canary.large", {"word": word, "lines": 3000, "x": f"${{a.said}} {t()}"}, after=["a"]),
        ],
        description=t(),
    )
    session = c.sessions.start(
        plan,
        f"who is {t()}",
        title=f"about {t()}",
        notes=f"note {t()}",
        metadata={"password": n(), "deep": [{"text": t(), "secret": n()}]},
        preferences={"pin": known, "like": t()},
        tags=[f"tag {t()}"],
        file_paths=[f"/tmp/{t()}"],
    )
    assert session.wait(30) == "completed", (session.error, session.steps())
    output = session.output("a")
    assert output["sum"] == hashlib.sha256(pin.encode()).hexdigest()  # the agent had it
    assert output["secret"].startswith("[hash:")
    assert session.reveal(session.to_dict()["preferences"]) == {"pin": known, "like": "[redacted]"}
    session.change(notes=f"now {t()}", title=f"now {t()}", metadata={"password": n(), "t": t()}, tags=[t()])
    for conflict in session.conflicts():
        session.resolve_conflict(conflict["id"], {"password": n(), "text": t()}, by=f"ana {t()}")
    session.checkpoint("at the end")
    empty = c.sessions.create(f"q {t()}", metadata={"password": n()})
    empty.complete({"password": n(), "report": t()})
    return session


def _keep_state(c: Celeriac, canaries: Canaries) -> None:
    """State of every class that can be had here."""
    t, n = canaries.text, canaries.name
    for class_ in ("ephemeral", "trusted", "standard", "sensitive"):
        value = {"password": n(), "text": f"x {t()}", "deep": [{"secret": n(), "pin": n()}]}
        c.state.set("custom:canary", class_, value, state_class=class_)
        assert c.state.get("custom:canary", class_)["deep"][0]["pin"] == value["deep"][0]["pin"]
    whole = n()
    c.state.set("custom:canary", "whole", {"any": whole, "large": [whole] * 10_000}, state_class="sensitive")
    assert c.state.get("custom:canary", "whole", consistent=True)["any"] == whole
    c.state.update("custom:canary", "standard", lambda value: {**value, "more": t(), "password": n()})


def _answers(c: Celeriac, session: Any) -> str:
    """All that the API tells of a session."""
    shown = [session.to_dict(), session.findings(), session.partials(), session.agent_states(), session.result]
    shown += [[event.to_dict() for event in session.stream(follow=False)]]
    shown += [session.checkpoint_state(one["number"]) for one in session.checkpoints()]
    shown += [session.output(one["name"]) for one in session.steps()]
    for one in session.checkpoints():
        shown.append(repr(c.engine.database.read(lambda tx, n=one["number"]: checkpoints.state_at(tx, session.id, n))))
    return json.dumps(shown)


def _rows(c: Celeriac) -> str:
    """Every value of every table."""
    with c.engine.database.engine.connect() as connection:
        names = inspect(connection).get_table_names()
        return repr([connection.exec_driver_sql(f'SELECT * FROM "{name}"').fetchall() for name in names])


def _dump(redis: RedisServer) -> bytes:
    """All that Redis holds, as the bytes of its values."""
    client = redis.client(decode_responses=False)
    parts: list[Any] = []
    for key in client.keys("*"):
        kind = client.type(key).decode()
        if kind == "none":  # its time was over meanwhile
            continue
        read = {
            "string": client.get, "list": lambda k: client.lrange(k, 0, -1), "hash": client.hgetall,
            "set": client.smembers, "zset": lambda k: client.zrange(k, 0, -1), "stream": client.xrange,
        }[kind]  # fmt: skip
        parts.append((key, read(key)))
    assert any(b":events" in key for key, _ in parts)
    return repr(parts).encode()


def _inspected(c: Celeriac) -> str:
    """What `celery inspect` tells of the worker."""
    inspect_ = c.app.control.inspect(destination=["worker@test"], timeout=5, limit=1)
    told = [getattr(inspect_, name)() for name in ("active", "reserved", "scheduled", "revoked", "stats", "conf")]
    assert all(told)
    return repr(told)


def _flower(port: int, least: int, failing: str = "canary.fail") -> str | None:
    """What Flower's API says of tasks and workers, once it knows of enough steps that have ended."""
    told = ""
    for path in ("tasks", "workers"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=5) as answer:
            told += answer.read().decode()
    ended_ = told.count('"state": "SUCCESS"') + told.count('"state": "FAILURE"')
    return told if ended_ >= least and failing in told and "FAILURE" in told else None
