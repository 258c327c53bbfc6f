"""A session goes into an archive and comes back, with all that belongs to it, or stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import invariants
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import ArchiveDamaged, ArchiveError, ArchiveNotFound, KeyMissing, SessionError, SessionNotFound
from celeriac.orchestration.archives import making
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.keeping.retention import Retention
from celeriac.orchestration.plans import Step

from .conftest import INLINE, Store, archives_of, rich_session

NewStore = Callable[..., Store]
KINDS = ["sqlite", "postgresql"]


def shown(store: Store, session_id: str) -> dict[str, Any]:
    """All that is told of a session."""
    session = store.driver.sessions.get(session_id)
    return {
        "show": session.to_dict(),
        "results": store.results(session_id),
        "history": session.history(),
        "events": [event.to_dict() for event in session.stream(follow=False)],
        "partials": session.partials(),
        "agents": session.agent_states(),
        "findings": session.findings(),
        "state": {
            key: store.driver.engine.state.get(f"session:{session_id}", key, consistent=True)
            for key in store.driver.engine.state.list_keys(f"session:{session_id}")
        },
        "checkpoints": [session.checkpoint_state(one["number"]) for one in session.checkpoints()],
        "found": [one.id for one in store.driver.sessions.search("about")]
        if store.driver.settings.encrypt != "all"
        else [],
    }


def rows(store: Store) -> set[str]:
    """The tables that have rows beside those that are of no session."""
    return {name for name, (count, _) in store.content().items() if count} - {"sessions", "blobs", "key_marks"}


def lasting(store: Store) -> dict[str, tuple[int, str]]:
    """The rows of all tables but the hints, which are only for the moment."""
    return {name: found for name, found in store.content().items() if name != "outbox"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encrypt", ["", "all"])
def test_a_session_comes_back_as_it_was(new_store: NewStore, kind: str, encrypt: str, keys_file: str) -> None:
    store = new_store(kind, **({"keys_file": keys_file, "encrypt": encrypt} if encrypt else {}))
    session_id = rich_session(store)
    before, content = shown(store, session_id), lasting(store)
    made = archives_of(store).create(session_id)
    assert made.sealed is bool(encrypt) and made.status == "completed"
    stub = store.driver.sessions.get(session_id).to_dict()
    assert (stub["status"], stub["query"], stub["tags"], stub["title"]) == ("archived", "who", ["x", "y"], "about who")
    assert stub["archive"]["file"] == made.file and stub["steps"] == []
    left = rows(store) - {"session_search", "state_events"}
    assert left == {"archives", "events", "session_tags", "state_values"}
    assert store.driver.engine.state.list_keys(f"session:{session_id}") == []
    assert not [path for path in (store.folder / "blobs").rglob("*") if path.is_file()]
    if not encrypt:
        invariants.check(store.driver.engine)
    back = archives_of(store).restore(session_id)
    assert back.status == "completed"
    assert shown(store, session_id) == before
    assert lasting(store) == content
    if encrypt != "all":
        invariants.check(store.driver.engine)
    assert not list((store.folder / "archives").rglob("*.archive"))
    with pytest.raises(ArchiveNotFound, match="in no archive: it is completed"):
        archives_of(store).restore(session_id)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_listed_found_and_looked_into(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    session_id, other = rich_session(store), rich_session(store, "else", user="lea")
    before, results = shown(store, session_id), store.results(session_id)
    archives = archives_of(store)
    archives.create(session_id)
    (one,) = archives.list()
    assert (one.id, one.user, one.status, one.tags) == (session_id, "ana", "completed", ["x", "y"])
    assert [one.id for one in archives.search("about who")] == [session_id]
    assert list(archives.search("else")) == [] and list(archives.list(user="lea")) == []
    assert [one.id for one in store.driver.sessions.list(status="archived")] == [session_id]
    found = archives.show(session_id, last=5)
    assert found["session"] == before["show"] and found["results"] == results
    assert found["entries"] == 31 and found["history"] == before["history"][-5:]
    assert json.dumps({**found, "archive": None})
    assert archives.verify(session_id).ok
    assert not list((store.folder / "archives").rglob(".tmp-*"))
    with pytest.raises(ArchiveNotFound):
        archives.show(other)
    with archives.open(session_id) as session:
        assert session.findings() == before["findings"]


@pytest.mark.parametrize("kind", KINDS)
def test_another_session_is_not_touched(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    session_id, other = rich_session(store, "same"), rich_session(store, "same")
    before = shown(store, other)
    archives_of(store).create(session_id)
    assert shown(store, other) | {"found": before["found"]} == before
    archives_of(store).restore(session_id)
    assert shown(store, other) == before
    archives_of(store).create(session_id)
    archives_of(store).delete(session_id)
    assert shown(store, other) | {"found": before["found"]} == before
    invariants.check(store.driver.engine)


def test_what_is_archived_cannot_be_changed(new_store: NewStore) -> None:
    store = new_store()
    session_id = rich_session(store)
    session = store.driver.sessions.get(session_id)
    session.archive()
    content = lasting(store)
    for change in (
        lambda: session.add(user_request="more"),
        lambda: session.change(title="other"),
        lambda: session.archive(),
        lambda: session.history.clear(),
        lambda: store.driver.engine.state.set(f"session:{session_id}", "key", 1),
    ):
        with pytest.raises(SessionError, match="archive"):
            change()
    assert lasting(store) == content


@pytest.mark.parametrize("status", ["paused", "failed", "cancelled", "empty"])
def test_a_session_that_is_not_completed_goes_and_comes_back(new_store: NewStore, status: str) -> None:
    store = new_store()
    driver = store.driver

    @driver.agent("fail")
    def fail(request: Any, ctx: Any) -> Any:
        raise ValueError("no")

    request = {"size": 10, "text": "a"}
    steps = [Step("a", "make", request=request), Step("b", "fail" if status == "failed" else "make", request=request)]
    session = driver.start(*steps) if status != "empty" else driver.sessions.create("q")
    driver.run(session, most=1 if status in ("paused", "cancelled") else 9)
    if status != "failed":
        session.pause() if status in ("paused", "empty") else session.cancel()
    before, content = shown(store, session.id), lasting(store)
    archives_of(store).create(session.id)
    invariants.check(driver.engine)
    assert archives_of(store).restore(session.id).status == ("paused" if status == "empty" else status)
    assert shown(store, session.id) == before and lasting(store) == content
    invariants.check(driver.engine)
    if status == "paused":
        session.resume()
        assert driver.run_to_end(session) == "completed"


def test_an_active_one_and_one_with_a_running_step_are_refused(new_store: NewStore) -> None:
    store = new_store()
    driver = store.driver
    session = driver.start(Step("a", "make", request={"size": 1, "text": "a"}))
    with pytest.raises(SessionError, match="cannot archive"):
        archives_of(store).create(session.id)
    driver.engine.claim(session.id)
    session.pause()
    with pytest.raises(SessionError, match="'a' is still running"):
        archives_of(store).create(session.id)
    with pytest.raises(SessionNotFound):
        archives_of(store).create("0190aaaa-bbbb")
    assert not list((store.folder / "archives").rglob("*.archive"))


def test_what_changes_meanwhile_is_not_lost(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store()
    session_id = rich_session(store)
    session = store.driver.sessions.get(session_id)
    changes = [
        lambda: session.add(user_request="late"),
        lambda: store.driver.engine.state.set(f"session:{session_id}", "late", 1),
        lambda: session.change(title="late"),
    ]
    real = making._written

    def written(*args: Any) -> Any:
        made = real(*args)
        if changes:
            changes.pop()()
        return made

    monkeypatch.setattr(making, "_written", written)
    with pytest.raises(ArchiveError, match="again and again"):
        archives_of(store).create(session_id)
    assert session.status == "completed" and not list((store.folder / "archives").rglob("*.archive"))
    archives_of(store).create(session_id)
    archives_of(store).restore(session_id)
    assert session.history(last=1)[0]["user_request"] == "late" and session.to_dict()["title"] == "late"
    assert store.driver.engine.state.get(f"session:{session_id}", "late") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_and_state_elsewhere_go_and_come_back(new_store: NewStore, kind: str, tmp_path: Path) -> None:
    store = new_store(kind, history_url=f"file://{tmp_path}/said", state_url=f"file://{tmp_path}/state")
    session_id = rich_session(store)
    state, place = store.driver.engine.state, store.driver.engine.conversations
    state.set("global", "k", 1)
    before = shown(store, session_id)
    archives_of(store).create(session_id)
    assert place.count(session_id) == 0 and state.list_keys(f"session:{session_id}") == []
    found = archives_of(store).show(session_id, last=None)
    assert found["history"] == before["history"]
    archives_of(store).restore(session_id)
    assert shown(store, session_id) == before and state.get("global", "k") == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["out of the database", "into it"])
def test_a_history_that_lives_elsewhere_since_is_not_lost(
    new_store: NewStore, kind: str, way: str, tmp_path: Path
) -> None:
    places = ["", f"file://{tmp_path}/said"] if way == "out of the database" else [f"file://{tmp_path}/said", ""]
    store = new_store(kind, history_url=places[0])
    session_id = rich_session(store)
    heard = store.driver.sessions.get(session_id).history()
    archives_of(store).create(session_id)
    later = Driver(store.url, store.folder, inline_result_bytes=INLINE, history_url=places[1])
    try:
        archives = Archives(later.engine, later.engine.caller, later.sessions)
        if way == "into it":
            assert archives.restore(session_id).history() == heard
            later.sessions.get(session_id).history.add("user", "on")
            invariants.check(later.engine)
            return
        assert archives.show(session_id, last=None)["history"] == heard
        with pytest.raises(ArchiveError, match="its history was elsewhere than in file:"):
            archives.restore(session_id)
        assert later.engine.conversations.count(session_id) == 0
    finally:
        later.close()
    assert archives_of(store).restore(session_id).history() == heard


@pytest.mark.parametrize("way", [("", "elsewhere"), ("elsewhere", "")])
def test_state_that_lives_elsewhere_since_is_not_lost(
    new_store: NewStore, way: tuple[str, str], tmp_path: Path
) -> None:
    places = [f"file://{tmp_path}/state" if one else "" for one in way]
    store = new_store(state_url=places[0])
    session_id = rich_session(store)
    archives_of(store).create(session_id)
    later = Driver(store.url, store.folder, inline_result_bytes=INLINE, state_url=places[1])
    try:
        with pytest.raises(ArchiveError, match="its keyed state was .* restore it with state_url"):
            Archives(later.engine, later.engine.caller, later.sessions).restore(session_id)
    finally:
        later.close()
    archives_of(store).restore(session_id)
    assert store.driver.engine.state.get(f"session:{session_id}", "key") == {"own": "who"}


def test_what_a_killed_process_left_outside_goes_with_the_next(new_store: NewStore, monkeypatch: Any) -> None:
    store = new_store()
    session_id = rich_session(store)
    before = shown(store, session_id)
    monkeypatch.setattr(making, "settle", lambda *_: None)
    archives_of(store).create(session_id)
    assert [path for path in (store.folder / "blobs").rglob("*") if path.is_file()]
    folder = next((store.folder / "archives").rglob("*.archive")).parent
    (folder / f"{session_id[:-4]}0000-12345678.archive").write_bytes(b"left")
    (folder / ".tmp-1").write_bytes(b"left")
    found = archives_of(store).tidy(older_than=0)
    assert (found.settled, found.files) == (1, 2)
    assert not [path for path in (store.folder / "blobs").rglob("*") if path.is_file()]
    archives_of(store).restore(session_id)
    assert shown(store, session_id) == before


@pytest.mark.parametrize("kind", KINDS)
def test_deleting_a_session_deletes_its_archive(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    first, second = rich_session(store), rich_session(store, "other")
    for session_id, delete in ((first, archives_of(store).delete), (second, store.driver.sessions.delete)):
        archives_of(store).create(session_id)
        delete(session_id)
        with pytest.raises(SessionNotFound):
            archives_of(store).get(session_id)
    assert not list((store.folder / "archives").rglob("*.archive"))
    with store.driver.engine.database.engine.connect() as connection:
        for name in ("archives", "sessions", "events", "blobs"):
            assert connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() == 0


def test_a_sealed_archive_shows_nothing_and_needs_its_key(new_store: NewStore, keys_file: str) -> None:
    store = new_store(keys_file=keys_file)
    session_id = rich_session(store, "a very secret question")
    archives_of(store).create(session_id)
    (path,) = (store.folder / "archives").rglob("*.archive")
    assert b"secret" not in path.read_bytes()
    without = new_store()
    with pytest.raises(KeyMissing):
        archives_of(without).restore(session_id)
    with pytest.raises(KeyMissing):
        archives_of(without).show(session_id)
    archives_of(store).restore(session_id)


def test_an_archive_of_another_session_in_its_place_is_refused(new_store: NewStore) -> None:
    store = new_store()
    first, second = rich_session(store), rich_session(store, "other")
    files = []
    for session_id in (first, second):
        archives_of(store).create(session_id)
        one = archives_of(store).get(session_id)
        files.append(making.folder(store.driver.engine).path(one.file))
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ArchiveDamaged, match="not the one that was written"):
        archives_of(store).restore(first)
    assert not archives_of(store).verify(first).ok
    files[0].unlink()
    assert not archives_of(store).verify(first).ok
    archives_of(store).restore(second)


@pytest.mark.parametrize("kind", KINDS)
def test_backups_have_archives_and_bring_them_back(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    session_id, other = rich_session(store), rich_session(store, "other")
    before = shown(store, session_id)
    archives = archives_of(store)
    archives.create(session_id)
    archives.create(other)
    made = store.backups.create()
    again = store.backups.create()
    assert again.written < 2000
    assert store.backups.restore(made.id, dry_run=True).archives == 2
    archives.restore(session_id)
    store.driver.sessions.delete(session_id)
    archives.delete(other)
    assert store.backups.restore(made.id, sessions=[session_id], safety=False).archives == 1
    archives.restore(session_id)
    assert shown(store, session_id) | {"found": 0} == before | {"found": 0}
    assert store.backups.restore(made.id, safety=False).archives == 2
    assert archives.verify(session_id).ok and archives.verify(other).ok
    archives.restore(session_id)
    assert shown(store, session_id) | {"found": 0} == before | {"found": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_retention_lets_old_archives_go_with_their_files(new_store: NewStore, kind: str) -> None:
    store = new_store(kind, retention_archived_days=30.0)
    ids = [rich_session(store, query) for query in ("old", "new")]
    archives = archives_of(store)
    old, new = (archives.create(one) for one in ids)
    store.driver.engine.database.write(
        lambda tx: tx.run(text("UPDATE sessions SET updated_at = updated_at - 86400 * 31 WHERE id = :i"), i=old.id)
    )
    retention = Retention(store.driver.engine, store.driver.engine.caller)
    planned = retention.plan().kinds["sessions: archived"]
    assert planned.count == 1 and planned.bytes >= old.bytes
    gone = retention.run().kinds["sessions: archived"]
    assert (gone.count, gone.bytes) == (planned.count, planned.bytes)
    files = {path.name for path in Path(store.driver.settings.data_dir, "archives").rglob("*.archive")}
    assert files == {new.file} and archives.verify(new.id).ok
    with pytest.raises(SessionNotFound):
        archives.get(old.id)
