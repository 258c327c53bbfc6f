"""Backup and restore beside the databases' own tools: the same rows, in the same run, all synced to the disk."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from servers import PostgresServer, ServerMissing, _program

#: Bytes of a row's text; words as agents write them, which zstd makes about four times smaller.
ROW_BYTES = 8000
EVENTS = 10  # small rows for each large one


def measure(base: Path, megabytes: int, postgresql: bool) -> None:
    """Fill a store, back it up and restore it with each tool, print seconds and ratios."""
    print(
        f"backup and restore of {megabytes} MB of rows (seconds; ratio: Celeriac / the database's own tool; CPU without"
        " that of a server)"
    )
    _sqlite(base / "backup-sqlite", megabytes)
    if postgresql:
        try:
            server = PostgresServer()
        except ServerMissing as missing:
            print(f"PostgreSQL left out: {missing}")
            return
        server.start()
        try:
            _postgresql(server, base / "backup-postgresql", megabytes)
        finally:
            server.close()
    print(f"target: ratio <= 1.5; memory of this process at most: {_most_megabytes('self')} MB\n")


def _sqlite(folder: Path, megabytes: int) -> None:
    celeriac = _filled(folder, "", megabytes)
    file, copy, packed = folder / "celeriac.db", folder / "copy.db", folder / "copy.db.zst"
    mine = _timed(celeriac.backups.create)

    def theirs() -> None:
        subprocess.run(["sqlite3", str(file), f".backup {copy}"], check=True)
        subprocess.run(["zstd", "-q", "-3", str(copy), "-o", str(packed)], check=True)
        _sync(packed)

    _tell("SQLite: create, beside .backup + zstd", mine, _timed(theirs))
    made = celeriac.backups.list()[-1]
    _again("SQLite", celeriac, made)
    empty = _opened(folder / "restored", "", celeriac.backups.folder)
    inserting: list[int] = []
    with _looked_at(inserting):
        mine = _timed(lambda: empty.backups.restore(made.id, safety=False))

    def back() -> None:
        copied, restored = folder / "back.db", folder / "theirs.db"
        subprocess.run(["zstd", "-q", "-d", str(packed), "-o", str(copied)], check=True)
        subprocess.run(["sqlite3", str(restored), f".restore {copied}"], check=True)
        _sync(restored)

    _tell("SQLite: restore, beside zstd + .restore", mine, _timed(back))
    print("".join(f"  SQLite: memory of the process that inserts, at most: {most} MB\n" for most in inserting), end="")
    empty.close()
    celeriac.close()


def _postgresql(server: PostgresServer, folder: Path, megabytes: int) -> None:
    url, target = server.create_database("bench_backup"), server.create_database("bench_restored")
    theirs_target = server.create_database("bench_theirs")
    celeriac = _filled(folder, url, megabytes)
    dump = folder / "dump"
    mine = _timed(celeriac.backups.create)

    def theirs() -> None:
        subprocess.run([_program("pg_dump"), "-Fc", "-f", str(dump), "-d", _plain(url)], check=True)
        _sync(dump)

    _tell("PostgreSQL: create, beside pg_dump -Fc", mine, _timed(theirs))
    made = celeriac.backups.list()[-1]
    _again("PostgreSQL", celeriac, made)
    empty = _opened(folder / "restored", target, celeriac.backups.folder)
    mine = _timed(lambda: empty.backups.restore(made.id, safety=False))
    command = [_program("pg_restore"), "-d", _plain(theirs_target), "--single-transaction", str(dump)]
    other = _timed(lambda: subprocess.run(command, check=True))
    _tell("PostgreSQL: restore, beside pg_restore", mine, other)
    empty.close()
    celeriac.close()


@contextlib.contextmanager
def _looked_at(most: list[int]) -> Iterator[None]:
    """Note what each process that inserts took, in MB, when it has done all but the COMMIT."""
    from celeriac.storage.backup.writer import Writer

    commit = Writer.commit

    def noted(writer: Writer) -> None:
        most.append(_most_megabytes(writer.pid))
        commit(writer)

    Writer.commit = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Writer.commit = commit  # type: ignore[method-assign]


def _most_megabytes(process: int | str) -> int:
    """What a process has taken at most. Not by getrusage: a child's begins with what its parent took at its start."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0]) // 1024


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg:", "postgresql:")


def _opened(folder: Path, url: str, backups: Path | None = None) -> Any:
    from celeriac import Celeriac

    return Celeriac(data_dir=str(folder), database_url=url, embed=False, backups_dir=str(backups or folder / "backups"))


def _filled(folder: Path, url: str, megabytes: int) -> Any:
    """A store with that many megabytes in results, and events beside them."""
    from celeriac.storage.backup import tables
    from celeriac.storage.backup.transactions import alone
    from celeriac.storage.tables import events, results

    celeriac = _opened(folder, url)
    database = celeriac.engine.database
    count = megabytes * 1_000_000 // (ROW_BYTES + EVENTS * 100)
    names = ("session_id", "number", "epoch", "body", "size")
    columns = ("session_id", "seq", "at", "type", "component", "data", "correlation_id")
    with alone(database, write=True) as connection:
        tables.insert(connection, database.dialect, results.name, names, _results(count))
        tables.insert(connection, database.dialect, events.name, columns, _events(count * EVENTS))
    return celeriac


def _results(count: int) -> Iterator[tuple[Any, ...]]:
    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 12))) for _ in range(5000)]
    for number in range(count):
        text = " ".join(dice.choices(words, k=ROW_BYTES // 8))[:ROW_BYTES]
        yield f"{number // 100:036}", number % 100, 1, f'"{text}"', len(text) + 2


def _events(count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        session = f"{number // 1000:036}"
        yield session, number % 1000 + 1, 1.8e9 + number, "step.done", "engine", f'{{"step": "s{number}"}}', session


def _again(name: str, celeriac: Any, made: Any) -> None:
    seconds = _timed(celeriac.backups.create)[0]
    print(f"  {name}: create again, nothing changed: {seconds:.2f}; {made.written / 1e6:.0f} MB written the first time")


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that it takes, and of CPU, that of processes which it starts included."""
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - began, sum(os.times()[:4]) - cpu


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _tell(what: str, mine: tuple[float, float], theirs: tuple[float, float]) -> None:
    print(
        f"  {what}: {mine[0]:.2f} / {theirs[0]:.2f}, ratio {mine[0] / theirs[0]:.2f};"
        f" CPU {mine[1]:.2f} / {theirs[1]:.2f}, ratio {mine[1] / theirs[1]:.2f}"
    )
