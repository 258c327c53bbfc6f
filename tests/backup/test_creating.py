"""Backups are whole by themselves, and cost what has changed."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import BackupDamaged, BackupError, StorageError
from celeriac.orchestration.backups import creating
from celeriac.storage.backup import store
from celeriac.storage.backup.chunking import cut
from celeriac.storage.backup.transactions import alone

from .conftest import Store

NewStore = Callable[..., Store]


def test_an_incremental_backup_writes_what_changed_and_is_whole_by_itself(new_store: NewStore) -> None:
    a = new_store()
    for number in range(30):
        a.work(f"{number}" + os.urandom(200).hex(), 1500, 1500, 9000)
    first = a.backups.create()
    session = a.work("another", 10, 8000)
    second = a.backups.create()
    assert (first.kind, second.kind, second.previous) == ("full", "incremental", first.id)
    blobs = set(a.backups.folder.glob("objects/*/*"))
    assert second.rows > first.rows
    a.backups.delete(first.id)
    assert len(set(a.backups.folder.glob("objects/*/*"))) < len(blobs)
    assert a.backups.verify(second.id).chain == "gone"
    assert a.backups.verify(second.id).ok
    b = new_store("sqlite", "b")
    b.backups.restore(second.id, safety=False)
    assert b.results(session) == a.results(session)


def test_a_backup_of_what_has_not_changed_writes_nothing(new_store: NewStore) -> None:
    a = new_store()
    a.work("one", 10, 5000)
    a.backups.create()
    assert a.backups.create().written == 0
    assert a.backups.create(full=True).written > 0


def test_a_changed_row_changes_one_chunk_and_no_other() -> None:
    rows = [(n, os.urandom(1000)) for n in range(20_000)]
    before = [data for _, data in cut(rows)]
    after = [data for _, data in cut([*rows[:7000], (7000, b"changed"), *rows[7001:]])]
    inserted = [data for _, data in cut([*rows[:7000], (-1, b"new"), *rows[7000:]])]
    assert 8 < len(before) < 40
    for other in (after, inserted):
        assert len(set(other) - set(before)) <= 2


def test_a_snapshot_taken_while_work_goes_on_is_of_one_moment(new_store: NewStore) -> None:
    a = new_store()
    stop = threading.Event()

    def go_on() -> None:
        number = 0
        while not stop.is_set():
            a.work(f"w{number}", 10, 3000)
            number += 1

    worker = threading.Thread(target=go_on)
    worker.start()
    try:
        ids = [a.backups.create().id for _ in range(4)]
    finally:
        stop.set()
        worker.join()
    for number, backup_id in enumerate(ids):
        b = new_store("sqlite", f"b{number}")
        b.backups.restore(backup_id, safety=False)
        database = b.driver.engine.database
        with alone(database) as connection:
            ask = "SELECT s.id, s.event_seq, (SELECT count(*) FROM events e WHERE e.session_id = s.id) FROM sessions s"
            for session_id, events, found in connection.execute(ask).fetchall():
                assert events == found, session_id
        for one in b.driver.sessions.list(["completed"]):
            assert len(b.results(one.id)["s1"]["text"]) == 3000


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_other_compressions_are_read_back(new_store: NewStore, compression: str) -> None:
    a = new_store()
    session = a.work("one", 10, 5000)
    made = a.backups.create(compression=compression)
    a.backups.restore(made.id, safety=False)
    assert len(a.results(session)["s1"]["text"]) == 5000
    with pytest.raises(BackupError, match="zstd, gzip, none"):
        a.backups.create(compression="rar")


@pytest.mark.parametrize("kind", ["file", "rocksdb", "redis"])
def test_keyed_state_that_lives_elsewhere_is_included(
    new_store: NewStore, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = {"file": f"file://{tmp_path / 'state'}", "rocksdb": f"rocksdb://{tmp_path / 'rocks'}"}.get(kind)
    if url is None:
        server = request.getfixturevalue("redis_server")
        server.client().flushall()
        url = str(server.url)
    a = new_store(state_url=url)
    a.driver.engine.state.set("global", "key", {"v": 1})
    made = a.backups.create()
    a.driver.engine.state.set("global", "key", {"v": 2})
    a.driver.engine.state.set("global", "other", 3)
    restored = a.backups.restore(made.id, safety=False)
    assert restored.state == 1
    backend = a.driver.engine.state.places.backend
    (scope,) = backend.scopes()  # type: ignore[attr-defined]
    assert backend.keys(scope) == ["key"]
    assert backend.get(scope, ["key"])["key"].body == b'{"v":1}'
    a.driver.engine.state.close()


def test_a_damaged_backup_keeps_none_from_being_made(new_store: NewStore) -> None:
    a = new_store()
    session = a.work("one", 10, 5000)
    first = a.backups.create()
    (a.backups.folder / f"{first.id}.backup").write_bytes(b"nothing")
    second = a.backups.create()
    assert (second.number, second.previous) == (2, first.id)
    assert [one.problem is None for one in a.backups.list()] == [False, True]
    a.backups.restore(second.id)
    assert len(a.results(session)["s1"]["text"]) == 5000


def test_a_disk_that_is_full_at_any_write_leaves_no_half_backup(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = new_store()
    a.work("one", 10, 5000)
    write = store._write
    broken, made = 0, None
    for nth in range(1, 100):
        writes = itertools.count(1)

        def refuse(path: Path, data: bytes, nth: int = nth, writes: Iterator[int] = writes) -> None:
            if next(writes) == nth:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(store, "_write", refuse)
            try:
                made = a.backups.create(full=True)
                break
            except StorageError as fault:
                assert "No space left" in str(fault)
                broken += 1
        assert a.backups.list() == []
    assert broken > 10 and made is not None
    assert a.backups.verify(made.id).ok


def test_a_blob_that_is_gone_is_named(new_store: NewStore) -> None:
    a = new_store()
    a.work("one", 5000)
    (blob,) = a.driver.engine.blobs.hashes()
    a.driver.engine.blobs.delete(blob)
    with pytest.raises(BackupError, match=blob):
        a.backups.create()
    assert a.backups.list() == []


def test_an_exported_backup_is_taken_in_elsewhere(new_store: NewStore, tmp_path: Path) -> None:
    a = new_store()
    session = a.work("one", 10, 5000)
    made = a.backups.create()
    file = tmp_path / "one.tar"
    assert a.backups.export(made.id, file) == file.stat().st_size
    b = new_store("sqlite", "b")
    b.backups.folder = tmp_path / "others"
    b.backups._store.root = tmp_path / "others"
    b.backups._store._objects = tmp_path / "others" / "objects"
    assert b.backups.take_in(file).id == made.id
    b.backups.restore(made.id, safety=False)
    assert b.results(session) == a.results(session)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    b.backups.delete(made.id)
    with pytest.raises(BackupDamaged):
        b.backups.take_in(file)
    assert b.backups.list() == []


#: Backs up and restores so many megabytes; says what this process and the one that inserts took at most, in MB.
MEMORY = """
import sys, os
from pathlib import Path
from celeriac.config import Settings
from celeriac.orchestration.engine import Engine
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.backups import restoring
from celeriac.orchestration.backups.backups import Backups
from celeriac.storage import schema
from celeriac.storage.backup.transactions import alone
from celeriac.storage.backup.writer import Writer

folder, megabytes, restoring.APART_BYTES = Path(sys.argv[1]), int(sys.argv[2]), 0

def most(pid):  # not getrusage: of a child, that begins with what its parent took when it was made
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

def commit(writer, commit=Writer.commit):
    print(most(writer.pid))
    commit(writer)

Writer.commit = commit
e = Engine(Settings.load({"data_dir": str(folder)}, environ={}), Registry())
schema.ensure(e.database)
with alone(e.database, write=True) as c:
    rows = (("s", n, os.urandom(10_000).hex()) for n in range(megabytes * 50))
    c.executemany("INSERT INTO step_inputs VALUES (?, ?, ?)", rows)
b = Backups(e, e.caller)
made = b.create()
b.restore(made.id, safety=False)
print(most("self"))
"""


def test_the_memory_that_a_backup_takes_does_not_grow_with_the_store(tmp_path: Path) -> None:
    peaks: list[list[int]] = []
    for megabytes in (40, 120):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(megabytes)), str(megabytes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append([int(line) for line in done.stdout.split()])
    (small_inserting, small), (inserting, reading) = peaks
    assert inserting + reading < 250, peaks  # `reading` has made the backup as well
    assert reading < 200 and reading - small < 60, peaks  # of 80 MB more
    assert inserting < 100 and inserting - small_inserting < 20, peaks


def test_a_backup_is_verified_in_a_folder_that_can_only_be_read(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = new_store()
    made = a.backups.create()
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT) and Path(path).parent == a.backups.folder:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    for _ in range(2):
        assert a.backups.verify(made.id).ok
        (a.backups.folder / ".objects").unlink(missing_ok=True)  # there is nobody to make it, either
    with pytest.raises(StorageError, match="EROFS"):
        a.backups.create()


def test_a_backup_that_fails_half_way_through_a_table_leaves_nothing_that_complains_later(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = new_store("sqlite")
    session = a.driver.sessions.create("q")
    session.history.extend({"role": "user", "content": os.urandom(500).hex()} for _ in range(4000))
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: complaints.append(about.exc_value))

    def full(writer: creating.Writer, data: bytes) -> str:
        if len(data) > 100_000:  # more of the table is to come
            raise StorageError("the disk is full")
        return ""

    monkeypatch.setattr(creating.Writer, "rows", full)
    with pytest.raises(StorageError, match="the disk is full"):
        a.backups.create()
    gc.collect()
    assert complaints == []
