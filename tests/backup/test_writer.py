"""Restores into SQLite by a process of its own: the same content, all of it or nothing, whatever ends that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import BackupDamaged, StorageError
from celeriac.orchestration.backups import restoring
from celeriac.storage import sqlite
from celeriac.storage.backup import inserting, writer
from celeriac.storage.backup.writer import Writer, apart

from .conftest import INLINE, Store

NewStore = Callable[..., Store]
#: Restoring writes these on its own account.
OWN = ("sessions", "steps", "cache_cutoffs")
ROWS = [["", "a", "{}", 1.0]]


#: Restores where no file may be larger than so many bytes.
FULL = """
import resource, sys
from celeriac.config import Settings
from celeriac.errors import StorageError
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.backups import restoring
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.engine import Engine
from celeriac.storage.backup import writer
url, folder, backup, size, restoring.APART_BYTES = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
settings = {"data_dir": folder, "database_url": url, "backups_dir": folder + "/../backups"}
engine = Engine(Settings.load(settings, environ={}), Registry())
backups = Backups(engine, engine.caller)
backups.list()
if restoring.APART_BYTES:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
else:
    writer._PROGRAM = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); {writer._PROGRAM}"
try:
    backups.restore(backup, safety=False)
    print("restored")
except StorageError as fault:
    print(f"refused: {fault}")
"""


@pytest.fixture(autouse=True)
def _however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "APART_BYTES", 0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Writer]]:
    """The writers that a test starts."""
    made: list[Writer] = []

    class Noted(Writer):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            made.append(self)

    monkeypatch.setattr(writer, "Writer", Noted)
    yield made
    assert all(one._process.poll() is not None for one in made)


def kept(store: Store) -> dict[str, tuple[int, str]]:
    """What a restore leaves as the backup had it."""
    return {name: found for name, found in store.content().items() if name not in OWN}


@pytest.fixture
def with_backup(new_store: NewStore) -> Store:
    """A store that has changed since its only backup."""
    a = new_store()
    a.work("lighthouses", 10, 5000, 300)
    a.backups.create()
    return a


def test_a_restore_by_another_process_gives_what_the_backup_has(with_backup: Store, started: list[Writer]) -> None:
    a = with_backup
    before = kept(a)
    a.work("mills", 10)
    (made,) = a.backups.list()
    restored = a.backups.restore(made.id, safety=False)
    assert len(started) == 1 and restored.rows["sessions"] == 1
    assert kept(a) == before
    assert a.work("after it", 10)


def test_without_apsw_it_takes_the_usual_library(
    with_backup: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "apsw", None)
    connection = inserting.connect(tmp_path / "x.db")
    assert isinstance(connection, sqlite.library().Connection)
    connection.close()


def test_where_no_process_can_be_started_this_one_restores(
    with_backup: Store, started: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = with_backup
    before = kept(a)
    a.work("mills", 10)
    for nothing in ("/bin/false", "/nowhere/python"):
        monkeypatch.setattr(sys, "executable", nothing)
        assert a.backups.restore(a.backups.list()[0].id, safety=False).rows["sessions"] == 1
    assert not started and kept(a) == before


def test_the_process_killed_midway_is_a_clear_error_and_nothing_has_changed(
    with_backup: Store, started: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = with_backup
    a.work("mills", 10)
    before = a.content()
    insert = Writer.insert

    def killed(self: Writer, *arguments: Any) -> None:
        insert(self, *arguments)
        os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(Writer, "insert", killed)
    with pytest.raises(StorageError, match="has ended with -9"):
        a.backups.restore(a.backups.list()[0].id, safety=False)
    assert a.content() == before


def test_a_damaged_chunk_is_refused_and_nothing_has_changed(
    with_backup: Store, started: list[Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = with_backup
    a.work("mills", 10)
    before = a.content()
    insert = Writer.insert
    monkeypatch.setattr(
        Writer, "insert", lambda self, text, width, count, *chunk: insert(self, text, width, count + 1, *chunk)
    )
    with pytest.raises(BackupDamaged, match="rows, its manifest names"):
        a.backups.restore(a.backups.list()[0].id, safety=False)
    assert len(started) == 1 and a.content() == before


def test_what_the_database_refuses_is_said(with_backup: Store, started: list[Writer]) -> None:
    a = with_backup
    before = a.content()
    with pytest.raises(StorageError, match=r"the database refused: .*no such table: nowhere"):  # noqa: SIM117
        with apart(a.driver.engine.database) as connection:
            connection.execute("DELETE FROM sessions")
            assert connection.execute("SELECT count(*) FROM sessions").fetchone() == [0]
            connection.execute("SELECT * FROM nowhere WHERE a = ?", (1,))
    assert len(started) == 1 and a.content() == before


def test_rows_come_whole_whatever_the_size_of_their_chunk(with_backup: Store, started: list[Writer]) -> None:
    a = with_backup
    counts = (1, inserting.ROWS_AT_ONCE - 1, inserting.ROWS_AT_ONCE, 2 * inserting.ROWS_AT_ONCE + 3)
    sizes = (10, inserting.MEMORY // 100, inserting.MEMORY // 20)  # for 24 rows of the last, the memory has no room
    expected = []
    with apart(a.driver.engine.database) as connection:
        for nth, (count, size) in enumerate((count, size) for size in sizes for count in counts):
            rows = [["", f"{nth:03}-{row:03}", f"{nth}" * (size // len(f"{nth}")), 1.0] for row in range(count)]
            connection.executemany("INSERT INTO templates (tenant, name, body, updated_at) VALUES (?, ?, ?, ?)", rows)
            expected += [(row[1], row[2]) for row in rows]
    looking = sqlite.library().connect(a.driver.engine.database.path)
    found = looking.execute("SELECT name, body FROM templates ORDER BY name").fetchall()
    looking.close()
    assert found == expected


def test_no_chunk_is_laid_over_one_that_has_not_been_read(with_backup: Store, started: list[Writer]) -> None:
    a = with_backup
    chunks, rows = 40, 20  # five and a half times what the memory holds, of one size and then of many
    with apart(a.driver.engine.database) as connection:
        for chunk in range(chunks):
            size = inserting.MEMORY // (150 if chunk < chunks // 2 else 90 + 7 * chunk)
            body = f"{chunk:02}" * (size // 2)
            values = [["", f"{chunk:02}-{row:02}", body, 1.0] for row in range(rows)]
            connection.executemany("INSERT INTO templates (tenant, name, body, updated_at) VALUES (?, ?, ?, ?)", values)
    looking = sqlite.library().connect(a.driver.engine.database.path)
    found = looking.execute("SELECT name, body FROM templates").fetchall()
    looking.close()
    assert len(found) == chunks * rows
    assert {name for name, body in found if set(body.split(name[:2])) != {""}} == set()


def test_nothing_is_in_without_the_commit_and_others_can_write_at_once(
    with_backup: Store, started: list[Writer]
) -> None:
    a = with_backup
    before = a.content()
    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with apart(a.driver.engine.database) as connection:
            connection.executemany(
                "INSERT INTO templates (tenant, name, body, updated_at) VALUES (?, ?, ?, ?)", [["", "a", "{}", 1.0]]
            )
            raise KeyboardInterrupt
    assert a.content() == before
    assert a.work("after it", 10)


@pytest.mark.parametrize("apart_bytes", [0, 1 << 60], ids=["apart", "here"])
def test_a_full_disk_is_a_clear_error_and_nothing_has_changed(new_store: NewStore, apart_bytes: int) -> None:
    a = new_store()
    a.work("lighthouses", *[INLINE - 100] * 200)
    made = a.backups.create()
    with apart(a.driver.engine.database) as connection:
        for table in ("results", "step_inputs", "checkpoints", "events"):
            connection.execute(f"DELETE FROM {table}")
    a.driver.engine.database.dispose()
    shrunk = sqlite.library().connect(a.driver.engine.database.path)
    shrunk.execute("VACUUM")
    shrunk.close()
    before = a.content()
    a.driver.engine.database.dispose()
    size = a.driver.engine.database.path.stat().st_size + 100_000
    done = subprocess.run(
        [sys.executable, "-c", FULL, a.url, str(a.folder), made.id, str(size), str(apart_bytes)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("refused: the database refused: "), done
    assert "full" in done.stdout or "disk I/O error" in done.stdout
    assert a.content() == before
    a.backups.restore(made.id, safety=False)
    assert a.content() != before


def test_it_ends_when_nobody_asks_any_more(with_backup: Store, started: list[Writer]) -> None:
    made = Writer(with_backup.driver.engine.database.path)
    made.execute("DELETE FROM sessions")
    made._asking.close()  # as if this process had been killed
    assert made._process.wait(10) == 0
    made._answers.close()
    started.append(made)
    assert with_backup.work("after it", 10)
