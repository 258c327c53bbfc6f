"""A blob is there whole or not at all, and what is read is what was put."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.errors import BlobDamaged, BlobNotFound, StorageError, TooLarge
from celeriac.storage.blobs import BlobStore

CONTENT = b"some content " * 1000


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


def file_of(root: Path, name: str) -> Path:
    return root / "blobs" / name[:2] / name[2:4] / name


def run_python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=5000))
def test_what_is_put_is_read_back(store: BlobStore, data: bytes) -> None:
    name = store.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert store.get(name) == data
    assert store.size(name) == len(data)


def test_content_larger_than_a_window_is_read_back(store: BlobStore) -> None:
    data = os.urandom(3_000_000) * 6
    name = store.put(data)
    assert store.get(name) == data


def test_a_blob_can_be_listed_and_deleted(store: BlobStore) -> None:
    names = {store.put(text) for text in (b"a", b"b", b"c")}
    assert set(store.hashes()) == names
    gone = names.pop()
    assert store.exists(gone)
    assert store.delete(gone)
    assert not store.delete(gone)
    assert not store.exists(gone)
    assert set(store.hashes()) == names
    for look in (store.get, store.size, store.age):
        with pytest.raises(BlobNotFound, match=gone):
            look(gone)


def test_folders_and_files_are_for_their_owner_only(store: BlobStore, tmp_path: Path) -> None:
    store.put(CONTENT)
    for path in (tmp_path / "blobs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE((tmp_path / "blobs").stat().st_mode) == 0o700


def test_a_sound_blob_is_not_written_again_but_counts_as_new(store: BlobStore, tmp_path: Path) -> None:
    name = store.put(CONTENT)
    path = file_of(tmp_path, name)
    os.utime(path, (1, 1))
    before = path.stat().st_ino
    assert store.age(name) > 1e9
    assert store.put(CONTENT) == name
    assert path.stat().st_ino == before
    assert store.age(name) < 60
    assert files(tmp_path) == [path]


def flip_a_byte(stored: bytes) -> bytes:
    return stored[:-5] + bytes([stored[-5] ^ 1]) + stored[-4:]


def claim_a_terabyte(stored: bytes) -> bytes:
    return stored[:4] + (1 << 40).to_bytes(8, "big") + stored[12:]


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_byte,
        claim_a_terabyte,
        lambda stored: b"",
        lambda stored: stored[:10],
        lambda stored: stored[:-1],
        lambda stored: stored + b"x",
        lambda stored: b"zzzz" + stored[4:],
        lambda stored: stored[:4] + (12_999).to_bytes(8, "big") + stored[12:],
        lambda stored: stored[:4] + (13_001).to_bytes(8, "big") + stored[12:],
    ],
)
def test_a_damaged_blob_is_refused_and_mended_by_the_next_put(
    store: BlobStore, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    name = store.put(CONTENT)
    path = file_of(tmp_path, name)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BlobDamaged, match=name):
        store.get(name)
    assert store.put(CONTENT) == name
    assert store.get(name) == CONTENT


def test_sound_content_under_the_hash_of_another_is_refused(store: BlobStore, tmp_path: Path) -> None:
    one, other = store.put(b"one"), store.put(b"two")
    file_of(tmp_path, one).write_bytes(file_of(tmp_path, other).read_bytes())
    with pytest.raises(BlobDamaged, match="another hash"):
        store.get(one)


def test_a_bomb_is_not_unpacked(store: BlobStore, tmp_path: Path) -> None:
    bomb = store.put(bytes(50_000_000))
    path = file_of(tmp_path, bomb)
    assert path.stat().st_size < 20_000
    with pytest.raises(BlobDamaged, match="the limit is 1,000 bytes"):
        BlobStore(tmp_path / "blobs", max_bytes=1000).get(bomb)
    small = store.put(b"small")
    file_of(tmp_path, small).write_bytes(b"CLB1" + (5).to_bytes(8, "big") + path.read_bytes()[12:])
    with pytest.raises(BlobDamaged, match="not the 5 bytes recorded"):
        store.get(small)


def test_content_over_the_limit_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="blob is 1,001 bytes; the limit is 1,000 bytes"):
        BlobStore(tmp_path, max_bytes=1000).put(bytes(1001))
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["", "..", "../" * 21 + "x", "/etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "é" * 64]
)
def test_a_name_that_is_no_hash_reaches_no_file(store: BlobStore, name: str) -> None:
    for act in (store.get, store.exists, store.delete, store.size, store.age):
        with pytest.raises(StorageError, match="is not the hash of a blob"):
            act(name)


def test_a_link_in_the_place_of_a_blob_is_not_followed_and_is_mended(store: BlobStore, tmp_path: Path) -> None:
    name = store.put(CONTENT)
    path = file_of(tmp_path, name)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BlobDamaged, match="it is a link"):
        store.get(name)
    store.put(CONTENT)
    assert store.get(name) == CONTENT
    assert not path.is_symlink()


def test_a_pipe_or_folder_in_the_place_of_a_blob_is_refused_at_once(store: BlobStore, tmp_path: Path) -> None:
    name = store.put(CONTENT)
    path = file_of(tmp_path, name)
    path.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(path)
        with pytest.raises(BlobDamaged, match="not a regular file"):
            store.get(name)
        if path.is_fifo():
            path.unlink()


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_leaves_nothing_behind(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    store.put(CONTENT)
    before = files(tmp_path)
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match=rf"cannot be written: .*\({errno.errorcode[code]}\)"):
            store.put(b"other content")
    assert files(tmp_path) == before
    assert store.get(store.put(b"other content")) == b"other content"


def test_short_writes_are_carried_on(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    name = store.put(os.urandom(500))
    monkeypatch.undo()
    assert store.size(name) == 500
    assert hashlib.sha256(store.get(name)).hexdigest() == name


def test_an_interrupt_while_writing_leaves_no_temporary_file(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put(CONTENT)
    assert files(tmp_path) == []


def test_a_file_size_limit_of_the_system_is_named(tmp_path: Path) -> None:
    program = """
import os, resource, sys
from pathlib import Path
from celeriac.errors import StorageError
from celeriac.storage.blobs import BlobStore
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    BlobStore(Path(sys.argv[1])).put(os.urandom(300_000))
except StorageError as error:
    print(error)
"""
    said, failure = run_python(program, str(tmp_path)).communicate(timeout=60)
    assert "(EFBIG)" in said, failure
    assert files(tmp_path) == []


KILLED = """
import os, sys, time
from pathlib import Path
from celeriac.storage.blobs import BlobStore
moment = sys.argv[2]
real = getattr(os, moment)
def pause(*arguments):
    if moment == "write":
        real(arguments[0], arguments[1][:20])
    print("now", flush=True)
    time.sleep(60)
setattr(os, moment, pause)
BlobStore(Path(sys.argv[1])).put(b"some content " * 1000)
"""


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_writer_killed_in_the_middle_leaves_only_what_the_sweep_removes(tmp_path: Path, moment: str) -> None:
    root = tmp_path / "blobs"
    store = BlobStore(root)
    name = hashlib.sha256(CONTENT).hexdigest()
    file_of(tmp_path, name).parent.mkdir(parents=True)  # so that the first fsync is that of the file
    writer = run_python(KILLED, str(root), moment)
    assert writer.stdout and writer.stdout.readline() == "now\n", writer.communicate()
    writer.kill()
    assert writer.wait(10) == -signal.SIGKILL
    writer.communicate()

    assert len(files(root)) == 1
    assert list(store.hashes()) == []
    assert not store.exists(name)
    assert store.sweep_temporary(older_than_seconds=3600) == 0
    assert store.put(CONTENT) == name
    assert store.sweep_temporary(older_than_seconds=0) == 1
    assert files(root) == [file_of(tmp_path, name)]
    assert store.get(name) == CONTENT


def test_processes_that_put_the_same_content_at_once_all_succeed(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from celeriac.storage.blobs import BlobStore
store = BlobStore(Path(sys.argv[1]))
time.sleep(max(0, float(sys.argv[2]) - time.time()))
for number in range(40):
    data = b"%d " % number * 3000
    assert store.get(store.put(data)) == data
"""
    start = str(time.time() + 1.0)
    writers = [run_python(program, str(tmp_path), start) for _ in range(4)]
    for writer in writers:
        _, failure = writer.communicate(timeout=120)
        assert writer.returncode == 0, failure
    assert len(files(tmp_path)) == 40
    store = BlobStore(tmp_path)
    assert all(store.get(name) for name in store.hashes())
