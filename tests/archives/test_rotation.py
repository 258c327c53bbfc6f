"""A new key takes over archives, too: after a rotation they are verified, looked into and restored without the old."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celeriac.errors import ArchiveDamaged, KeyMissing
from celeriac.interface.main import celeriac
from celeriac.orchestration import rotating
from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.archives import inside, renewing
from celeriac.orchestration.backups import keyed
from celeriac.orchestration.plans import Step
from celeriac.storage.archives import tables as rows
from celeriac.storage.faults import ARCHIVE_POINTS
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing

from .conftest import INLINE, Store, archives_of, rich_session
from .test_archives import shown

NewStore = Callable[..., Store]
KINDS = ["sqlite", "postgresql"]
OLD = Keys("old", {}).with_key("old", new_key())
BOTH = OLD.with_key("new", new_key())
NEW = Keys("new", {"new": BOTH.secrets["new"]}, OLD.hash)
RULES = {"fields": [{"path": "pin", "action": "encrypt"}]}


class Vault:
    """A store whose keys change; `with_keys` opens it anew with others."""

    def __init__(self, new_store: NewStore, folder: Path, kind: str, **settings: Any) -> None:
        self.keys = folder / "keys.toml"
        self.settings = {"keys_file": str(self.keys), "guard_rules": RULES, **settings}
        self.settings["backups_dir"] = str(folder / "backups")
        keyfile.write(self.keys, OLD)
        self.made: list[Store] = []
        first = {name: value for name, value in self.settings.items() if name != "backups_dir"}
        self.store = new_store(kind, **first)

    def with_keys(self, keys: Keys, **settings: Any) -> Store:
        keyfile.write(self.keys, keys)
        self.made.append(Store(self.store.url, self.store.folder, **{**self.settings, **settings}))
        return self.made[-1]


@pytest.fixture
def vault(new_store: NewStore, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Vault]:
    """Makes vaults."""

    def make(kind: str = "sqlite", **settings: Any) -> Vault:
        made = Vault(new_store, tmp_path, kind, **settings)
        request.addfinalizer(lambda: [one.driver.close() for one in made.made])
        return made

    return make


def session_with_secrets(store: Store, query: str = "who") -> str:
    """A completed session with fields that a rule seals in all that it has; gives its id."""
    driver = store.driver
    if "tell" not in driver.registry.names():

        @driver.agent("tell")
        def tell(request: dict[str, Any], ctx: Any) -> AgentOutput:
            ctx.partial({"pin": request["pin"]})
            ctx.memory["kept"] = {"pin": request["pin"], "pad": "x" * 600}
            ctx.state.set("seen", {"pin": request["pin"]})
            return AgentOutput({"pin": request["pin"], "pad": "y" * request["size"]}, [Finding("it", "is", "red")])

    steps = [
        Step("small", "tell", request={"pin": "1", "size": 1}),
        Step("large", "tell", request={"pin": "2", "size": 3 * INLINE}, after=["small"]),
    ]
    session = driver.start(*steps, query=query, user="ana", title=f"about {query}", notes="n", metadata={"pin": "3"})
    assert driver.run_to_end(session) == "completed"
    state, scope = driver.engine.state, f"session:{session.id}"
    state.set(scope, "own", {"pin": "4"})
    state.set(scope, "secret", {"pin": "5"}, state_class="sensitive")
    state.set(scope, "large", {"pin": "6", "pad": "z" * 3 * INLINE}, state_class="sensitive")
    session.checkpoint("before")
    state.set(scope, "own", {"pin": "7"})
    session.add(user_request={"pin": "8"}, agent="tell", response={"said": "x" * 3 * INLINE, "pin": "9"})
    session.checkpoint("after")
    return str(session.id)


def told(store: Store, session_id: str) -> Any:
    """All that is told of a session, opened."""
    found = shown(store, session_id)
    for one in found["show"]["checkpoints"]:
        del one["base"], one["size"]  # a checkpoint with sealed fields becomes a full one
    kept = [one["agents"] for one in found["checkpoints"]]  # their values of keyed state are bound to other places
    return store.driver.sessions.get(session_id).reveal({**found, "found": [], "checkpoints": kept})


def versions(store: Store) -> list[Any]:
    """The versions of keyed state."""
    with store.driver.engine.database.engine.connect() as connection:
        return sorted(tuple(row) for row in connection.exec_driver_sql("SELECT scope, key, version FROM state_values"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encrypt", ["sensitive", "all"])
def test_after_a_rotation_archives_need_only_the_new_key(vault: Callable[..., Vault], kind: str, encrypt: str) -> None:
    own = vault(kind, encrypt=encrypt)
    session_id = session_with_secrets(own.store)
    before, numbers = told(own.store, session_id), versions(own.store)
    old = archives_of(own.store).create(session_id)
    turned = own.with_keys(BOTH)
    assert rotating.counted(turned.driver.engine).archives == {"old": 1}
    tally = rotating.rotate(turned.driver.engine, KeyRing(BOTH))
    assert (tally.refused, tally.renewed) == ([], 1)
    new = archives_of(turned).get(session_id)
    assert new.file != old.file and new.digest != old.digest and new.sealed
    assert [path.name for path in (own.store.folder / "archives").rglob("*.archive")] == [new.file]
    left = rotating.counted(turned.driver.engine)
    assert left.archives == {"new": 1} and set(left.found) <= {"new"}
    assert rotating.rotate(turned.driver.engine, KeyRing(BOTH)).renewed == 0
    assert archives_of(turned).get(session_id) == new
    after = own.with_keys(NEW)
    archives = archives_of(after)
    assert archives.verify(session_id).ok
    with archives.open(session_id) as session:
        assert session.reveal(session.output("large"))["pin"] == "2"
        assert session.reveal(session.history()) == before["history"]
    archives.restore(session_id)
    assert told(after, session_id) == before
    assert versions(after) == numbers
    session = after.driver.sessions.get(session_id)
    session.restore(session.checkpoints()[-2]["number"])
    assert after.driver.engine.state.get(f"session:{session_id}", "own", consistent=True) == {"pin": "4"}


def test_a_tree_that_is_away_comes_back_with_the_new_key_alone(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all")
    root = own.store.driver.sessions.get(session_with_secrets(own.store))
    branch = root.branch("other")
    branch.add(user_request={"pin": "1"}, agent="tell", response="yes")
    own.store.driver.engine.state.set(f"session:{branch.id}", "own", {"pin": "2"})
    branch.complete()
    before = [told(own.store, one.id) for one in (root, branch)]
    archives_of(own.store).create(root.id, recursive=True)
    turned = own.with_keys(BOTH)
    tally = rotating.rotate(turned.driver.engine, KeyRing(BOTH))
    assert (tally.refused, tally.renewed) == ([], 2)
    after = own.with_keys(NEW)
    archives = archives_of(after)
    with archives.open(branch.id) as session:
        assert session.reveal(session.history()) == before[1]["history"]
    archives.restore(root.id, recursive=True)
    assert [told(after, one) for one in (root.id, branch.id)] == before


def test_what_lies_in_other_places_comes_along(vault: Callable[..., Vault], tmp_path: Path) -> None:
    places = {"history_url": f"file://{tmp_path}/histories", "state_url": f"file://{tmp_path}/state"}
    own = vault(encrypt="sensitive", **places)
    session_id = session_with_secrets(own.store)
    before = told(own.store, session_id)
    archives_of(own.store).create(session_id)
    turned = own.with_keys(BOTH)
    assert rotating.rotate(turned.driver.engine, KeyRing(BOTH)).refused == []
    after = own.with_keys(NEW)
    archives_of(after).restore(session_id)
    assert told(after, session_id) == before


def test_what_is_plain_in_an_archive_is_sealed_where_all_is(vault: Callable[..., Vault]) -> None:
    own = vault(keys_file="", guard_rules="")
    session_id = rich_session(own.store)
    before = told(own.store, session_id)
    assert archives_of(own.store).create(session_id).sealed is False
    keys = {"keys_file": str(own.keys), "encrypt": "sensitive"}
    turned = own.with_keys(OLD, **keys)
    assert rotating.rotate(turned.driver.engine, KeyRing(OLD)).renewed == 1
    assert archives_of(turned).get(session_id).sealed
    assert rotating.rotate(turned.driver.engine, KeyRing(OLD)).renewed == 0
    whole = own.with_keys(OLD, **{**keys, "encrypt": "all"})
    assert rotating.rotate(whole.driver.engine, KeyRing(OLD)).renewed == 1
    assert rotating.rotate(whole.driver.engine, KeyRing(OLD)).renewed == 0
    archives_of(whole).restore(session_id)
    assert rotating.rotate(whole.driver.engine, KeyRing(OLD)).sealed == 0
    assert told(whole, session_id) == before


KILLED = """
import sys
from celeriac.config import Settings
from celeriac.orchestration import rotating
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.engine import Engine

settings = Settings.load({"database_url": sys.argv[1], "data_dir": sys.argv[2], "keys_file": sys.argv[3],
                          "encrypt": "all", "inline_result_bytes": 2000}, environ={})
engine = Engine(settings, Registry())
rotating.rotate(engine, engine.keyring)
"""


def rotate_until(own: Vault, place: str) -> None:
    """A rotation in another process, which dies at a place."""
    words = [sys.executable, "-c", KILLED, own.store.url, str(own.store.folder), str(own.keys)]
    run = subprocess.run(words, timeout=60, env={**os.environ, "CELERIAC_TEST_CRASHPOINT": place}, check=False)
    assert run.returncode == -signal.SIGKILL, f"{place} was not reached"


@pytest.mark.parametrize("kind", KINDS)
def test_wherever_a_rotation_is_killed_the_archive_is_whole_and_it_is_run_again(
    vault: Callable[..., Vault], kind: str
) -> None:
    own = vault(kind, encrypt="all", guard_rules="")
    session_id = session_with_secrets(own.store)
    before = told(own.store, session_id)
    archives_of(own.store).create(session_id)
    turned = own.with_keys(BOTH)
    for place in ARCHIVE_POINTS:
        rotate_until(own, place)
        archives = archives_of(turned)
        assert archives.verify(session_id).ok, place
        assert archives.show(session_id)["session"]["title"] == "about who", place
        with archives.open(session_id) as session:
            assert session.output("small") == before["results"]["small"], place
    assert rotating.rotate(turned.driver.engine, KeyRing(BOTH)).refused == []
    assert rotating.counted(turned.driver.engine).archives == {"new": 1}
    archives_of(turned).tidy(older_than=0)
    assert len([path for path in (own.store.folder / "archives").rglob("*") if path.suffix == ".archive"]) == 1
    after = own.with_keys(NEW)
    archives_of(after).restore(session_id)
    assert told(after, session_id) == before


def test_a_rotation_that_is_interrupted_keeps_the_archive_and_leaves_no_file(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all")
    session_id = session_with_secrets(own.store)
    made = archives_of(own.store).create(session_id)
    turned = own.with_keys(BOTH)
    with pytest.MonkeyPatch.context() as patch:

        def interrupt(*args: Any, **more: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(renewing, "_move", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rotating.rotate(turned.driver.engine, KeyRing(BOTH))
    assert archives_of(turned).get(session_id) == made
    left = {path.name for path in (own.store.folder / "archives").rglob("*") if path.is_file()}
    assert left == {".lock", made.file}
    assert archives_of(turned).verify(session_id).ok


def test_who_looks_into_an_archive_that_is_brought_into_another_file_sees_it(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all")
    session_id = session_with_secrets(own.store)
    archives_of(own.store).create(session_id)
    turned = own.with_keys(BOTH)
    archives, engine = archives_of(turned), turned.driver.engine
    known = engine.database.read(lambda tx: rows.get(tx, session_id))
    assert known is not None
    rotating.rotate(engine, KeyRing(BOTH))
    with inside.look(engine, archives._store, known) as session:
        assert session.status == "completed"
    archives.delete(session_id)
    with pytest.raises(ArchiveDamaged), inside.look(engine, archives._store, known):
        pass


# -- the command -------------------------------------------------------------------------------------------------------


def cli(own: Vault, *words: str) -> Result:
    """Run a command over the store."""
    env = {"CELERIAC_DATABASE_URL": own.store.url, "CELERIAC_DATA_DIR": str(own.store.folder)}
    env |= {"CELERIAC_KEYS_FILE": str(own.keys), "CELERIAC_ENCRYPT": "all"}
    env |= {"CELERIAC_BACKUPS_DIR": own.settings["backups_dir"]}
    return CliRunner().invoke(celeriac, [*words], prog_name="celeriac", env=env)


def test_what_is_damaged_or_has_no_key_is_named_and_the_others_are_brought(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all", guard_rules="")
    damaged, lost, sound = (session_with_secrets(own.store, query) for query in ("x", "y", "z"))
    files = {}
    for session_id in (damaged, sound):
        files[session_id] = archives_of(own.store).create(session_id).file
    middle = own.with_keys(OLD.with_key("gone", new_key()))
    files[lost] = archives_of(middle).create(lost).file
    (path,) = (own.store.folder / "archives").rglob(files[damaged])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    own.with_keys(BOTH)
    done = cli(own, "keys", "rotate")
    assert done.exit_code == 1, done.output
    # The third is the event that tells that it was archived.
    assert "3 could not be opened" in done.stdout and "1 archives written anew" in done.stdout
    assert "no other key" not in done.stdout
    said = done.stderr.splitlines()
    assert len(said) == 3 and "damaged" in "".join(line for line in said if damaged in line)
    assert "'gone', which is not in the key ring" in "".join(line for line in said if lost in line)
    assert path.read_bytes() == bytes(content)
    archives = archives_of(own.made[-1])
    assert (archives.get(damaged).file, archives.get(lost).file) == (files[damaged], files[lost])
    assert archives.get(sound).file != files[sound]
    again = json.loads(cli(own, "keys", "rotate", "--json").stdout)
    assert (again["archives"], again["refused"], again["others"]) == (0, 3, {"(damaged)": 1, "gone": 2})
    listed = {one["id"]: one["archives"] for one in json.loads(cli(own, "keys", "list", "--json").stdout)}
    assert listed == {"old": 0, "new": 1, "(damaged)": 1, "gone": 1}


def test_backups_that_need_the_old_key_are_named(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all", guard_rules="")
    first, second = (session_with_secrets(own.store, query) for query in ("x", "y"))
    archives_of(own.store).create(first)
    old = own.store.backups.create()
    # Sealed under the new key, what is in it under both.
    mixed = own.with_keys(BOTH).backups.create(full=True)
    done = cli(own, "keys", "rotate")
    assert done.exit_code == 0, done.output
    assert "no other key is needed any more but for backups\n" in done.stdout
    assert f"old is needed for these backups, which are not rewritten: {old.id}, {mixed.id}\n" in done.stdout
    new = own.made[-1].backups.create(full=True)
    told = json.loads(cli(own, "keys", "rotate", "--json").stdout)
    assert (told["others"], told["backups"], told["archives"]) == ({}, {"old": [old.id, mixed.id]}, 0)
    listed = {one["id"]: one for one in json.loads(cli(own, "keys", "list", "--json").stdout)}
    assert listed["old"] | {"fingerprint": ""} == {
        "id": "old", "active": False, "in_ring": True, "fingerprint": "", "sealed": 0, "archives": 0,
        "backups": [old.id, mixed.id],
    }  # fmt: skip
    # A full one writes objects anew that others have, too.
    assert (listed["new"]["archives"], listed["new"]["backups"]) == (1, [old.id, mixed.id, new.id])
    after = own.with_keys(NEW)
    assert after.backups.verify(new.id).ok
    with pytest.raises(KeyMissing):
        after.backups.verify(old.id)
    after.backups.restore(new.id, safety=False)
    assert archives_of(after).show(first)["session"]["title"] == "about x"
    assert after.driver.sessions.get(second).to_dict()["title"] == "about y"
    assert "old is needed for these backups" in cli(own, "keys", "list").stdout


def test_a_backup_needs_the_keys_of_the_archives_in_it(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all", guard_rules="")
    session_id = session_with_secrets(own.store)
    turned = own.with_keys(BOTH)
    archives_of(turned).create(session_id)  # sealed under the new key, what is in it under the old one
    assert rotating.counted(turned.driver.engine).archives == {"old": 1, "new": 1}
    assert rotating._bring(turned.driver.engine, KeyRing(BOTH)).refused == []  # it did not come to archives
    made = turned.backups.create(full=True)
    assert keyed.needed(turned.driver.engine) == {"new": [made.id], "old": [made.id]}
    rotating.rotate(turned.driver.engine, KeyRing(BOTH))
    newer = turned.backups.create(full=True)
    assert keyed.needed(turned.driver.engine) == {"new": [made.id, newer.id], "old": [made.id]}


def test_a_backup_needs_the_keys_of_the_rows_in_it(vault: Callable[..., Vault]) -> None:
    own = vault(encrypt="all", guard_rules="")
    own.store.work("small", 10)
    turned = own.with_keys(BOTH)
    made = turned.backups.create()
    assert keyed.needed(turned.driver.engine) == {"new": [made.id], "old": [made.id]}
    turned.backups.delete(made.id)
    assert keyed.needed(turned.driver.engine) == {}
