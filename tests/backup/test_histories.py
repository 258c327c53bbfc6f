"""Histories that live outside of the database are in backups, and come back to where histories live now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Store
from .test_damage import files_of

NewStore = Callable[..., Store]


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The URL of a place, by its kind: the database, files, Redis."""

    def of(kind: str) -> str:
        if kind == "redis":
            server = request.getfixturevalue("redis_server")
            server.client().flushall()
            return str(server.url)
        return f"file://{tmp_path / 'said'}" if kind == "file" else ""

    return of


def say(store: Store, query: str, *words: str) -> str:
    """A session in which that was said; gives its id."""
    session = store.driver.sessions.create(query, "ana")
    for word in words:
        session.history.add("user", word, metadata={"important": word.isupper()})
    return session.id


def said(store: Store, session_id: str) -> list[Any]:
    return store.driver.sessions.get(session_id).history()


@pytest.mark.parametrize(
    ("before", "after"),
    [("file", "file"), ("redis", "redis"), ("file", ""), ("", "file"), ("redis", "file"), ("file", "redis")],
)
def test_what_was_said_comes_back_to_where_histories_live_now(
    new_store: NewStore, url: Callable[[str], str], before: str, after: str
) -> None:
    a = new_store("sqlite", "a", history_url=url(before))
    one, two = say(a, "one", "hello", "LOUD", "x" * 9000), say(a, "two", *map(str, range(700)))
    expected = [said(a, one), said(a, two)]
    made = a.backups.create()
    a.driver.sessions.get(one).history.add("user", "later")
    if before == after:
        say(a, "three", "is to go")
        b = a
    else:
        b = new_store("sqlite", "b", history_url=url(after))
    restored = b.backups.restore(made.id, safety=False)
    assert restored.entries == (703 if before or after else 0)
    assert [said(b, one), said(b, two)] == expected
    assert sorted(b.driver.engine.conversations.conversations()) == sorted([one, two])
    marked = b.driver.engine.conversations.load(one, mark=1)
    assert [kept.number for kept in marked] == [2]
    b.driver.sessions.get(two).history.add("user", "and on")
    assert b.driver.sessions.get(two).history.count() == 701


def test_one_sessions_history_is_restored_and_the_others_stay(new_store: NewStore, url: Callable[[str], str]) -> None:
    a = new_store(history_url=url("file"))
    one, two = say(a, "one", "hello"), say(a, "two", "hello")
    made = a.backups.create()
    for session_id in (one, two):
        a.driver.sessions.get(session_id).history.add("user", "later")
    assert a.backups.restore(made.id, sessions=[one], dry_run=True).entries == 1
    assert a.backups.restore(made.id, sessions=[one]).entries == 1
    assert (len(said(a, one)), len(said(a, two))) == (1, 2)
    assert a.backups.restore(made.id, scopes=["global"]).entries == 0
    assert (len(said(a, one)), len(said(a, two))) == (1, 2)


def test_a_damaged_history_is_seen_before_anything_is_restored(new_store: NewStore, url: Callable[[str], str]) -> None:
    a = new_store(history_url=url("file"))
    one = say(a, "one", "hello" * 1000)
    before = set(files_of(a.backups.folder)) if a.backups.folder.exists() else set()
    made = a.backups.create()
    (part,) = [p for p in a.backups._store.manifest(made.id).parts if p.name == "histories elsewhere"]
    (path,) = [p for p in set(files_of(a.backups.folder)) - before if p.name == part.chunks[0].name]
    path.write_bytes(path.read_bytes()[:-1])
    a.driver.sessions.get(one).history.add("user", "later")
    with pytest.raises(Exception, match="damaged"):
        a.backups.restore(made.id, safety=False)
    assert len(said(a, one)) == 2


def test_moving_to_another_database_leaves_histories_where_they_live(
    new_store: NewStore, url: Callable[[str], str], tmp_path: Path
) -> None:
    a = new_store(history_url=url("file"))
    one = say(a, "one", "hello")
    moved = a.backups.move(f"sqlite:///{tmp_path / 'other.db'}")
    assert moved.entries == 0 and len(said(a, one)) == 1
    b = Store(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "a", history_url=url("file"))
    assert len(said(b, one)) == 1
    b.driver.close()
