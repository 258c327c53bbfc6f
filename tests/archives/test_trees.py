"""Sessions of a tree go into archives from below and come back from above, each as it was and into its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import invariants
import pytest
from driver import Driver
from sqlalchemy import text

from celeriac.errors import AccessDenied, ArchiveDamaged, ArchiveError, ArchiveNotFound, SessionError, SessionNotFound
from celeriac.orchestration.archives import making
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.cache import ResultCache
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.guard.grants import Grants, bootstrap
from celeriac.orchestration.keeping.retention import Retention
from celeriac.orchestration.maintenance.keeper import Keeper
from celeriac.orchestration.sessions import Sessions
from celeriac.storage.histories.protocol import HistoryError

from .conftest import INLINE, Store, archives_of, rich_session
from .test_archives import KINDS, lasting, shown

NewStore = Callable[..., Store]
DAY = 86400


def said(session: Any) -> list[Any]:
    """All that was said in a session."""
    return [entry.get("content") or entry.get("user_request") for entry in session.history()]


def state_of(store: Store, session_id: str) -> dict[str, Any]:
    """The keyed state of a session."""
    state, scope = store.driver.engine.state, f"session:{session_id}"
    return {key: state.get(scope, key, consistent=True) for key in state.list_keys(scope)}


def talk(store: Store) -> str:
    """A completed session in which something was said and kept; gives its id."""
    session = store.driver.sessions.create("who", user="ana")
    session.history.extend({"role": "user", "content": f"who {number}"} for number in range(30))
    session.history.add("user", "who long " * INLINE)
    store.driver.engine.state.set(f"session:{session.id}", "key", {"own": "who"})
    session.complete()
    return str(session.id)


def tree_of(store: Store, root_id: str | None = None) -> list[str]:
    """A tree of ended sessions, ids from the root down: `first` has used its state, `second`, below it, and `side` have
    not.
    """
    root = store.driver.sessions.get(root_id or talk(store))
    first = root.branch("first", "a way", "ana")
    first.history.add("user", "in the first " * INLINE)
    store.driver.engine.state.set(f"session:{first.id}", "key", "of the first")
    second = first.branch("second")
    second.history.extend({"role": "user", "content": f"second {number}"} for number in range(3))
    side = root.branch("side", at=10)
    for one in (second, first, side):
        one.complete({"done": one.id})
    return [root.id, first.id, second.id, side.id]


def old(store: Store, ids: list[str], days: float) -> None:
    """Let sessions have ended so many days ago."""
    for table, columns, key in (
        ("sessions", ("completed_at", "updated_at"), "id"),
        ("conversations", ("updated_at",), "session_id"),
    ):
        earlier = ", ".join(f"{column} = {column} - {days * DAY}" for column in columns)
        names = ", ".join(f"'{one}'" for one in ids)
        statement = text(f"UPDATE {table} SET {earlier} WHERE {key} IN ({names})")
        store.driver.engine.database.write(lambda tx, statement=statement: tx.run(statement))


def statuses(store: Store, ids: list[str]) -> list[str]:
    return [store.driver.sessions.get(one).status for one in ids]


def files(store: Store) -> list[Path]:
    return list((store.folder / "archives").rglob("*.archive"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encrypt", ["", "all"])
def test_a_whole_tree_goes_and_comes_back_as_it_was(
    new_store: NewStore, kind: str, encrypt: str, keys_file: str
) -> None:
    store = new_store(kind, **({"keys_file": keys_file, "encrypt": encrypt} if encrypt else {}))
    ids = tree_of(store, rich_session(store))
    root, first, second, side = ids
    before = {one: shown(store, one) for one in (root, first)}  # to look at the state of the others would bring it over
    heard = {one: store.driver.sessions.get(one).history() for one in ids}
    content, tree = lasting(store), store.driver.sessions.tree(side)
    made = archives_of(store).create(root, recursive=True)
    assert made.id == root and statuses(store, ids) == ["archived"] * 4 and len(files(store)) == 4
    for one in ids:
        assert store.driver.sessions.get(one).history() == [] and store.driver.sessions.get(one).history.count() == 0
        assert state_of(store, one) == {} and archives_of(store).verify(one).ok
        found = archives_of(store).show(one, last=None)
        assert found["history"] == heard[one] and found["entries"] == len(heard[one])
    assert not [path for path in (store.folder / "blobs").rglob("*") if path.is_file()]
    assert archives_of(store).restore(root, recursive=True).status == "completed"
    assert statuses(store, ids) == ["completed"] * 4 and files(store) == []
    assert lasting(store) == content and store.driver.sessions.tree(side) == tree
    assert {one: shown(store, one) for one in before} == before
    assert {one: store.driver.sessions.get(one).history() for one in ids} == heard
    assert state_of(store, second)["key"] == "of the first" and state_of(store, side)["key"] == {"own": "who"}
    if not encrypt:
        invariants.check(store.driver.engine)
    with pytest.raises(ArchiveNotFound, match="in no archive: it is completed"):
        archives_of(store).restore(root, recursive=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_branches_goes_after_them_and_comes_back_before_them(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    root, first, second, side = ids = tree_of(store)
    archives = archives_of(store)
    content = lasting(store)
    with pytest.raises(SessionError, match=f"has branches that are not: {first}, {side}; archive them first"):
        archives.create(root)
    with pytest.raises(SessionError, match=f"has branches that are not: {second};"):
        store.driver.sessions.get(first).archive()
    assert lasting(store) == content and files(store) == []
    for one in (second, first, side, root):
        archives.create(one)
    content = lasting(store)
    with pytest.raises(
        ArchiveError, match=f"is a branch of {first}, which is archived; restore {root}, then {first} first, or {root}"
    ):
        archives.restore(second)
    with pytest.raises(ArchiveError, match=f"restore {root} first"):
        archives.restore(side)
    assert lasting(store) == content and len(files(store)) == 4
    for number, one in enumerate((root, first, second, side)):
        archives.restore(one)
        assert statuses(store, ids) == ["completed"] * (number + 1) + ["archived"] * (3 - number)
    assert said(store.driver.sessions.get(second))[-3:] == ["second 0", "second 1", "second 2"]
    invariants.check(store.driver.engine)


def test_while_a_branch_is_archived_what_it_shares_stays_with_what_is_above_it(new_store: NewStore) -> None:
    store = new_store()
    driver = store.driver
    root = driver.sessions.create("q", user="ana")
    root.history.extend({"role": "user", "content": word} for word in ("one", "two", "three"))
    driver.engine.state.set(f"session:{root.id}", "a", 1)
    branch = root.branch("try", at=2)
    branch.history.add("user", "mine")
    branch.complete()
    branch.archive()
    with pytest.raises(HistoryError, match="are shared by branches"):
        root.history.clear()
    with pytest.raises(HistoryError, match="shares entries"):
        root.history.compact(keep_last=0)
    root.prune("lru", keep=0)
    root.history.add("user", "four")
    driver.engine.state.set(f"session:{root.id}", "a", 2)
    for _ in range(driver.settings.checkpoints_kept + 2):
        root.checkpoint()
    driver.engine.in_turn(root.id, lambda turn: None)
    assert [one["content"] for one in archives_of(store).show(branch.id)["history"]] == ["one", "two", "mine"]
    root.cancel()
    for delete in (driver.sessions.delete, archives_of(store).delete):
        with pytest.raises((SessionError, ArchiveNotFound)):
            delete(root.id)
    archives_of(store).restore(branch.id)
    assert said(branch) == ["one", "two", "mine"] and state_of(store, branch.id) == {"a": 1}
    assert said(root) == ["one", "two", "three", "four"]
    invariants.check(driver.engine)


def test_a_tree_in_archives_is_deleted_only_as_a_whole(new_store: NewStore) -> None:
    store = new_store()
    for delete in (store.driver.sessions.delete, archives_of(store).delete):
        root, *others = ids = tree_of(store)
        archives_of(store).create(root, recursive=True)
        with pytest.raises(SessionError, match="has 2 branches"):
            delete(root)
        assert len(files(store)) == 4 and all(archives_of(store).verify(one).ok for one in ids)
        delete(root, recursive=True)
        assert files(store) == []
        for one in ids:
            with pytest.raises(SessionNotFound):
                store.driver.sessions.get(one)
    assert lasting(store)["branches"][0] == 0
    invariants.check(store.driver.engine)


@pytest.mark.parametrize("kind", KINDS)
def test_other_processes_see_a_branch_go_and_come_back(new_store: NewStore, kind: str) -> None:
    store = new_store(kind)
    root, first, second, _ = tree_of(store)
    other = Driver(store.url, store.folder, inline_result_bytes=INLINE)
    try:
        theirs = other.sessions.get(second)
        heard, content = theirs.history(), lasting(store)
        archives_of(store).create(root, recursive=True)
        assert theirs.history() == [] == theirs.history(last=3) and theirs.history.count() == 0
        state, scope = other.engine.state, f"session:{second}"
        assert state.list_keys(scope) == [] and state.get(scope, "key") is None
        with pytest.raises(SessionError, match="is archived"):
            state.set(scope, "key", 1)
        archives_of(store).restore(root, recursive=True)
        assert lasting(store) == content and theirs.history() == heard
        assert state.get(scope, "key") == "of the first"
    finally:
        other.close()


def test_histories_and_state_elsewhere_of_a_tree_go_and_come_back(new_store: NewStore, tmp_path: Path) -> None:
    store = new_store(history_url=f"file://{tmp_path}/said", state_url=f"file://{tmp_path}/state")
    root, *_ = ids = tree_of(store)
    heard = {one: (store.driver.sessions.get(one).history(), state_of(store, one)) for one in ids}
    content = lasting(store)
    archives_of(store).create(root, recursive=True)
    place = store.driver.engine.conversations
    assert [place.count(one) for one in ids] == [0] * 4
    for one in ids:
        assert archives_of(store).show(one, last=None)["history"] == heard[one][0]
    with pytest.raises(ArchiveError, match="first"):
        archives_of(store).restore(ids[2])
    assert [place.count(one) for one in ids] == [0] * 4
    archives_of(store).restore(root, recursive=True)
    assert lasting(store) == content
    assert {one: (store.driver.sessions.get(one).history(), state_of(store, one)) for one in ids} == heard


def test_entries_taken_out_before_the_branch_was_made_are_missed_nowhere(new_store: NewStore) -> None:
    store = new_store(prune_preserve_research=0)
    root = store.driver.sessions.create("q")
    root.history.extend({"role": "user", "content": word} for word in ("one", "two"))
    root.prune("lru", keep=1)
    branch = root.branch("try")
    branch.history.add("user", "mine")
    root.complete(), branch.complete()
    assert said(branch) == ["two", "mine"]
    archives_of(store).create(root.id, recursive=True)
    assert [one["content"] for one in archives_of(store).show(branch.id)["history"]] == ["two", "mine"]
    archives_of(store).restore(root.id, recursive=True)
    assert said(branch) == ["two", "mine"]


def test_a_damaged_archive_of_what_is_above_is_named_and_takes_nothing_else_with_it(new_store: NewStore) -> None:
    store = new_store()
    root, first, second, _ = tree_of(store)
    archives_of(store).create(root, recursive=True)
    path = making.folder(store.driver.engine).path(archives_of(store).get(first).file)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArchiveDamaged, match=first):
        archives_of(store).show(second, last=None)
    assert len(archives_of(store).show(second, last=3)["history"]) == 3  # its own
    with pytest.raises(ArchiveDamaged, match=first):
        archives_of(store).restore(root, recursive=True)
    assert statuses(store, [root, first, second]) == ["completed", "archived", "archived"]


def test_of_two_archives_that_are_open_the_damaged_one_is_named(new_store: NewStore) -> None:
    store = new_store()
    root, first, *_ = tree_of(store)
    archives_of(store).create(root, recursive=True)
    path = making.folder(store.driver.engine).path(archives_of(store).get(first).file)
    with pytest.raises(ArchiveDamaged, match=f"the archive {first}"), archives_of(store).open(first) as session:
        assert len(session.history.range(1, 3)) == 3  # which opens that of the root
        with path.open("r+b") as file:
            file.write(b"x" * path.stat().st_size)
        session.history(last=1)


def test_a_branch_that_is_made_meanwhile_keeps_what_it_shares(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store()
    root = store.driver.sessions.get(talk(store))
    real, made = making._written, []

    def written(*args: Any) -> Any:
        found = real(*args)
        if not made:
            made.append(root.branch("late"))
        return found

    monkeypatch.setattr(making, "_written", written)
    with pytest.raises(SessionError, match="has branches that are not"):
        archives_of(store).create(root.id)
    assert root.status == "completed" and files(store) == [] and len(made[0].history()) == 31
    made[0].complete()
    archives_of(store).create(root.id, recursive=True)
    with pytest.raises(SessionError, match="is archived and cannot be changed"):
        root.branch("too late")


def test_what_is_above_does_not_go_while_a_branch_comes_back(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celeriac.orchestration.archives import restoring

    store = new_store()
    root, first, second, side = tree_of(store)
    archives = archives_of(store)
    for one in (second, first, side):
        archives.create(one)
    real = restoring._put_elsewhere

    def put_elsewhere(*args: Any) -> None:
        real(*args)
        monkeypatch.undo()
        archives.create(root)

    monkeypatch.setattr(restoring, "_put_elsewhere", put_elsewhere)
    with pytest.raises(ArchiveError, match=f"restore {root} first"):
        archives.restore(first)
    assert statuses(store, [root, first]) == ["archived", "archived"]
    archives.restore(root, recursive=True)
    assert len(store.driver.sessions.get(second).history()) == 35


def test_nothing_of_a_tree_goes_while_something_goes_on_in_it(new_store: NewStore) -> None:
    store = new_store()
    root, *_ = ids = tree_of(store)
    third = store.driver.sessions.get(root).branch("third")
    with pytest.raises(SessionError, match=f"cannot archive session {third.id}|{third.id}.*active"):
        store.driver.sessions.get(root).archive(recursive=True)
    assert statuses(store, ids) == ["completed"] * 4 and files(store) == []
    third.cancel()
    store.driver.sessions.get(root).archive(recursive=True)
    assert statuses(store, [*ids, third.id]) == ["archived"] * 5


def test_the_right_to_each_session_is_asked_for_before_any_goes(make_driver: Callable[..., Driver]) -> None:
    engine = make_driver(access="on").engine
    bootstrap(engine.database, "", "root")
    ana, lea = (Sessions(engine, caller=Caller(name)) for name in ("ana", "lea"))
    grants = Grants(engine.access, engine.database, Caller("root"))
    for name in ("ana", "lea"):
        grants.add(name, "write", "sessions")
    root = ana.create("q", user="ana")
    grants.add("lea", "write", f"session:{root.id}")
    branch = lea.get(root.id).branch("hers")
    root.complete()
    branch.complete()
    mine = Archives(engine, Caller("ana"), ana)
    for archive in (lambda: mine.create(root.id, recursive=True), lambda: ana.get(root.id).archive(recursive=True)):
        with pytest.raises((AccessDenied, SessionNotFound)):
            archive()
        assert (root.status, branch.status) == ("completed", "completed")
    hers = Archives(engine, Caller("lea"), lea)
    hers.create(root.id, recursive=True)
    for undo in (mine.restore, mine.delete):
        with pytest.raises((AccessDenied, SessionNotFound)):
            undo(root.id, recursive=True)
        assert (root.status, branch.status) == ("archived", "archived")
    hers.restore(root.id, recursive=True)
    assert (root.status, branch.status) == ("completed", "completed")


@pytest.mark.parametrize("kind", KINDS)
def test_the_job_puts_a_tree_away_once_all_of_it_is_old_enough(new_store: NewStore, kind: str) -> None:
    store = new_store(kind, archive_days=30.0)
    root, first, second, side = ids = tree_of(store)
    cache = ResultCache(store.driver.settings, store.driver.engine.database, store.driver.engine.blobs)

    def ran() -> int:
        ended = Keeper(store.driver.engine, cache).run_now("archive")
        assert ended.outcome == "done", ended.error
        return int(ended.detail["sessions"])

    old(store, [root, first, side], 31)
    assert ran() == 1 and statuses(store, ids) == ["completed", "completed", "completed", "archived"]
    old(store, [second], 31)
    assert ran() == 3 and statuses(store, ids) == ["archived"] * 4
    archives_of(store).restore(root, recursive=True)
    assert len(store.driver.sessions.get(second).history()) == 35


@pytest.mark.parametrize("kind", KINDS)
def test_retention_lets_a_tree_go_from_below_and_plans_what_it_does(new_store: NewStore, kind: str) -> None:
    store = new_store(kind, retention_archived_days=30.0, retention_completed_days=30.0)
    root, first, second, side = ids = tree_of(store)
    archives_of(store).create(second)
    retention = Retention(store.driver.engine, store.driver.engine.caller)

    def ran() -> tuple[int, int]:
        planned, gone = retention.plan(), retention.run()
        found = [
            [(one.kinds[f"sessions: {status}"].count) for status in ("completed", "archived")]
            for one in (planned, gone)
        ]
        assert found[0] == found[1]
        invariants.check(store.driver.engine)
        return found[0][0], found[0][1]

    old(store, [root, first, side], 31)
    assert ran() == (1, 0)  # only `side`: the archived one is not old enough, and needs all above it
    assert statuses(store, [root, first, second]) == ["completed", "completed", "archived"]
    assert len(archives_of(store).show(second, last=None)["history"]) == 35
    old(store, [second], 31)
    assert ran() == (2, 1) and files(store) == []
    for one in ids:
        with pytest.raises(SessionNotFound):
            store.driver.sessions.get(one)


def test_a_tree_shows_what_of_it_is_archived(new_store: NewStore) -> None:
    store = new_store()
    root, first, second, side = tree_of(store)
    sessions = store.driver.sessions
    archives_of(store).create(second)
    found = sessions.tree(root)["children"][0]
    assert (found["name"], found["status"], found["entries"]) == ("first", "completed", 32)
    (child,) = found["children"]
    assert (child["id"], child["name"], child["status"], child["entries"]) == (second, "second", "archived", None)
    assert [one.id for one in sessions.get(second).path()] == [root, first, second]
    assert [one.id for one in sessions.get(first).children()] == [second]
    for use in (lambda: sessions.switch(root, second), lambda: sessions.compare(first, second)):
        with pytest.raises(SessionError, match=f"session {second} is archived; restore it"):
            use()
    with pytest.raises(SessionError, match="is archived"):
        sessions.get(first).merge(second)
    sessions.switch(root, side)
    archives_of(store).create(root, recursive=True)
    assert sessions.tree(second)["status"] == "archived" and sessions.current(root).id == root
    with pytest.raises(SessionError, match="is archived"):
        sessions.switch(root, side)
    archives_of(store).restore(root, recursive=True)
    assert sessions.current(root).id == side


def test_a_merge_conflict_whose_branch_is_away_is_listed_and_can_be_settled(new_store: NewStore) -> None:
    store = new_store()
    driver, state = store.driver, store.driver.engine.state
    root = driver.sessions.create("q")
    keys = ("a", "b", "c")
    state.set_many(f"session:{root.id}", dict.fromkeys(keys, 0))
    branch = root.branch("try")
    state.set_many(f"session:{root.id}", dict.fromkeys(keys, 1))
    state.set_many(f"session:{branch.id}", dict.fromkeys(keys, 2))
    root.merge(branch)
    branch.complete()
    before = root.merge_conflicts()
    assert [(one["theirs"], one["readable"]) for one in before] == [(2, True)] * 3
    branch.archive()
    assert [(one["ours"], one["theirs"], one["readable"]) for one in root.merge_conflicts()] == [(1, None, False)] * 3
    for choice in ("theirs", lambda *_: 5):
        with pytest.raises(SessionError, match=f"are with session {branch.id}, which is archived"):
            root.resolve(1, choice)
    assert (root.resolve(1, "ours"), root.resolve(2, 9)) == (1, 9)
    archives_of(store).restore(branch.id)
    assert root.merge_conflicts() == before[2:] and root.resolve(3, "theirs") == 2


def test_backups_bring_back_trees_that_are_archived(new_store: NewStore) -> None:
    store = new_store()
    root, first, second, _ = tree_of(store)
    heard = store.driver.sessions.get(second).history()
    archives_of(store).create(second)
    made = store.backups.create()
    archives_of(store).create(root, recursive=True)
    store.driver.sessions.delete(root, recursive=True)
    assert store.backups.restore(made.id, safety=False).archives == 1
    assert statuses(store, [root, first, second]) == ["completed", "completed", "archived"]
    archives_of(store).restore(second)
    assert store.driver.sessions.get(second).history() == heard


def test_a_branch_that_a_backup_brought_back_alone_is_kept_until_what_it_shares_is_there(new_store: NewStore) -> None:
    store = new_store()
    root, first, second, _ = tree_of(store)
    heard = store.driver.sessions.get(second).history()
    archives_of(store).create(second)
    made = store.backups.create()
    store.driver.sessions.delete(root, recursive=True)
    store.backups.restore(made.id, sessions=[second], safety=False)
    with pytest.raises(ArchiveError, match=f"is a branch of {first}, which is not there; bring that one back"):
        archives_of(store).restore(second)
    with pytest.raises(HistoryError, match="of which some are gone"):
        archives_of(store).show(second)
    assert len(archives_of(store).show(second, last=3)["history"]) == 3
    store.backups.restore(made.id, sessions=[root, first], safety=False)
    archives_of(store).restore(second)
    assert store.driver.sessions.get(second).history() == heard
