"""Sealed bytes open where they belong, under the key that they were sealed with, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.errors import CeleriacError, KeyMissing, SealBroken, SettingsError
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, Raw, new_key
from celeriac.storage.keys.sealing import KeyRing, key_of

RING = KeyRing(Keys("k1", {"k1": Raw(b"1" * 32)}, b"h" * 32))
KEY = base64.b64encode(b"1" * 32).decode()


def loaded(path: Path, **environ: str) -> KeyRing:
    ring = KeyRing.load(SimpleNamespace(keys_file=str(path)), environ)
    assert ring is not None
    return ring


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@given(st.binary(max_size=2000), st.text(), st.text(), st.integers(0, 2**62))
def test_what_is_sealed_opens_where_it_belongs(data: bytes, place: str, tenant: str, version: int) -> None:
    sealed = RING.seal(data, place=place, version=version, tenant=tenant)
    assert RING.open(sealed, place=place, version=version, tenant=tenant) == data
    assert len(data) < 8 or data not in sealed


@given(st.tuples(st.text(), st.text(), st.integers(0, 9)), st.tuples(st.text(), st.text(), st.integers(0, 9)))
def test_a_sealed_object_that_was_moved_is_refused(a: tuple[str, str, int], b: tuple[str, str, int]) -> None:
    sealed = RING.seal(b"secret", place=a[0], tenant=a[1], version=a[2])
    if a == b:
        assert RING.open(sealed, place=b[0], tenant=b[1], version=b[2]) == b"secret"
        return
    with pytest.raises(SealBroken, match="does not open"):
        RING.open(sealed, place=b[0], tenant=b[1], version=b[2])


def test_tenant_and_place_cannot_be_shifted_into_each_other() -> None:
    sealed = RING.seal(b"secret", tenant="ab", place="c")
    for tenant, place in (("a", "bc"), ("", "abc"), ("abc", "")):
        with pytest.raises(SealBroken):
            RING.open(sealed, tenant=tenant, place=place)


def test_two_swapped_objects_are_refused_whole_and_in_parts() -> None:
    first, second = RING.seal(b"first!", place="a"), RING.seal(b"second", place="b")
    for place, sealed in (("a", second), ("b", first)):
        with pytest.raises(SealBroken):
            RING.open(sealed, place=place)
    # The wrapped data key of one, the body of the other: everything that can be combined.
    for cut in range(len(first)):
        with pytest.raises(CeleriacError):
            RING.open(first[:cut] + second[cut:], place="a")


@given(st.binary(max_size=40), st.data())
@settings(max_examples=30)
def test_every_flipped_bit_is_refused(data: bytes, draw: st.DataObject) -> None:
    sealed = RING.seal(data, place="p")
    bit = draw.draw(st.integers(0, 7))
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 1 << bit
        with pytest.raises((SealBroken, KeyMissing)):
            RING.open(bytes(flipped), place="p")


@given(st.binary(max_size=100))
@settings(max_examples=20)
def test_every_cut_and_every_addition_is_refused(data: bytes) -> None:
    sealed = RING.seal(data, place="p")
    for other in (*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", sealed + sealed):
        with pytest.raises(SealBroken):
            RING.open(other, place="p")


def test_no_nonce_and_no_data_key_comes_twice() -> None:
    header = len(RING._key("k1").header)
    sealed = [RING.seal(b"the same", place="p") for _ in range(5000)]
    assert len({one[header : header + 12] for one in sealed}) == 5000  # nonce of the wrapping
    assert len({one[header + 12 : header + 60] for one in sealed}) == 5000  # data key, wrapped
    assert len({one[header + 60 : header + 72] for one in sealed}) == 5000  # nonce of the data
    assert len({one[header + 72 :] for one in sealed}) == 5000


def test_a_rewrapped_object_opens_under_the_new_key_only() -> None:
    old, new = new_key(), new_key()
    before = KeyRing(Keys("old", {"old": old}))
    both = KeyRing(Keys("new", {"old": old, "new": new}))
    after = KeyRing(Keys("new", {"new": new}))
    sealed = before.seal(b"data", place="p", version=3, tenant="t")
    again = both.rewrap(sealed)
    assert again is not None and (key_of(sealed), key_of(again)) == ("old", "new")
    assert after.open(again, place="p", version=3, tenant="t") == b"data"
    assert both.rewrap(again) is None
    with pytest.raises(KeyMissing, match="'p' was sealed with the key 'old', which is not in the key ring"):
        after.open(sealed, place="p", version=3, tenant="t")
    with pytest.raises(SealBroken):
        after.open(again, place="elsewhere", version=3, tenant="t")


def test_another_key_under_the_same_id_is_a_clear_error_not_a_broken_seal() -> None:
    sealed = RING.seal(b"data", place="p")
    other = KeyRing(Keys("k1", {"k1": new_key()}))
    with pytest.raises(KeyMissing, match="is not the key 'k1' that 'p' was sealed with"):
        other.open(sealed, place="p")


def test_keyed_hashes_are_equal_for_equal_texts_and_survive_a_new_key() -> None:
    keys = Keys("k1", {"k1": new_key()}).with_key("k2", new_key())
    later = KeyRing(keys.with_key("k3", new_key()))
    assert KeyRing(keys).digest("ana") == later.digest("ana") != later.digest("Ana")
    assert KeyRing(Keys("k1", {"k1": new_key()}, b"x" * 32)).digest("ana") != later.digest("ana")
    with pytest.raises(KeyMissing, match="no key to hash with"):
        KeyRing(Keys("k1", {"k1": new_key()})).digest("ana")


# -- where keys come from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["keys.toml", "keys.json"])
def test_a_written_file_is_read_back_and_only_its_owner_can_read_it(tmp_path: Path, name: str) -> None:
    keys = Keys("a", {"a": new_key()}).with_key("b", keyfile.new_derived("b", "a long passphrase"))
    path = tmp_path / "deep" / name
    keyfile.write(path, keys)
    assert path.stat().st_mode & 0o777 == 0o600 and os.listdir(path.parent) == [name]
    ring = loaded(path, CELERIAC_PASSPHRASE="a long passphrase")
    assert (ring.active, ring.ids) == ("b", ("a", "b"))
    assert KeyRing(keys).open(ring.seal(b"data", place="p"), place="p") == b"data"
    assert ring.digest("x") == KeyRing(keys).digest("x")


def test_without_keys_there_is_no_ring() -> None:
    assert KeyRing.load(SimpleNamespace(keys_file=""), {}) is None


def test_the_environment_holds_several_keys_the_first_active_and_wins_over_the_file(tmp_path: Path) -> None:
    other = base64.b64encode(b"2" * 32).decode()
    ring = loaded(tmp_path / "absent", CELERIAC_KEYS=f" k2:{other}, k1:{KEY} ,hash:{other}")
    assert (ring.active, ring.ids) == ("k2", ("k2", "k1"))
    assert ring.open(RING.seal(b"data", place="p"), place="p") == b"data"
    assert ring.digest("x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o660])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "keys.toml", f'active = "a"\n[keys.a]\nkey = "{KEY}"\n')
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"mode {mode:04o}"):
        loaded(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("active = ", "is not TOML"),
        ("", "has no keys"),
        ('active = "b"\n[keys.a]\nkey = "%KEY%"', "active must name one of its keys: a"),
        ('activ = "a"\n[keys.a]\nkey = "%KEY%"', "unknown name 'activ'; allowed: active, keys, hash"),
        ('active = "a"\n[keys.a]\nkey = "c2hvcnQ="', "key 'a' is not the base64 of 32 bytes"),
        ('active = "a"\n[keys.a]\nkey = 7', "key 'a' is not the base64 of 32 bytes"),
        ('active = "a"\n[keys.a]\nkey = "%KEY%"\nscrypt = {}', "either `key` or `scrypt`"),
        ('active = "a b"\n[keys."a b"]\nkey = "%KEY%"', "'a b' is not the id of a key"),
        ('active = "hash"\n[keys.hash]\nkey = "%KEY%"', "'hash' is not the id of a key"),
        ('active = "a"\nhash = "eA=="\n[keys.a]\nkey = "%KEY%"', "hash is not the base64 of 32 bytes"),
        ('active = "a"\n[keys.a]\nscrypt = {n=131072, r=8, p=1}', "must have salt, n, r and p"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="eA==", n=131072, r=8, p=1}', "salt is not the base64 of 16 to 64"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=65536, r=8, p=1}', "allowed: 131072 to 1048576"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=1073741824, r=8, p=1}', "allowed: 131072 to 1048576"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=131073, r=8, p=1}', "a power of two"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=131072, r=1, p=1}', "allowed: 8 to 32"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=131072, r=8, p=99}', "allowed: 1 to 16"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=131072, r=8, p=true}', "allowed: 1 to 16"),
        ('active = "a"\n[keys.a]\nscrypt = {salt="%KEY%", n=1048576, r=32, p=16}', "too much memory or time"),
    ],
)
def test_keys_that_cannot_be_used_are_said_without_showing_one(tmp_path: Path, text: str, said: str) -> None:
    path = private(tmp_path / "keys.toml", text.replace("%KEY%", KEY))
    with pytest.raises(SettingsError) as refusal:
        loaded(path)
    assert said in str(refusal.value) and str(path) in str(refusal.value)
    assert KEY not in str(refusal.value) and refusal.value.__suppress_context__ is (
        refusal.value.__context__ is not None
    )


@pytest.mark.parametrize("text", ["x", f"a:{KEY},a:{KEY}", "a:!!", f"a:{KEY},b", f"hash:{KEY}"])
def test_a_wrong_variable_is_said_without_showing_a_key(text: str) -> None:
    with pytest.raises(SettingsError, match="^CELERIAC_KEYS") as refusal:
        loaded(Path("absent"), CELERIAC_KEYS=text)
    assert KEY not in str(refusal.value)


def test_an_absent_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        loaded(tmp_path / "absent.toml")
    tmp_path.chmod(0o700)
    with pytest.raises(SettingsError, match="is not a file"):
        loaded(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SettingsError, match="is not a file"):
        loaded(tmp_path / "pipe")


def test_a_wrong_or_missing_passphrase_is_said_when_the_key_is_used(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keyfile.write(path, Keys("p", {"p": keyfile.new_derived("p", "correct horse battery")}))
    assert "correct" not in path.read_text() and set(json.loads(path.read_text())["keys"]["p"]) == {"scrypt"}
    sealed = loaded(path, CELERIAC_PASSPHRASE="correct horse battery").seal(b"data", place="p")
    with pytest.raises(KeyMissing, match="is not the key 'p' that"):
        loaded(path, CELERIAC_PASSPHRASE="wrong horse battery").open(sealed, place="p")
    with pytest.raises(KeyMissing, match="put it into CELERIAC_PASSPHRASE"):
        loaded(path).seal(b"data", place="p")
    with pytest.raises(KeyMissing, match="too short"):
        loaded(path, CELERIAC_PASSPHRASE="short").seal(b"data", place="p")


@given(st.text(max_size=200))
def test_no_text_in_the_variable_is_more_than_a_settings_error(text: str) -> None:
    try:
        keys = keyfile.from_text(text, "CELERIAC_KEYS")
    except SettingsError:
        return
    assert keys.active in keys.secrets
