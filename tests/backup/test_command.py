"""`celeriac backup` and `celeriac move`, as a person or a program uses them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from interface.conftest import FAN_OUT, cli, folder, plan
from servers import PostgresServer

from celeriac.config import Settings

__all__ = ["cli", "folder"]
Cli = Callable[..., object]


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database."""
    name = f"move_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


def told(result: object, code: int = 0) -> dict[str, object]:
    """The JSON that a command printed."""
    assert result.exit_code == code, result.output  # type: ignore[attr-defined]
    return json.loads(result.stdout)  # type: ignore[attr-defined, no-any-return]


def test_a_backup_is_made_listed_verified_restored_and_deleted(cli: Cli, folder: Path) -> None:
    assert cli("run", plan(folder, FAN_OUT)).exit_code == 0
    made = told(cli("backup", "create", "--label", "first", "--json"))
    assert made["label"] == "first" and made["kind"] == "full"
    (listed,) = told(cli("backup", "list", "--json"))
    assert listed == made
    assert "first" in cli("backup", "list").stdout
    assert told(cli("backup", "verify", "latest", "--json"))["ok"] is True
    assert cli("run", plan(folder, FAN_OUT)).exit_code == 0
    dry = told(cli("backup", "restore", str(made["id"]), "--dry-run", "--json"))
    assert dry["rows"]["sessions"] == 1
    restored = told(cli("backup", "restore", str(made["id"])[:23], "--json"))
    assert restored["rows"] == dry["rows"]
    assert len(told(cli("sessions", "list", "--json"))) == 1
    assert cli("backup", "restore", str(restored["safety"]), "--no-safety").exit_code == 0
    assert len(told(cli("sessions", "list", "--json"))) == 2
    assert cli("backup", "export", "latest", "one.tar").exit_code == 0
    assert cli("backup", "delete", "latest").exit_code == 0
    assert cli("backup", "import", "one.tar").stdout.strip() == restored["safety"]
    assert cli("backup", "keep", "latest").exit_code == 0
    assert told(cli("backup", "prune", "--dry-run", "--json"))["kept"][restored["safety"]] == "marked"


def test_bad_input_is_one_line(cli: Cli, folder: Path) -> None:
    for words in (
        ("verify", "nothing"),
        ("restore", "nothing"),
        ("delete", "latest"),
        ("create", "--compression", "rar"),
        ("create", "--label", "x" * 501),
        ("export", "latest", "x"),
        ("import", "not-there"),
    ):
        result = cli("backup", *words)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
    (folder / "x.tar").write_bytes(b"no tar")
    result = cli("backup", "import", "x.tar")
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backup", "restore", "latest", "--dry-run", "--session", "nobody"), "has not all of the sessions nobody"),
        (("backup", "restore", "latest", "--dry-run", "--scope", "thing:x"), "'thing:x' is no scope"),
        (("move", "--to", ""), "is no database to move to; allowed: a URL that starts with sqlite://"),
        (("move", "--to", "mysql://me:secret@there/db"), "'mysql://me:***@there/db' is no database to move to"),
        (("move", "--to", "sqlite:///:memory:"), "a file for SQLite"),
    ],
)
def test_what_is_not_there_to_be_restored_or_moved_to_is_named(
    cli: Cli, folder: Path, words: tuple[str, ...], said: str
) -> None:
    assert cli("backup", "create").exit_code == 0
    result = cli(*words)
    assert result.exit_code == 2 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_list_shows_all_columns_whatever_the_labels(cli: Cli, folder: Path) -> None:
    assert cli("backup", "create", "--label", "words " * 12).exit_code == 0
    shown = cli("backup", "list").stdout
    assert shown.splitlines()[0].split() == ["backup", "kind", "rows", "of", "written", "notes", "label"]
    assert shown.count("words") == 12


def test_a_damaged_backup_is_exit_code_1_and_is_not_restored(cli: Cli, folder: Path) -> None:
    assert cli("run", plan(folder, FAN_OUT)).exit_code == 0
    cli("backup", "create")
    data_dir = Settings.load({}, environ={}).data_dir
    path = sorted((data_dir / "backups").glob("objects/*/*"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = cli("backup", "verify", "latest")
    assert result.exit_code == 1 and path.name in result.stderr
    result = cli("backup", "restore", "latest", "--no-safety")
    assert result.exit_code == 2 and path.name in result.stderr


def test_everything_moves_to_postgresql_and_back(
    cli: Cli, folder: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("run", plan(folder, FAN_OUT)).exit_code == 0
    cli("state", "set", "global", "k", '{"v": 1}')
    before = told(cli("sessions", "list", "--json"))
    moved = told(cli("move", "--to", postgres_url, "--json"))
    assert moved["rows"]["steps"] > 6
    moved = cli("move", "--to", f"sqlite:///{folder / 'other.db'}")
    assert "to work there, set database_url = sqlite:///" in moved.stdout
    again = cli("move", "--to", postgres_url)
    assert again.exit_code == 2 and "not empty" in again.stderr
    monkeypatch.setenv("CELERIAC_DATABASE_URL", postgres_url)
    assert told(cli("sessions", "list", "--json")) == before
    assert cli("run", plan(folder, FAN_OUT)).exit_code == 0
    back = f"sqlite:///{folder / 'back.db'}"
    assert cli("move", "--to", back).exit_code == 0
    monkeypatch.setenv("CELERIAC_DATABASE_URL", back)
    assert len(told(cli("sessions", "list", "--json"))) == 2
    assert '"v": 1' in cli("state", "get", "global", "k").stdout


def test_a_damaged_manifest_is_listed_as_unreadable_and_can_be_deleted(cli: Cli, folder: Path) -> None:
    made = told(cli("backup", "create", "--json"))
    (manifest,) = (Settings.load({}, environ={}).data_dir / "backups").glob("*.backup")
    manifest.write_text("no manifest")
    shown = cli("backup", "list")
    assert "unreadable" in shown.stdout and "sealed" not in shown.stdout and "is damaged" in shown.stderr
    assert cli("backup", "verify", "latest").exit_code == 1 and cli("backup", "restore", "latest").exit_code == 2
    assert cli("backup", "delete", str(made["id"])).exit_code == 0
    assert told(cli("backup", "list", "--json")) == []
