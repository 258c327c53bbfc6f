"""With `encrypt = "all"` nothing that users' data can be in lies plain; what was moved or put back is refused."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driver import Driver
from sqlalchemy import inspect, text

from celeriac import Celeriac
from celeriac.errors import CeleriacError, KeyMissing, SealBroken, SessionError, SettingsError
from celeriac.orchestration import rotating
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.plans import Plan, step
from celeriac.storage import checkpoints, events, findings, graph
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database
from celeriac.storage.keys import keyfile, keymarks
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing

OLD = Keys("old", {}).with_key("old", new_key())
BOTH = OLD.with_key("new", new_key())
NEW = Keys("new", {"new": BOTH.secrets["new"]}, OLD.hash)
RULES = {"fields": [{"path": "pin", "action": "encrypt"}]}
Make = Callable[..., Driver]


class Secrets:
    """Texts that no pattern recognises."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self) -> str:
        self.made.append(f"Zx{secrets.token_hex(9)}")
        return self.made[-1]

    def in_(self, data: bytes | str) -> list[str]:
        """Those that are in the data, also as base64 at any offset."""
        told = data.decode("latin-1") if isinstance(data, bytes) else data
        return [one for one in self.made if any(form in told for form in _forms(one))]


def _forms(secret: str) -> list[str]:
    return [secret, *(base64.b64encode(b"\0" * n + secret.encode()).decode()[4 * (n > 0) : -4] for n in range(3))]


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Make]:
    keyfile.write(tmp_path / "keys.toml", OLD)
    made: list[Driver] = []

    def one(**settings: Any) -> Driver:
        known = {"encrypt": "all", "keys_file": str(tmp_path / "keys.toml"), "inline_result_bytes": 3000, **settings}
        made.append(Driver(database_url, tmp_path / "data", **known))
        keymarks.confirm(made[-1].engine.database, made[-1].engine.keyring, known["encrypt"] == "all")
        add_agents(made[-1])
        return made[-1]

    yield one
    for driver in made:
        driver.close()


def add_agents(driver: Driver) -> None:
    """Agents that hand on what they are asked through every way out that they have."""

    @driver.agent("tell", retries=1, backoff=0.001)
    def tell(request: Any, ctx: Any) -> Any:
        said = iter(request["said"])
        ctx.progress(0.5, f"at {next(said)}")
        ctx.partial({"found": next(said)})
        ctx.memory.config["k"] = next(said)
        ctx.memory.history.append({"role": "user", "content": next(said)})
        ctx.memory["free"] = [next(said)]
        ctx.memory.save()
        ctx.state.set("seen", {"a": next(said)})
        assert ctx.once("looked up", lambda: {"x": request["once"]}) == {"x": request["once"]}
        assert ctx.call("large", {"x": request["once"]})["lines"]
        ctx.state.update("n", lambda value: [*(value or []), request["word"]])
        if ctx.attempt == 1:
            raise ValueError(f"no {next(said)}")
        next(said)
        return AgentOutput(
            {"said": next(said), "pin": next(said)},
            [
                Finding(f"who {next(said)}", f"what {request['word']}", next(said), evidence=[{"text": next(said)}]),
                Finding("who", "colour", f"red {next(said)}"),
                Finding("who", "colour", f"blue {next(said)}"),
            ],
            add_steps=[step("more", agent="large", request={"x": next(said)})],
        )

    @driver.agent("large")
    def large(request: Any, ctx: Any) -> Any:
        return {"lines": [json.dumps(request)] * 200}

    @driver.agent("fail")
    def fail(request: Any, ctx: Any) -> Any:
        raise RuntimeError(f"gave up on {request}")


def live(driver: Driver, hide: Secrets) -> Any:
    """A session with secrets in all that describes it, in its requests, and in what its agents give."""
    request = {"said": [hide() for _ in range(18)], "word": hide(), "pin": hide(), "once": hide()}
    plan = Plan("p", [step("a", agent="tell", request=request), step("b", agent="large", request="${a.said}")], hide())
    session = driver.sessions.start(
        plan, f"who is {hide()}", user="ana", title=f"about {hide()}", notes=hide(), metadata={"m": hide()},
        preferences={"pin": hide()}, file_paths=[f"/tmp/{hide()}"], tags=["tag"],
    )  # fmt: skip
    assert driver.run_to_end(session) == "completed", session.to_dict()
    session.checkpoint(f"at {hide()}")
    for conflict in session.conflicts():
        session.resolve_conflict(conflict["id"], {"text": hide()})
    session.change(title=f"now {hide()}", notes=hide(), metadata={"m": [hide()]})
    session.history.add("user", hide(), metadata={"m": hide()})
    session.add(user_request=[hide()] * 1000, agent="tell", response={"text": hide()})
    driver.engine.note(session.id, "test", [("said", {"text": hide()})])
    failed = driver.start(step("a", agent="fail", request=hide()))
    assert driver.run_to_end(failed) == "failed"
    empty = driver.sessions.create(hide())
    empty.complete({"report": hide()})
    for class_ in ("ephemeral", "trusted", "standard", "sensitive"):
        driver.engine.state.set("custom:x", f"{class_} {session.id}", {"a": hide()}, state_class=class_)
    driver.engine.state.set("custom:x", f"large {session.id}", [hide()] * 1000)
    driver.engine.state.set("custom:x", f"large {session.id}", [hide()] * 1001)
    return session


def answers(driver: Driver, session: Any) -> Any:
    """All that the API tells of a session, and keyed state."""
    shown = session.to_dict()
    shown["checkpoints"] = [{k: v for k, v in one.items() if k not in ("size", "base")} for one in shown["checkpoints"]]
    shown = [shown, session.findings(), session.partials(), session.agent_states(), session.plan.to_dict()]
    shown += [[event.to_dict() for event in session.stream(follow=False)]]
    shown += [session.checkpoint_state(one["number"]) for one in session.checkpoints()]
    shown += [session.output(one["name"]) for one in session.steps()]
    shown += [session.history()]
    state = driver.engine.state
    scopes = ("custom:x", "agent:tell")
    # values of class ephemeral are in this process alone
    keys = {scope: [key for key in state.list_keys(scope) if not key.startswith("ephemeral")] for scope in scopes}
    return session.reveal(shown), [state.get_many(scope, keys[scope]) for scope in scopes]


def rows(database: Database) -> str:
    """Every value of every table, as one text."""
    with database.engine.connect() as connection:
        names = inspect(connection).get_table_names()
        found = [connection.exec_driver_sql(f'SELECT * FROM "{name}"').fetchall() for name in names]
    return repr([[[bytes(v) if isinstance(v, memoryview) else v for v in row] for row in one] for one in found])


def on_disk(database: Database, folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "keys.toml":
            yield path.name, path.read_bytes()


def sql(database: Database, statement: str, **values: Any) -> int:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        count = connection.execute(text(statement), values).rowcount
        connection.exec_driver_sql("COMMIT")
    return int(count)


def test_no_secret_lies_plain_in_rows_files_and_blobs_and_all_of_it_reads_as_before(make: Make, tmp_path: Path) -> None:
    driver, hide = make(), Secrets()
    sessions = [live(driver, hide) for _ in range(6)]
    assert len(hide.made) >= 200
    database = driver.engine.database
    assert hide.in_(rows(database)) == []
    for name, data in on_disk(database, tmp_path):
        assert hide.in_(data) == [], name
    blobs = list(driver.engine.blobs.hashes())
    assert blobs and all(driver.engine.blobs.key_of(one) in ("old", None) for one in blobs)
    told = json.dumps([answers(driver, session) for session in sessions], default=str)
    missing = set(hide.made) - set(hide.in_(told))
    assert len(missing) <= 6 * 12, missing  # those of other sessions, and what was written over
    with pytest.raises(SessionError, match='cannot be searched by words, because encrypt = "all"'):
        driver.sessions.search("who")
    assert len(driver.sessions.list(user="ana", tag="tag")) == 6


def test_no_text_can_pass_for_a_sealed_one(make: Make) -> None:
    with pytest.raises(SessionError, match="title begins with ~CLS1~"):
        make(encrypt="sensitive").sessions.create("q", title="~CLS1~QUJD")


def test_findings_of_before_and_after_disagree(make: Make) -> None:
    plain, sealed = make(encrypt="sensitive"), make()
    for driver in (plain, sealed):
        driver.agent("see")(lambda request, ctx: AgentOutput(1, [Finding("Who", "colour", request)]))
    session = plain.start(step("a", agent="see", request="red"), step("b", agent="see", request="blue", after=["a"]))
    plain.run(session, most=1)
    assert sealed.run_to_end(sealed.sessions.get(session.id)) == "completed"
    assert len(sealed.sessions.get(session.id).conflicts()) == 1


# -- what was moved ----------------------------------------------------------------------------------------------------

SWAPS = {
    "sessions.title": "SELECT title FROM sessions ORDER BY id",
    "session_documents.body": "SELECT body FROM session_documents WHERE name = 'metadata' ORDER BY session_id",
    "step_inputs.body": "SELECT body FROM step_inputs WHERE number = 1 ORDER BY session_id",
    "results.body": "SELECT body FROM results WHERE body IS NOT NULL ORDER BY session_id",
    "events.data": "SELECT data FROM events WHERE type = 'step.partial' ORDER BY session_id",
    "history.body": "SELECT body FROM history WHERE number = 1 ORDER BY session_id",
    "partial_results.body": "SELECT body FROM partial_results ORDER BY session_id",
    "agent_parts.body": "SELECT body FROM agent_parts WHERE part = 'config/k' ORDER BY session_id",
    "findings.value": "SELECT value FROM findings ORDER BY session_id",
    "checkpoints.body": "SELECT body FROM checkpoints WHERE number = 1 ORDER BY session_id",
}


@pytest.mark.parametrize("place", SWAPS)
def test_two_sealed_rows_that_are_swapped_are_refused(make: Make, place: str) -> None:
    driver, hide = make(), Secrets()
    sessions = [live(driver, hide) for _ in range(2)]
    database = driver.engine.database
    with database.engine.connect() as connection:
        found = [row[0] for row in connection.exec_driver_sql(SWAPS[place]) if row[0]]
    first, second = found[0], found[-1]
    assert first != second
    table, column = place.split(".")
    swap = f"UPDATE {table} SET {column} = CASE WHEN {column} = :a THEN :b ELSE :a END WHERE {column} IN (:a, :b)"
    assert sql(database, swap, a=first, b=second) == 2
    with pytest.raises(SealBroken, match="sealed for another place"):
        other = make()
        for session in sessions:
            answers(other, other.sessions.get(session.id))
            other.engine.database.read(lambda tx, s=session: graph.input_of(tx, s.id, 1))


def test_two_blobs_that_are_swapped_are_refused(make: Make, tmp_path: Path) -> None:
    driver, hide = make(), Secrets()
    session = live(driver, hide)
    names = [session.output(name) and name for name in ("b", "more")]
    with driver.engine.database.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT blob FROM results JOIN steps USING (session_id, number) WHERE name IN ('b', 'more') ORDER BY name"
        ).fetchall()
    paths = [next((tmp_path / "data" / "blobs").rglob(row[0])) for row in found]
    first, second = (path.read_bytes() for path in paths[:2])
    assert first != second and first.startswith(b"CLB2")
    paths[0].write_bytes(second)
    paths[1].write_bytes(first)
    for name in names:
        with pytest.raises(SealBroken):
            make().sessions.get(session.id).output(name)
    assert driver.engine.blobs.put(b"x" * 5000) == driver.engine.blobs.put(b"x" * 5000)


def test_an_old_value_of_a_key_that_is_put_back_is_refused(make: Make) -> None:
    for encrypt in ("all", "sensitive"):
        driver = make(encrypt=encrypt)
        database, state = driver.engine.database, driver.engine.state
        first = state.set("global", "k", {"a": 1}, state_class="sensitive")
        with database.engine.connect() as connection:
            (old,) = connection.exec_driver_sql("SELECT packed FROM state_values WHERE key = 'k'").fetchone()
        state.set("global", "k", {"a": 2}, state_class="sensitive")
        assert state.get("global", "k", consistent=True) == {"a": 2}
        assert sql(database, "UPDATE state_values SET packed = :old WHERE key = 'k'", old=bytes(old)) == 1
        with pytest.raises(SealBroken, match="version"):
            make(encrypt=encrypt).engine.state.get("global", "k", consistent=True)
        assert first and sql(database, "DELETE FROM state_values") == 1


# -- keys --------------------------------------------------------------------------------------------------------------


def test_after_a_rotation_the_old_key_is_not_needed_and_everything_reads(make: Make, tmp_path: Path) -> None:
    driver, hide = make(guard_rules=RULES), Secrets()
    sessions = [live(driver, hide) for _ in range(2)]
    before = [answers(driver, session) for session in sessions]
    keyfile.write(tmp_path / "keys.toml", BOTH)
    turned = make(guard_rules=RULES)
    tally = rotating.rotate(turned.engine, KeyRing(BOTH))
    assert tally.refused == [] and tally.rewrapped > 50
    assert rotating.counted(turned.engine).found.keys() == {"new"}
    again = rotating.rotate(turned.engine, KeyRing(BOTH))
    assert (again.rewrapped, again.sealed) == (0, 0)
    keyfile.write(tmp_path / "keys.toml", NEW)
    after = make(guard_rules=RULES)
    assert [answers(after, after.sessions.get(one.id)) for one in sessions] == before
    assert hide.in_(rows(after.engine.database)) == []
    session = after.sessions.get(sessions[0].id)
    session.restore(session.checkpoints()[0]["number"])
    session.resume()
    assert after.run_to_end(session) == "completed", session.to_dict()


def test_fields_that_a_rule_sealed_are_brought_along_in_memories_and_checkpoints(make: Make, tmp_path: Path) -> None:
    driver = make(encrypt="sensitive", guard_rules=RULES)

    def add(to: Driver) -> None:
        @to.agent("keep")
        def keep(request: Any, ctx: Any) -> Any:
            ctx.memory.config["card"] = {"pin": "1234", "n": request, "pad": "x" * 500}
            ctx.memory.config.setdefault("first", {"pin": "5678"})
            return {"pin": "9", "pad": "y" * 5000}

    add(driver)
    plan = [step(f"s{n}", agent="keep", request=n, after=[f"s{n - 1}"] if n else []) for n in range(6)]
    session = driver.start(*plan)
    driver.run(session, most=3)
    keyfile.write(tmp_path / "keys.toml", BOTH)
    turned = make(encrypt="sensitive", guard_rules=RULES)
    tally = rotating.rotate(turned.engine, KeyRing(BOTH))
    assert tally.refused == [] and rotating.counted(turned.engine).found.keys() == {"new"}
    keyfile.write(tmp_path / "keys.toml", NEW)
    after = make(encrypt="sensitive", guard_rules=RULES)
    add(after)
    session = after.sessions.get(session.id)
    assert after.run_to_end(session) == "completed"
    for one in session.checkpoints():
        state = session.reveal(session.checkpoint_state(one["number"]))
        assert all(memory["config"]["first"] == {"pin": "5678"} for memory in state["agents"].values())
    assert session.reveal(session.output("s0"))["pin"] == "9"
    (first, *_, last) = [
        one["number"] for one in session.checkpoints() if "first" in str(session.checkpoint_state(one["number"]))
    ]
    assert not [one for one in session.diff(first, last) if ".first" in one["path"]]
    assert len(list(after.engine.blobs.hashes())) == 6
    assert rotating.rotate(after.engine, KeyRing(NEW)).rewrapped == 0


@pytest.mark.parametrize("size", [1, 5000])  # in a row, and in a blob
@pytest.mark.parametrize(("encrypt", "class_"), [("all", "standard"), ("sensitive", "sensitive"), ("sensitive", None)])
def test_a_sessions_own_state_goes_back_sealed_and_after_a_rotation_without_the_old_key(
    make: Make, tmp_path: Path, encrypt: str, class_: Any, size: int
) -> None:
    driver = make(encrypt=encrypt, guard_rules=RULES)
    session = driver.start(step("a", "large", {"x": 1}))
    scope = f"session:{session.id}"
    value = {"n": 1, "pin": "1234", "text": "x" * size}
    driver.engine.state.set(scope, "k", value, state_class=class_)
    first = session.checkpoint()
    driver.engine.state.set(scope, "k", {"n": 2}, state_class=class_)
    session.cancel()
    undo = session.restore(first)
    assert driver.engine.state.get(scope, "k", consistent=True) == value
    session.restore(undo)
    keyfile.write(tmp_path / "keys.toml", BOTH)
    tally = rotating.rotate(make(encrypt=encrypt, guard_rules=RULES).engine, KeyRing(BOTH))
    assert tally.refused == []
    assert rotating.rotate(make(encrypt=encrypt, guard_rules=RULES).engine, KeyRing(BOTH)).rewrapped == 0
    keyfile.write(tmp_path / "keys.toml", NEW)
    after = make(encrypt=encrypt, guard_rules=RULES)
    session = after.sessions.get(session.id)
    assert after.engine.state.get(scope, "k") == {"n": 2}
    session.restore(first)
    assert after.engine.state.get(scope, "k", consistent=True) == value


KILLED = """
import os, signal, sys
from celeriac.config import Settings
from celeriac.orchestration import rotating
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.engine import Engine
from celeriac.storage.keys.sealing import KeyRing

settings = Settings.load({"database_url": sys.argv[1], "data_dir": sys.argv[2], "keys_file": sys.argv[3],
                          "encrypt": "all", "inline_result_bytes": 3000}, environ={})
def told(tally):
    if tally.rewrapped + tally.sealed >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
rotating.rotate(Engine(settings, Registry()), KeyRing.load(settings), told)
"""


def rotate_until_killed(url: str, folder: Path, at: int) -> None:
    words = [sys.executable, "-c", KILLED, url, str(folder / "data"), str(folder / "keys.toml"), str(at)]
    assert subprocess.run(words, timeout=60, env={**os.environ}).returncode == -signal.SIGKILL


def test_a_rotation_that_is_killed_amid_work_is_run_again_and_then_complete(
    make: Make, database_url: str, tmp_path: Path
) -> None:
    keyfile.write(tmp_path / "keys.toml", Keys("old", BOTH.secrets, OLD.hash))
    driver, hide = make(), Secrets()
    sessions = [live(driver, hide) for _ in range(2)]
    running = driver.start(*(step(f"s{n}", agent="large", request=hide()) for n in range(6)))
    driver.run(running, most=2)
    before = [answers(driver, session) for session in sessions]
    keyfile.write(tmp_path / "keys.toml", BOTH)
    for at in (1, 40):
        rotate_until_killed(database_url, tmp_path, at)
        assert rotating.counted(make().engine).found.keys() == {"old", "new"}
        driver.run(running, most=1)  # a worker that still seals with the old key
    turned = make()
    assert turned.run_to_end(turned.sessions.get(running.id)) == "completed"
    assert rotating.rotate(turned.engine, KeyRing(BOTH)).refused == []
    keyfile.write(tmp_path / "keys.toml", NEW)
    after = make()
    assert [answers(after, after.sessions.get(one.id)) for one in sessions] == before
    assert len(after.sessions.get(running.id).to_dict()["steps"]) == 6


def test_a_store_that_was_plain_reads_on_and_is_brought_under_seal(
    make: Make, database_url: str, tmp_path: Path
) -> None:
    plain, hide = make(encrypt="sensitive", guard_rules=RULES), Secrets()
    sessions = [live(plain, hide) for _ in range(2)]
    assert len(plain.sessions.search("now")) == 2 and hide.in_(rows(plain.engine.database)) != []
    before = [answers(plain, session) for session in sessions]
    mixed = make(guard_rules=RULES)
    assert [answers(mixed, mixed.sessions.get(one.id)) for one in sessions] == before
    rotate_until_killed(database_url, tmp_path, 30)
    tally = rotating.rotate(mixed.engine, KeyRing(OLD))
    assert tally.refused == [] and tally.sealed > 20
    assert rotating.rotate(mixed.engine, KeyRing(OLD)).sealed == 0
    database = mixed.engine.database
    assert hide.in_(rows(database)) == []
    sealed = make(guard_rules=RULES)
    assert [answers(sealed, sealed.sessions.get(one.id)) for one in sessions] == before
    blobs = sealed.engine.blobs
    assert all(hide.in_(data) == [] for name, data in on_disk(database, tmp_path / "data" / "blobs"))
    assert all(blobs.key_of(name) or blobs.get(name).startswith(b"CLS1") for name in blobs.hashes())
    session = sealed.sessions.get(sessions[0].id)
    session.restore(session.checkpoints()[0]["number"])
    session.resume()
    assert sealed.run_to_end(session) == "completed"


def test_without_keys_or_with_others_a_sealed_database_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    keys, settings = tmp_path / "keys.toml", {"data_dir": str(tmp_path / "data"), "embed": False}
    with pytest.raises(SettingsError, match='encrypt = "all" needs keys'):
        Celeriac(**settings, encrypt="all")
    keyfile.write(keys, Keys("old", {"old": new_key()}))
    with pytest.raises(SettingsError, match="no key to hash with"):
        Celeriac(**settings, encrypt="all", keys_file=str(keys))
    keyfile.write(keys, OLD)
    c = Celeriac(**settings, encrypt="all", keys_file=str(keys))
    c.sessions.create("who", title="t").change(title="now")
    c.close()
    kept = rows(c.engine.database)
    c.close()
    with pytest.raises(KeyMissing, match='was used with encrypt = "all", and no keys are set'):
        _ = Celeriac(**settings).sessions
    for other in (Keys("old", {"old": new_key()}, OLD.hash), Keys("old", OLD.secrets, os.urandom(32))):
        keyfile.write(keys, other)
        for encrypt in ("all", "sensitive"):
            with pytest.raises(KeyMissing, match="put that one back"):
                _ = Celeriac(**settings, encrypt=encrypt, keys_file=str(keys)).sessions
    keyfile.write(keys, OLD)
    again = Celeriac(**settings, keys_file=str(keys))
    assert rows(again.engine.database) == kept
    assert again.sessions.list()[0].to_dict()["title"] == "now"
    again.close()


def test_a_process_without_keys_says_what_is_missing_at_every_door(make: Make, tmp_path: Path) -> None:
    driver, hide = make(), Secrets()
    session = live(driver, hide)
    bare = Driver(driver.engine.database.url.render_as_string(hide_password=False), tmp_path / "data")
    blob = next(name for name in driver.engine.blobs.hashes() if driver.engine.blobs.key_of(name))
    doors: dict[str, Callable[[], Any]] = {
        "row": lambda: bare.sessions.get(session.id).to_dict(),
        "result": lambda: bare.sessions.get(session.id).output("a"),
        "events": lambda: bare.engine.database.read(lambda tx: events.since(tx, session.id, 0)),
        "findings": lambda: bare.engine.database.read(lambda tx: findings.all_of(tx, session.id)),
        "checkpoint": lambda: bare.engine.database.read(lambda tx: checkpoints.state_at(tx, session.id, 1)),
        "blob": lambda: BlobStore(tmp_path / "data" / "blobs").get(blob),
    }
    for name, door in doors.items():
        with pytest.raises(CeleriacError, match="is sealed, and no keys are set") as raised:
            door()
        assert raised.type is KeyMissing, name
    bare.close()


def test_plain_state_of_tenants_and_of_other_places_is_brought_under_seal(make: Make, tmp_path: Path) -> None:
    for url in ("", f"file://{tmp_path}/state", f"sqlite:///{tmp_path}/other.db"):
        plain, hide = make(encrypt="sensitive", state_url=url), Secrets()
        states = [plain.engine.state, plain.engine.state.of_tenant("a/b%")]
        values = [{"a": hide()}, [hide()] * 1000]
        for state in states:
            for n, value in enumerate(values):
                state.set("step:w/s%2F", f"k{n}", value)
            state.set("global", "s", hide(), state_class="sensitive")
        versions = [state.get_versioned("step:w/s%2F", "k0")[1] for state in states]
        sealed = make(state_url=url)
        tally = rotating.rotate(sealed.engine, KeyRing(OLD))
        assert tally.refused == [] and tally.sealed >= 4
        again = make(state_url=url).engine.state
        for state, version in zip((again, again.of_tenant("a/b%")), versions, strict=True):
            assert [state.get("step:w/s%2F", f"k{n}") for n in range(2)] == values
            assert url.startswith("file") or state.get_versioned("step:w/s%2F", "k0")[1] == version
        database = again.places.backend.database if not url.startswith("file") else sealed.engine.database
        assert hide.in_(rows(database)) == []
        if url.startswith("file"):
            assert all(hide.in_(data) == [] for name, data in on_disk(database, tmp_path / "state"))
