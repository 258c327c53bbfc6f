"""No changed byte of a backup goes unseen, and nothing of a damaged backup is restored."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from celeriac.errors import BackupDamaged, BackupError, CeleriacError, KeyMissing
from celeriac.storage.keys import keyfile

from .conftest import Store

NewStore = Callable[..., Store]
SEED = int(os.environ.get("CELERIAC_TEST_SEED") or 7)


def files_of(folder: Path) -> list[Path]:
    """All files of a folder of backups but the locks."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")


def corrupt(new_store: NewStore, count: int, **settings: str) -> None:
    """Change one random byte of a backup after the other, `count` times; see that it is detected, and not restored."""
    chance = random.Random(SEED)
    a = new_store(**settings)
    a.work("one", 10, 5000, 300)
    a.driver.engine.state.set("global", "k", {"a": 1})
    made = a.backups.create()
    a.work("two", 10)
    before = a.content()
    files = files_of(a.backups.folder)
    assert len(files) > 10
    for number in range(count):
        path = files[number % len(files)] if number < len(files) else chance.choice(files)
        sound = path.read_bytes()
        place = chance.randrange(len(sound))
        changed = bytearray(sound)
        changed[place] ^= chance.randrange(1, 256)
        path.write_bytes(bytes(changed))
        what = f"byte {place} of {path.name} (seed {SEED})"
        with contextlib.suppress(KeyMissing):  # where a byte of the key's id was changed
            assert not a.backups.verify(made.id).ok, what
        with pytest.raises(CeleriacError):
            a.backups.restore(made.id, safety=False)
        path.write_bytes(sound)
    assert a.content() == before
    assert a.backups.verify(made.id).ok
    a.backups.restore(made.id, safety=False)


@pytest.mark.parametrize("sealed", [False, True])
def test_every_changed_byte_is_detected_and_nothing_is_restored(
    new_store: NewStore, keys_file: str, sealed: bool
) -> None:
    corrupt(new_store, 30, **({"backup_keys_file": keys_file} if sealed else {}))


@pytest.mark.parametrize("sealed", [False, True])
def test_a_missing_a_cut_and_a_swapped_object_are_detected(new_store: NewStore, keys_file: str, sealed: bool) -> None:
    a = new_store(**({"backup_keys_file": keys_file} if sealed else {}))
    a.work("one", 10, 5000)
    made = a.backups.create()
    first, second = [path for path in files_of(a.backups.folder) if path.parent != a.backups.folder][:2]
    kept = first.read_bytes()
    for change in (
        first.unlink,
        lambda: first.write_bytes(kept[:-1]),
        lambda: first.write_bytes(b""),
        lambda: shutil.copy(second, first),
    ):
        change()
        assert not a.backups.verify(made.id).ok
        with pytest.raises(BackupDamaged):
            a.backups.restore(made.id, safety=False)
        first.write_bytes(kept)
    assert a.backups.verify(made.id).ok


def test_an_object_that_holds_something_else_than_its_name_says_is_found_by_verify(new_store: NewStore) -> None:
    a = new_store()
    a.work("one", 10)
    made, store = a.backups.create(), a.backups._store
    (part,) = [part for part in store.manifest(made.id).parts if part.name == "sessions"]
    data = store.get(part.chunks[0].name, False)
    assert data.count(b"completed") == 2
    store.put(part.chunks[0].name, data.replace(b"completed", b"cancelled"), "zstd")
    assert "another one" in a.backups.verify(made.id).problems[0]


def test_a_manifest_that_was_replaced_breaks_the_chain(new_store: NewStore) -> None:
    a = new_store()
    first = a.backups.create(label="first")
    second = a.backups.create(label="second")
    assert a.backups.verify(second.id).chain == "whole"
    store = a.backups._store
    manifest = store.manifest(first.id)
    store.publish(msgspec.structs.replace(manifest, label="another"))
    assert a.backups.verify(first.id).ok
    assert first.id in a.backups.verify(second.id).problems[0]


def test_a_backup_that_is_not_sealed_is_not_trusted_where_keys_are_set(new_store: NewStore, keys_file: str) -> None:
    made = new_store().backups.create()
    a = new_store(backup_keys_file=keys_file)
    with pytest.raises(BackupError, match="not sealed"):
        a.backups.restore(made.id)
    a.backups.restore(made.id, unsealed=True, safety=False)


def test_a_sealed_backup_shows_nothing_and_opens_with_its_key_only(new_store: NewStore, keys_file: str) -> None:
    a = new_store(backup_keys_file=keys_file)
    a.work("a very secret question", 5000)
    made = a.backups.create(compression="none")
    for path in files_of(a.backups.folder):
        assert b"secret" not in path.read_bytes()
    without = new_store()
    (shown,) = without.backups.list()
    assert shown.id == made.id and "'k'" in (shown.problem or "")
    with pytest.raises(KeyMissing):
        without.backups.restore(made.id)


def test_a_passphrase_opens_backups_though_the_file_of_keys_is_lost(
    new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERIAC_PASSPHRASE", "a long enough passphrase")
    path = tmp_path / "pass.toml"
    derived = keyfile.new_derived("team", "a long enough passphrase")
    keyfile.write(path, keyfile.Keys("", {}).with_key("team", derived))
    a = new_store(backup_keys_file=str(path))
    session = a.work("one", 10)
    made = a.backups.create()
    path.unlink()
    b = new_store("sqlite", "b")
    b.backups.restore(made.id, safety=False)
    assert b.results(session) == a.results(session)
    public = (a.backups.folder / "passphrase.toml").read_text()
    assert "scrypt" in public and "key =" not in public
