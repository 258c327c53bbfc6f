"""What is restored is what was backed up, whole, in whatever database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData

from celeriac.errors import BackupError, BackupNotFound
from celeriac.orchestration import sweeping
from celeriac.orchestration.backups import creating
from celeriac.orchestration.backups.source import Source
from celeriac.orchestration.plans import Step
from celeriac.orchestration.work import Lost
from celeriac.storage import schema, sqlite, workers
from celeriac.storage.backup import tables
from celeriac.storage.backup.store import BackupStore
from celeriac.storage.backup.transactions import alone
from celeriac.storage.database import Database

from .conftest import Store

NewStore = Callable[..., Store]
#: Differs after a restore on purpose.
CHANGED = ("sessions", "steps", "workers", "cache_cutoffs")


@pytest.mark.parametrize(("first", "second"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_a_backup_is_restored_into_the_other_kind_of_database(new_store: NewStore, first: str, second: str) -> None:
    a = new_store(first, "a")
    session = a.work("grüße \x01 'x'", 10, 5000, 100)
    made = a.backups.create()
    b = new_store(second, "b")
    restored = b.backups.restore(made.id, safety=False)
    assert restored.rows["steps"] == 3 and restored.blobs == 1
    assert {k: v for k, v in b.content().items() if k not in CHANGED} == {
        k: v for k, v in a.content().items() if k not in CHANGED
    }
    assert b.results(session) == a.results(session)
    assert b.driver.sessions.get(session).status == "completed"
    assert [s.id for s in b.driver.sessions.search("grüße")] == [session]
    b.work("more", 3)  # numbers that the database gives go on


def test_a_restore_takes_back_what_came_later_and_makes_a_backup_of_it(new_store: NewStore) -> None:
    a = new_store()
    kept = a.work("kept", 10)
    made = a.backups.create()
    later = a.work("later", 10, 5000)
    safety = a.backups.restore(made.id).safety
    assert [s.id for s in a.driver.sessions.list()] == [kept]
    assert safety is not None
    a.backups.restore(safety, safety=False)
    assert {s.id for s in a.driver.sessions.list()} == {kept, later}
    assert len(a.results(later)["s1"]["text"]) == 5000


def test_sealed_rows_and_blobs_are_copied_as_they_lie(new_store: NewStore, keys_file: str) -> None:
    a = new_store(keys_file=keys_file, encrypt="all", backup_keys_file=keys_file)
    session = a.work("a secret", 10, 5000)
    made = a.backups.create()
    b = new_store("postgresql", "b", keys_file=keys_file, encrypt="all")
    assert b.backups.restore(made.id, safety=False).blobs == 1
    assert b.results(session) == a.results(session)
    (blob,) = b.driver.engine.blobs.hashes()
    assert b.driver.engine.blobs.key_of(blob) == "k"


@pytest.mark.parametrize("shared", [False, True])
def test_a_sqlite_file_is_written_in_place_only_where_nobody_else_has_it_open(
    new_store: NewStore, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = new_store()
    session = a.work("one", 10, 5000)
    made = a.backups.create()
    modes, insert = set(), tables.insert

    def noted(connection: Any, *more: Any) -> None:
        modes.add(connection.execute("PRAGMA journal_mode").fetchone()[0])
        insert(connection, *more)

    monkeypatch.setattr(tables, "insert", noted)
    other = sqlite.library().connect(a.driver.engine.database.path)
    if shared:
        other.execute("SELECT count(*) FROM sessions").fetchall()
    a.backups.restore(made.id, safety=False)
    other.close()
    assert modes == {"wal" if shared else "delete"}
    assert a.results(session) and a.work("two", 3)
    with alone(a.driver.engine.database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_dry_run_counts_and_changes_nothing(new_store: NewStore) -> None:
    a = new_store()
    a.work("one", 10)
    made = a.backups.create()
    a.work("two", 10)
    before = a.content()
    found = a.backups.restore(made.id, dry_run=True)
    assert found.rows["sessions"] == 1 and found.safety is None
    assert a.content() == before
    assert len(a.backups.list()) == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_one_session_is_restored_and_the_others_stay_as_they_are(new_store: NewStore, kind: str) -> None:
    a = new_store(kind)
    one, two = a.work("one", 10, 5000), a.work("two", 20)
    for scope, value in ((f"session:{one}", 1), (f"session:{two}", 1), ("global", 1)):
        a.driver.engine.state.set(scope, "k", value)
    made = a.backups.create()
    a.driver.sessions.delete(one)
    three = a.work("three", 30)
    a.driver.engine.state.set(f"session:{two}", "k", 2)
    a.driver.engine.state.set("global", "k", 2)
    restored = a.backups.restore(made.id, sessions=[one])
    assert restored.rows["sessions"] == 1 and restored.blobs == 1
    assert {s.id for s in a.driver.sessions.list()} == {one, two, three}
    assert len(a.results(one)["s1"]["text"]) == 5000
    assert [
        a.driver.engine.state.get(s, "k", consistent=True) for s in (f"session:{one}", f"session:{two}", "global")
    ] == [1, 2, 2]
    a.backups.restore(made.id, scopes=["global"])
    assert [a.driver.engine.state.get(s, "k", consistent=True) for s in (f"session:{two}", "global")] == [2, 1]
    assert {s.id for s in a.driver.sessions.list()} == {one, two, three}


def test_a_session_that_the_backup_does_not_have_changes_nothing(new_store: NewStore) -> None:
    a = new_store()
    made = a.backups.create()
    later = a.work("later", 10)
    before = a.content()
    with pytest.raises(BackupError, match=later):
        a.backups.restore(made.id, sessions=[later], safety=False)
    assert a.content() == before


def test_a_claim_from_before_a_restore_cannot_write_and_its_step_runs_again(new_store: NewStore) -> None:
    a = new_store()
    session = a.driver.start(Step("s", "make", request={"size": 3, "text": "x"}), query="q")
    work = a.driver.engine.claim(session.id)
    assert work is not None
    made = a.backups.create()
    a.backups.restore(made.id, safety=False)
    with pytest.raises(Lost):
        a.driver.engine.finish(work, a.driver.call(work))
    assert sweeping.sweep(a.driver.engine).returned == 1
    assert a.driver.run_to_end(session) == "completed"


def test_a_fan_out_that_was_cut_by_a_restore_ends(new_store: NewStore) -> None:
    a = new_store()

    @a.driver.agent("list")
    def list_(request: object, ctx: object) -> object:
        return {"items": [1, 2, 3]}

    session = a.driver.start(
        Step("list", "list", request={}),
        Step("each", "make", request={"size": 3, "text": "${item}-"}, each="${list.items}"),
        Step("join", "make", request={"size": 2, "text": "j"}, after=["each"]),
    )
    a.driver.run(session, most=2)
    made = a.backups.create()
    a.driver.run_to_end(session)
    a.backups.restore(made.id, safety=False)
    assert a.driver.sessions.get(session.id).status == "active"
    assert a.driver.run_to_end(a.driver.sessions.get(session.id)) == "completed"
    assert len(a.driver.sessions.get(session.id).output("each")) == 3


def test_a_restore_is_refused_while_a_worker_is_at_work(new_store: NewStore) -> None:
    a = new_store()
    made = a.backups.create()
    a.driver.engine.database.write(lambda tx: workers.seen(tx, "elsewhere:1:ab", "box-7", 2, "celeriac", ["make"]))
    with pytest.raises(BackupError, match="box-7"):
        a.backups.restore(made.id)
    assert len(a.backups.list()) == 1
    a.backups.restore(made.id, force=True)


def test_a_backup_of_an_older_schema_is_migrated(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    a = new_store()
    old = Database(f"sqlite:///{a.folder / 'old.db'}")
    schema.upgrade(old, "0001")
    added = "INSERT INTO sessions (id, query, status, phase, correlation_id, created_at, updated_at)"
    with alone(old, write=True) as connection:
        connection.execute(f"{added} VALUES ('s', 'from long ago', 'completed', 'x', 'c', 1, 1)")
        connection.execute("INSERT INTO session_search VALUES ('s', 'from long ago')")
    reflected = MetaData()
    reflected.reflect(old.engine, only=lambda name, _: name in tables.metadata.tables and name != "workers")
    assert len(reflected.tables) < len(tables.metadata.tables) - 5
    with monkeypatch.context() as patch:  # what a Celeriac of that time did
        patch.setattr(schema, "HEAD", "0001")
        patch.setattr(tables, "metadata", reflected)
        source = Source(old, a.driver.engine.blobs, None)
        made = creating.create(source, BackupStore(a.backups.folder), "zstd", False, "")
    a.backups.restore(made.id, safety=False)
    assert [one.query for one in a.driver.sessions.search("long")] == ["from long ago"]
    a.work("and on", 3)


def test_a_backup_of_a_newer_schema_is_refused(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    a = new_store()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "HEAD", "9999")
        made = a.backups.create()
    before = a.content()
    with pytest.raises(BackupError, match="9999"):
        a.backups.restore(made.id, safety=False)
    assert a.content() == before


def test_an_unknown_backup_is_refused_by_name(new_store: NewStore) -> None:
    with pytest.raises(BackupNotFound, match="nothing"):
        new_store().backups.verify("nothing")
