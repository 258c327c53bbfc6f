"""A new key takes over while work goes on; an interrupted rotation is run again; after it the old key is not needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celeriac import Celeriac
from celeriac.errors import KeyMissing
from celeriac.interface.main import celeriac
from celeriac.orchestration.guard import Policy
from celeriac.storage import schema, serial
from celeriac.storage.blobs import BlobStore
from celeriac.storage.database import Database, Query
from celeriac.storage.keys import keyfile, keymarks, restating, rewrapping
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing, key_of
from celeriac.storage.states.memory import MemoryBackend
from celeriac.storage.states.opening import open_backend
from celeriac.storage.states.protocol import Write
from celeriac.storage.states.tables import state_values
from celeriac.storage.tables import events

OLD = Keys("old", {"old": new_key()})
BOTH = OLD.with_key("new", new_key())
NEW = KeyRing(Keys("new", {"new": BOTH.secrets["new"]}))
COUNT = 2 * rewrapping.BATCH + 7


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    schema.ensure(made)
    yield made
    made.dispose()


def fill(database: Database) -> None:
    """Sealed state under the old key, and events that hold sealed fields among others."""
    old = KeyRing(OLD)
    guard = Policy.load({"fields": [{"path": "pin", "action": "encrypt"}]}, old)
    states = [
        {"scope": "global", "key": f"k{n}", "version": n + 1, "packed": old.seal(b"%d" % n, place=f"global k{n}"),
         "size": 1, "updated_at": 0.0}
        for n in range(COUNT)
    ]  # fmt: skip
    rows = [
        {"session_id": "s", "seq": n, "at": 0.0, "type": "x", "component": "y", "correlation_id": "c",
         "data": json.dumps(guard.apply({"pin": n, "a": [{"pin": n}, "{}"]}, "session:s"), separators=(",", ":"))}
        for n in range(20)
    ]  # fmt: skip
    with database.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(state_values.insert(), states)
        connection.execute(events.insert(), rows)
        connection.exec_driver_sql("COMMIT")


def stored(database: Database) -> dict[str, bytes]:
    query = Query(state_values.select().order_by(state_values.c.key))
    return {row[1]: bytes(row[4]) for row in database.read(lambda tx: tx.rows(query))}


def test_everything_comes_under_the_active_key_and_opens_without_the_old_one(database: Database) -> None:
    fill(database)
    assert rewrapping.counted(database).found == {"old": COUNT + 40}
    tally = rewrapping.rewrap(database, KeyRing(BOTH))
    assert (tally.rewrapped, tally.refused) == (COUNT + 20, [])
    assert rewrapping.counted(database).found == {"new": COUNT + 40}
    assert all(NEW.open(body, place=f"global {key}").decode() == key[1:] for key, body in stored(database).items())
    guard = Policy.load({"fields": [{"path": "pin", "action": "encrypt"}]}, NEW)
    for row in database.read(lambda tx: tx.rows(Query(events.select()))):
        value = guard.reveal(json.loads(row[6]), "session:s")
        assert value == {"pin": row[1], "a": [{"pin": row[1]}, "{}"]}
    assert rewrapping.rewrap(database, KeyRing(BOTH)).rewrapped == 0


def test_an_interrupted_rotation_goes_on_where_it_was(database: Database) -> None:
    fill(database)

    def interrupt(tally: rewrapping.Tally) -> None:
        if tally.rewrapped >= rewrapping.BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrapping.rewrap(database, KeyRing(BOTH), interrupt)
    assert set(map(key_of, stored(database).values())) == {"old", "new"}
    assert rewrapping.rewrap(database, KeyRing(BOTH)).rewrapped == COUNT + 20 - rewrapping.BATCH
    assert set(map(key_of, stored(database).values())) == {"new"}


def test_a_value_that_is_written_meanwhile_is_not_overwritten(database: Database) -> None:
    fill(database)
    newer = NEW.seal(b"newer", place="global k100")
    write = state_values.update().where(state_values.c.key == "k100").values(packed=newer)
    change = rewrapping._Change.write

    def late(self: Any, tx: Any, rows: Any) -> int:
        if not done:
            done.append(tx.run(write))
        return change(self, tx, rows)

    done: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrapping._Change, "write", late)
        rewrapping.rewrap(database, KeyRing(BOTH))
    assert stored(database)["k100"] == newer


def test_what_cannot_be_opened_is_named_and_left_as_it_is(database: Database) -> None:
    fill(database)
    before = stored(database)
    tally = rewrapping.rewrap(database, NEW)
    assert tally.rewrapped == 0 and len(tally.refused) == COUNT + 20
    assert (
        "state_values.packed ('global', 'k0')" in tally.refused[0]
        and "'old', which is not in the key ring" in tally.refused[0]
    )
    assert stored(database) == before
    with database.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(state_values.update().where(state_values.c.key == "k1").values(packed=b"CLS1\x01\x03old??"))
        connection.exec_driver_sql("COMMIT")
    tally = rewrapping.rewrap(database, KeyRing(BOTH))
    assert len(tally.refused) == 1 and tally.found[rewrapping.DAMAGED] == 1


@pytest.mark.parametrize("url", ["memory:", "file:///{folder}/state", "rocksdb:///{folder}/state", ""])
def test_state_comes_under_the_active_key_wherever_it_lies(url: str, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    schema.ensure(database)
    backend = open_backend(url.replace("{folder}", str(tmp_path)), database, BlobStore(tmp_path / "blobs"), 500)
    old, guard = KeyRing(OLD), Policy.load({"fields": [{"path": "pin", "action": "encrypt"}]}, KeyRing(OLD))
    for n in range(5):
        body = old.seal(b"x" * (300 * n), place=f"p{n}")
        backend.put(f"custom:{n % 2}", [Write(f"k{n}", body, '{"class":"sensitive","sealed":true}')])
    plain = serial.encode(guard.apply({"pin": 7}, "here"))
    backend.put("custom:0", [Write("plain", b'{"a":1}'), Write("fields", plain)])
    tally = restating.rewrap_all(database, backend, KeyRing(BOTH))
    assert tally.rewrapped >= 6 and tally.refused == []
    for n in range(5):
        entry = backend.get(f"custom:{n % 2}", [f"k{n}"])[f"k{n}"]
        assert NEW.open(entry.body, place=f"p{n}") == b"x" * (300 * n) and "sealed" in entry.meta
    fields = backend.get("custom:0", ["fields", "plain"])
    assert Policy.load("", NEW).reveal(serial.decode(fields["fields"].body), "here") == {"pin": 7}
    assert fields["plain"].body == b'{"a":1}'
    assert restating.rewrap_state(backend, KeyRing(BOTH)).rewrapped == 0
    backend.close()
    database.dispose()


def test_a_value_of_a_backend_that_is_written_meanwhile_is_not_overwritten() -> None:
    backend = MemoryBackend()
    backend.put("global", [Write("k", KeyRing(OLD).seal(b"old", place="p"))])
    put = backend.put

    def late(scope: str, writes: Any, origin: Any = None) -> Any:
        put(scope, [Write("k", b"newer")])
        return put(scope, writes, origin)

    backend.put = late  # type: ignore[method-assign]
    assert restating.rewrap_state(backend, KeyRing(BOTH)).rewrapped == 0
    assert backend.get("global", ["k"])["k"].body == b"newer"


def test_another_key_under_a_known_id_is_noticed_before_anything_is_sealed(database: Database) -> None:
    keymarks.confirm(database, KeyRing(OLD))
    keymarks.confirm(database, KeyRing(OLD))
    keymarks.confirm(database, KeyRing(BOTH))
    other = KeyRing(Keys("old", {"old": new_key()}))
    with pytest.raises(KeyMissing, match="'old' .* is not the key 'old' that this database was used with"):
        keymarks.confirm(database, other)
    keymarks.confirm(database, KeyRing(OLD))


def test_a_wrong_key_or_passphrase_stops_the_program_before_it_writes(tmp_path: Path) -> None:
    keyfile.write(tmp_path / "keys.toml", OLD)
    settings = {"data_dir": str(tmp_path), "keys_file": str(tmp_path / "keys.toml"), "embed": False}
    c = Celeriac(**settings)
    c.state.set("global", "k", {"a": 1}, state_class="sensitive")
    c.close()
    keyfile.write(tmp_path / "keys.toml", Keys("old", {"old": new_key()}))
    with pytest.raises(KeyMissing, match="put that one back"):
        Celeriac(**settings).state.set("global", "k", {"a": 2}, state_class="sensitive")
    keyfile.write(tmp_path / "keys.toml", OLD)
    again = Celeriac(**settings)
    assert again.state.get("global", "k") == {"a": 1}
    again.close()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELERIAC_KEYS_FILE", "keys.toml")
    return tmp_path


def cli(*words: str) -> Result:
    return CliRunner().invoke(celeriac, [*words], prog_name="celeriac")


def test_keys_are_generated_listed_and_rotated_by_command(folder: Path) -> None:
    assert cli("keys", "generate", "--id", "old").exit_code == 0
    file = folder / "keys.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    made = Database(f"sqlite:///{folder}/.celeriac/celeriac.db")
    cli("db", "upgrade")
    ring = KeyRing.load(type("S", (), {"keys_file": str(file)})(), {})
    assert ring is not None
    row = {
        "scope": "global",
        "key": "k",
        "version": 1,
        "packed": ring.seal(b"1", place="state global\0k"),
        "meta": '{"class":"sensitive","sealed":true}',
        "size": 1,
        "updated_at": 0.0,
    }
    with made.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.execute(state_values.insert(), [row])
        connection.exec_driver_sql("COMMIT")
    assert json.loads(cli("keys", "generate", "--id", "new", "--json").stdout)["keys"] == ["old", "new"]
    listed = json.loads(cli("keys", "list", "--json").stdout)
    assert [(one["id"], one["active"], one["sealed"]) for one in listed] == [("old", False, 1), ("new", True, 0)]
    done = cli("keys", "rotate", "--json")
    assert json.loads(done.stdout) == {
        "active": "new",
        "rewrapped": 1,
        "sealed": 0,
        "archives": 0,
        "refused": 0,
        "others": {},
        "backups": {},
    }
    assert "new  active" in " ".join(cli("keys", "list").stdout.split("\n")) and done.exit_code == 0
    for words in (("keys", "generate", "--id", "new"), ("keys", "generate", "--id", "a b")):
        refused = cli(*words)
        assert refused.exit_code == 2 and len(refused.stderr.splitlines()) == 1
    key = base64.b64encode(b"1" * 32).decode()
    assert key not in cli("keys", "list").output


def test_without_keys_each_command_says_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELERIAC_KEYS_FILE")
    for name in ("generate", "list", "rotate"):
        refused = cli("keys", name)
        assert refused.exit_code == 2 and "keys_file" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_a_key_from_a_passphrase_seals_only_with_that_passphrase(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERIAC_PASSPHRASE", "too short")
    refused = cli("keys", "generate", "--passphrase")
    assert refused.exit_code == 2 and "too short" in refused.stderr and not (folder / "keys.toml").exists()
    monkeypatch.setenv("CELERIAC_PASSPHRASE", "correct horse battery staple")
    assert cli("keys", "generate", "--passphrase", "--id", "team").exit_code == 0
    assert "correct" not in (folder / "keys.toml").read_text()
    assert json.loads(cli("keys", "list", "--json").stdout)[0]["id"] == "team"
    monkeypatch.setenv("CELERIAC_PASSPHRASE", "wrong horse battery staple")
    refused = cli("keys", "list")
    assert refused.exit_code == 2 and "is not the key 'team' that this database was used with" in refused.stderr
