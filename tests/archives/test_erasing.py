"""What is erased is gone from everywhere, and the receipt says so."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import RedisServer

from celeriac import Celeriac, Plan, step
from celeriac.errors import ArchiveError, SessionNotFound
from celeriac.orchestration.agents import AgentOutput, Finding, Registry, agent
from celeriac.orchestration.erasing import erasing, receipts
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.trees.apart import Own

Make = Callable[..., Celeriac]
CANARY = "canary"


@pytest.fixture
def make(database_url: str, tmp_path: Path, redis_server: RedisServer) -> Iterator[Make]:
    """Makes a Celeriac with agents that repeat what they are told."""
    redis_server.client().flushall()
    made: list[Celeriac] = []

    def one(**settings: Any) -> Celeriac:
        registry = Registry()

        @agent("cached", registry=registry, cache_ttl=600)
        def cached(request: dict[str, Any], ctx: Any) -> AgentOutput:
            return AgentOutput({"said": request["said"] * request["times"]}, [Finding("it", "is", request["said"])])

        @agent("repeat", registry=registry)
        def repeat(request: dict[str, Any], ctx: Any) -> AgentOutput:
            ctx.progress(0.5, request["said"])
            ctx.partial({"said": request["said"]})
            ctx.memory["said"] = request["said"]
            return AgentOutput({"said": request["said"] * request["times"]}, [Finding("it", "is", request["said"])])

        known: dict[str, Any] = {"data_dir": str(tmp_path / "data"), "database_url": database_url}
        known |= {"inline_result_bytes": 2000, "redis_url": redis_server.url, "sweep_seconds": 0.1}
        made.append(Celeriac(registry=registry, embed=False, **{**known, **settings}))
        return made[-1]

    yield one
    for c in made:
        c.close()


def live(c: Celeriac, user: str, word: str) -> str:
    """A completed session of a user, in which a word is everywhere; gives its id."""
    steps = [step("a", "repeat", {"said": word, "times": 1}), step("b", "repeat", {"said": word, "times": 500})]
    steps += [step("c", "cached", {"said": word, "times": 1}), step("d", "cached", {"said": word, "times": 500})]
    session = c.sessions.start(
        Plan("p", steps), f"who {word}", user=user, title=word, notes=word, tags=[word], metadata={"x": word}
    )
    assert session.wait(20) == "completed"
    session.add(user_request=word, response={"said": word})
    session.history.add("user", word * 500)
    c.state.set(f"session:{session.id}", word, {"own": word})
    c.state.set(f"session:{session.id}", "large", word * 500)
    session.checkpoint(word)
    return session.id


def fill(c: Celeriac, user: str, word: str) -> list[str]:
    """Sessions of a user, one of them archived and one active, and state; gives their ids."""
    with c.embedded(1):
        ids = [live(c, user, f"{word} {n}") for n in range(2)]
    c.archives.create(ids[1])
    ids.append(c.sessions.create(f"open {word}", user=user).id)
    c.state.set(f"custom:{user}", "k", word)
    c.state.set(f"custom:user:{user}", "k", word)
    c.grants.add(user, "read", "custom:x")
    return ids


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def found_in(c: Celeriac, redis: RedisServer, folder: Path, *words: str) -> list[str]:
    """Where words are found: files, also in what is compressed in them, rows, Redis."""
    client = redis.client(decode_responses=False)
    places = dict(bytes_of(folder))
    for key in client.keys("*"):
        kind = client.type(key)
        content = client.xrange(key) if kind == b"stream" else client.get(key) if kind == b"string" else b""
        places[f"redis {key!r}"] = key + repr(content).encode()
    with c.engine.database.engine.connect() as connection:
        from sqlalchemy import inspect

        for name in inspect(connection).get_table_names():
            places[f"table {name}"] = repr(connection.exec_driver_sql(f'SELECT * FROM "{name}"').fetchall()).encode()
    return sorted(place for place, content in places.items() if any(word.encode() in content for word in words))


def test_a_user_is_gone_from_every_place(make: Make, redis_server: RedisServer, tmp_path: Path) -> None:
    c = make()
    word, other = f"{CANARY}{secrets.token_hex(8)}", f"{CANARY}{secrets.token_hex(8)}"
    ids, others = fill(c, "ana", word), fill(c, "lea", other)
    deadline = time.monotonic() + 5
    while not any("redis" in one for one in found_in(c, redis_server, tmp_path, word)) and time.monotonic() < deadline:
        time.sleep(0.05)
    before = found_in(c, redis_server, tmp_path, word, *ids)
    assert any("redis" in one for one in before) and "table sessions" in before
    kept = {session_id: c.sessions.get(session_id).to_dict() for session_id in others}
    told = c.erase(user="ana", dry_run=True)
    assert told.status == "dry run" and told.removed["sessions"] == 3
    assert c.sessions.get(ids[0]).status == "completed" and c.receipts() == []
    receipt = c.erase(user="ana")
    assert receipt.status == "done" and receipt.removed["sessions"] == 3 and receipt.removed["archives"] == 1
    assert {"history entries", "cached results", "blobs", "steps", "grants", "state_values"} <= set(receipt.removed)
    left = found_in(c, redis_server, tmp_path, word, *ids)
    if not c.engine.database.is_sqlite:
        assert receipt.stays[0]["place"] == "database"
    else:
        assert receipt.stays == []
    assert left == []
    for session_id in ids:
        with pytest.raises(SessionNotFound):
            c.sessions.get(session_id)
    assert "ana" not in json.dumps(receipts.shown(receipt)) and not set(ids) & set(
        json.dumps(receipt.removed).split('"')
    )
    assert receipt == c.receipts()[0] and receipts.digest_of(receipt) == receipt.digest
    assert {session_id: c.sessions.get(session_id).to_dict() for session_id in others} == kept
    assert c.archives.verify(others[1]).ok and c.state.get("custom:lea", "k") == other
    assert found_in(c, redis_server, tmp_path, other)
    again = c.erase(user="ana")
    assert again.removed == {} and again.id != receipt.id


def test_a_session_alone_is_erased_and_equal_ones_of_others_stay(make: Make) -> None:
    c = make()
    with c.embedded(1):
        ids = [live(c, "ana", "same"), live(c, "lea", "same")]
    receipt = c.erase(session=ids[0])
    assert receipt.removed["sessions"] == 1 and receipt.kind == "session"
    session = c.sessions.get(ids[1])
    assert session.output("b")["said"].startswith("same") and len(session.history()) == 2
    with pytest.raises(SessionNotFound):
        c.erase(session=ids[0])
    with pytest.raises(ArchiveError, match="exactly one"):
        c.erase(user="ana", session=ids[1])
    with pytest.raises(ArchiveError, match="exactly one"):
        c.erase()
    assert len(c.receipts()) == 1


@pytest.mark.parametrize("archived", ["nothing", "the branch", "both"])
def test_branches_of_what_is_erased_go_as_well(make: Make, tmp_path: Path, archived: str) -> None:
    c = make()
    root = c.sessions.create("q", user="ana")
    root.add(user_request=CANARY)
    branch = root.branch("try")
    branch.history.add("user", CANARY)
    if archived != "nothing":
        branch.complete()
        branch.archive()
    root.cancel()
    if archived == "both":
        root.archive()
    found = c.erase(session=root.id, dry_run=True).removed
    assert found["branches"] == 1 and found.get("archives", 0) == ("nothing", "the branch", "both").index(archived)
    assert c.erase(session=root.id).removed["sessions"] == 2
    assert not list((tmp_path / "data" / "archives").rglob("*.archive"))
    for one in (root, branch):
        with pytest.raises(SessionNotFound):
            c.sessions.get(one.id)


def interrupted(*_: Any) -> None:
    """What is done where a process is killed."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("archived", [False, True], ids=["live", "archived"])
def test_branches_of_what_is_erased_go_from_backups_as_well(make: Make, archived: bool) -> None:
    c = make()
    root, other = c.sessions.create("what?", user="ana"), c.sessions.create("else?", user="ana")
    root.history.add("user", CANARY)
    branch, stays = root.branch("try"), other.branch("try")
    below = branch.branch("again")
    below.history.add("user", CANARY)
    if archived:
        below.complete()
        below.archive()
    c.backups.create()
    receipt = c.erase(session=root.id, rewrite_backups=True)
    assert receipt.status == "done" and receipt.removed["backups made anew"] == 1
    c.backups.restore(c.backups.list()[-1].id, safety=False)
    assert c.sessions.get(stays.id).id == stays.id
    for gone in (root, branch, below):
        with pytest.raises(SessionNotFound):
            c.sessions.get(gone.id)
    assert c.archives.list() == []


def test_what_trees_keep_beside_state_elsewhere_goes_as_well(make: Make, tmp_path: Path) -> None:
    c = make(state_url=f"file://{tmp_path}/state")
    word = f"{CANARY}{secrets.token_hex(8)}"
    root, other = c.sessions.create("q", user="ana"), c.sessions.create("q", user="lea")
    c.state.set(f"session:{root.id}", "k", word)
    c.state.set(f"session:{other.id}", "k", "kept")
    branch = root.branch("try")
    other.branch("try")
    for one in (root, branch):
        c.state.set(f"session:{one.id}", "k", f"{word} {one.id}")
    assert root.merge(branch).conflicts == [1]
    c.backups.create(compression="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Own, "forget_kept", interrupted)
        with pytest.raises(KeyboardInterrupt):
            c.erase(user="ana")
    receipt = c.erase(user="ana", rewrite_backups=True)
    assert receipt.removed["sessions"] == 2 and receipt.removed["state_values"] == 5
    assert not [name for name, content in bytes_of(tmp_path).items() if word.encode() in content]
    (backup,) = c.backups.list()
    c.backups.restore(backup.id, safety=False)
    assert not [name for name, content in bytes_of(tmp_path).items() if word.encode() in content]
    assert [c.state.get(f"session:{one.id}", "k") for one in other.children()] == ["kept"]


def test_another_tenant_keeps_its_user_of_that_name(make: Make) -> None:
    c = make()
    theirs = c.acting_as("x", "acme")
    mine, other = c.sessions.create("q", user="ana"), theirs.sessions.create("q", user="ana")
    with pytest.raises(SessionNotFound):
        theirs.erase(session=mine.id)
    assert theirs.receipts() == []
    assert theirs.erase(user="ana").removed["sessions"] == 1
    assert mine.status == "active"
    with pytest.raises(SessionNotFound):
        theirs.sessions.get(other.id)
    assert c.receipts() == [] and len(theirs.receipts()) == 1 and theirs.receipts()[0].by == "x"


@pytest.mark.parametrize("moment", ["delete", "scrub", "forget", "invalidate"])
def test_what_was_broken_off_is_completed_by_doing_it_again(
    make: Make, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    c = make()
    word = f"{CANARY}{secrets.token_hex(8)}"
    fill(c, "ana", word)
    places = {
        "delete": (erasing.deleting, "delete"),
        "scrub": (erasing, "scrub"),
        "forget": (erasing.hot, "forget"),
        "invalidate": (type(c._cache), "invalidate"),
    }
    passes = 0
    owner, name = places[moment]
    real = getattr(owner, name)

    def killed(*args: Any, **more: Any) -> Any:
        nonlocal passes
        passes += 1
        if passes == 2 or name in ("scrub", "forget"):
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(KeyboardInterrupt):
        c.erase(user="ana")
    assert [one.status for one in c.receipts()] == ["running"]
    monkeypatch.undo()
    receipt = c.erase(user="ana")
    assert (receipt.status, receipt.resumed, receipt.removed["sessions"]) == ("done", 1, 3)
    assert found_in(c, redis_server, tmp_path, word) == []
    assert [one.status for one in c.receipts()] == ["done"]


@pytest.mark.parametrize("sealed", [False, True])
def test_backups_that_hold_it_are_named_or_made_anew(make: Make, tmp_path: Path, keys_file: str, sealed: bool) -> None:
    c = make(**({"keys_file": keys_file, "encrypt": "all"} if sealed else {}))
    word, other = f"{CANARY}{secrets.token_hex(8)}", f"{CANARY}{secrets.token_hex(8)}"
    with c.embedded(1):
        ids = [live(c, "ana", word), live(c, "lea", other)]
    c.state.set("custom:ana", "k", word)
    made = [c.backups.create(label="first", compression="none")]
    c.sessions.create("q", user="lea")
    made.append(c.backups.create(mark=True, compression="none"))
    empty = c.acting_as("", "").erase(session=ids[0], dry_run=True)
    assert [one["id"] for one in empty.stays] == [one.id for one in made]
    receipt = c.erase(user="ana")
    assert [(one["place"], one["id"]) for one in receipt.stays[:2]] == [("backup", one.id) for one in made]
    assert "marked" in receipt.stays[1]["why"] and receipt.stays[0]["why"]
    made.append(c.backups.create(compression="none"))
    receipt = c.erase(user="ana", rewrite_backups=True)
    assert receipt.removed == {"backups made anew": 2}
    listed = c.backups.list()
    assert [one.number for one in listed] == [1, 2, 3] and listed[1].marked and listed[0].label == "first"
    assert not {one.id for one in listed[:2]} & {one.id for one in made}
    assert all(c.backups.verify(one.id).ok for one in listed)
    if not sealed:
        assert not [name for name, content in bytes_of(tmp_path).items() if word.encode() in content]
    c.backups.restore(listed[0].id, safety=False)
    with pytest.raises(SessionNotFound):
        c.sessions.get(ids[0])
    session = c.sessions.get(ids[1])
    assert session.output("b")["said"].startswith(other) and len(session.history()) == 2
    assert c.state.get("custom:ana", "k") is None
    assert c.erase(user="ana", dry_run=True).stays == []


def test_an_archive_that_cannot_be_read_goes_all_the_same(make: Make, tmp_path: Path) -> None:
    c = make()
    with c.embedded(1):
        session_id = live(c, "ana", "word")
    c.archives.create(session_id)
    (file,) = (tmp_path / "data" / "archives").rglob("*.archive")
    file.write_bytes(file.read_bytes()[:-3000])
    receipt = c.erase(user="ana")
    assert receipt.status == "done" and receipt.removed["archives"] == 1 and not file.exists()
    assert receipt.stays[0]["place"] == "cache" and "could not be read" in receipt.stays[0]["why"]


def test_only_an_admin_of_everything_erases(make: Make) -> None:
    from celeriac.errors import AccessDenied
    from celeriac.orchestration.guard.grants import bootstrap

    c = make(access="on")
    bootstrap(c.engine.database, "", "root")
    session = c.acting_as("root").sessions.create("q", user="root")
    c.acting_as("root").grants.add("eve", "write", "*")
    for use in (lambda a: a.erase(session=session.id), lambda a: a.erase(user="root"), lambda a: a.receipts()):
        with pytest.raises(AccessDenied):
            use(c.acting_as("eve"))
    assert c.acting_as("root").erase(session=session.id).by == Caller("root").principal
