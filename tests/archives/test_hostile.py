"""T29: files made to be written elsewhere, or to fill the disk or the memory, are refused, and leave nothing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from celeriac.errors import BlobDamaged, CeleriacError
from celeriac.orchestration.archives import making
from celeriac.storage import tar
from celeriac.storage.archives.file import ArchiveFile
from celeriac.storage.backup import wrapping
from celeriac.storage.backup.manifest import Chunk, decode, encode, hash_of

from . import hostile
from .conftest import Store, archives_of, rich_session

NewStore = Callable[..., Store]
#: A bomb of 1 GiB may take as much as this.
MOST_MEMORY = 200 << 20


def refuse_archives(store: Store, bombs: bool) -> None:
    """Put hostile files in the place of an archive; see that they are refused, write nothing, and take no memory."""
    session_id = rich_session(store)
    archives, engine = archives_of(store), store.driver.engine
    made = archives.create(session_id)
    path = making.folder(engine).path(made.file)
    sound = path.read_bytes()
    with open(path, "rb") as file:
        first, second, *_ = tar.members(file, lambda _: 1 << 30, 1000)
        manifest = b"".join(tar.pieces(file, first))
    cases = list(hostile.members("manifest", manifest, second.name))
    assert len(cases) > 25
    folder = store.folder.parent
    for what, content in cases:
        path.write_bytes(content)
        before = hostile.walked(folder)
        assert not archives.verify(session_id).ok, what
        for use in (archives.show, archives.restore):
            with pytest.raises(CeleriacError):
                use(session_id)
        assert hostile.walked(folder) == before, what
    path.unlink()
    path.symlink_to(folder / "a.db")
    assert not archives.verify(session_id).ok
    path.unlink()
    if bombs:
        _refuse_bombs(store, session_id, manifest)
    path.write_bytes(sound)
    archives.restore(session_id)


def _refuse_bombs(store: Store, session_id: str, manifest: bytes) -> None:
    """A forged manifest, and a database that was made to know it, with a piece of 1 GiB of zeros."""
    engine = store.driver.engine
    row = engine.database.read(lambda tx: making.rows.get(tx, session_id))
    assert row is not None
    known = decode(wrapping.unwrap(manifest, f"manifest {row.file}", None), row.file)
    place = f"object {'ab' * 32}"
    part = msgspec.structs.replace(known.parts[0], chunks=(Chunk("ab" * 32, 1, hostile.GIB),))
    forged = wrapping.wrap(encode(msgspec.structs.replace(known, parts=(part,))), "zstd", f"manifest {row.file}", None)
    path = making.folder(engine).path(row.file)
    for first, piece in ((forged, hostile.bomb(place)), (hostile.bomb(f"manifest {row.file}"), b"x")):
        with open(path, "wb") as out:
            tar.write(out, "manifest", len(first), [first])
            tar.write(out, "ab" * 32, len(piece), [piece])
            tar.finish(out)
        named = dataclasses.replace(row, digest=hash_of(first))

        def work(named: making.rows.Row = named) -> None:
            with contextlib.suppress(CeleriacError):
                archive = ArchiveFile(path, named, None)
                archive.get("ab" * 32, False)
                raise AssertionError("it was unpacked")

        assert hostile.peak(work) < MOST_MEMORY
    name, stored = hostile.blob_bomb()
    assert hostile.peak(lambda: engine.blobs._check(stored, name)) < MOST_MEMORY
    with pytest.raises(BlobDamaged):
        engine.blobs.put_stored("ab" * 32, stored)


def refuse_backups(store: Store, folder: Path) -> None:
    """Take in hostile files as backups; see that they are refused and write nothing."""
    store.work("one", 10, 5000)
    made = store.backups.create()
    sound = folder / "sound.tar"
    store.backups.export(made.id, sound)
    with open(sound, "rb") as file:
        first, second, *_ = tar.members(file, lambda _: 1 << 30, 10_000)
        manifest = b"".join(tar.pieces(file, first))
    other = first.name.replace(made.id[-6:], "ffffff")
    for what, content in hostile.members(other, manifest, second.name):
        path = folder / "hostile.tar"
        path.write_bytes(content)
        before = hostile.walked(folder)
        with pytest.raises(CeleriacError):
            store.backups.take_in(path)
        assert hostile.walked(folder) == before, what
    store.backups.delete(made.id)
    assert store.backups.take_in(sound).id == made.id


def test_hostile_files_in_the_place_of_an_archive_are_refused(new_store: NewStore) -> None:
    refuse_archives(new_store(), bombs=True)


def test_hostile_files_are_taken_in_as_no_backup(new_store: NewStore, tmp_path: Path) -> None:
    refuse_backups(new_store(), tmp_path)


def test_what_compresses_as_a_bomb_does_is_kept_uncompressed() -> None:
    data = bytes(wrapping.FREE_BYTES + 1)
    stored = wrapping.wrap(data, "zstd", "object x", None)
    assert len(stored) > len(data) and wrapping.unwrap(stored, "object x", None) == data
