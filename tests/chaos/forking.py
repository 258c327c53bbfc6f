"""T22, as a program of its own: a parent that has used the database forks children, and all of them go on using it.

Arguments: the database's URL, how many rows each child writes. Exits with 0 if every process saw its own rows and no
child had a database file of its parent's open.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from sqlalchemy import text

from celeriac.storage.database import Database, Transaction

CHILDREN = 4
INSERT = text("INSERT INTO nonces (pid, n) VALUES (:pid, :n)")
READ = text("SELECT count(*), min(pid), max(pid) FROM nonces WHERE pid = :pid")


def open_files(path: Path) -> list[str]:
    """Which files of a SQLite database (not the gate beside it) this process has open."""
    names = {str(path) + end for end in ("", "-wal", "-shm")}
    links = []
    for entry in os.scandir("/proc/self/fd"):
        try:
            links.append(os.readlink(entry.path))
        except FileNotFoundError:  # the one that reads the folder
            continue
    return [link for link in links if link in names]


def write_and_read(database: Database, count: int) -> None:
    """Write rows of this process's own, and read back those and no other."""
    pid = os.getpid()
    for n in range(count):
        nonce = pid * 1000 + n

        def work(tx: Transaction, nonce: int = nonce) -> tuple[int, int, int]:
            tx.run(INSERT, pid=pid, n=nonce)
            return tx.row(READ, pid=pid)  # type: ignore[return-value]

        seen = database.write(work)
        assert seen == (n + 1, pid, pid), (seen, n + 1, pid)
    assert database.read(lambda tx: tx.row(READ, pid=pid)) == (count, pid, pid)


def child(database: Database, count: int) -> None:
    try:
        if database.is_sqlite:
            assert not open_files(database.path), f"inherited {open_files(database.path)}"
        write_and_read(database, count)
    except BaseException as fault:
        print(f"child {os.getpid()}: {fault!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main(url: str, count: int) -> int:
    database = Database(url)
    database.write(lambda tx: tx.run(text("CREATE TABLE nonces (pid INTEGER, n BIGINT)")))
    busy = threading.Thread(target=write_and_read, args=(database, count))
    busy.start()  # forks come while a thread of the parent is at work
    children = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if not pid:
            child(database, count)
        children.append(pid)
    busy.join()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    total = database.read(lambda tx: tx.value(text("SELECT count(*) FROM nonces")))
    assert total == (CHILDREN + 1) * count, total
    database.dispose()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
