"""The command line acts as a principal of a tenant, and every command of it passes the same check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from celeriac.interface import main
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from interface.conftest import FAN_OUT, Cli

#: How each command is used; SESSION is a session's id. What is not here and not FREE fails the test below.
USES = {
    "research": "research q {folder}",
    "run": "run plan.yaml",
    "enqueue": "enqueue plan.yaml",
    "sessions show": "sessions show SESSION",
    "sessions watch": "sessions watch SESSION --json",
    "sessions pause": "sessions pause SESSION",
    "sessions cancel": "sessions cancel SESSION",
    "sessions resume": "sessions resume SESSION",
    "sessions retry": "sessions retry SESSION",
    "sessions delete": "sessions delete SESSION --yes",
    "sessions export": "sessions export SESSION",
    "sessions import": "sessions import plan.yaml",
    "chat": "chat --session SESSION",
    "sessions fork": "sessions fork SESSION",
    "sessions tree": "sessions tree SESSION",
    "sessions branch": "sessions branch SESSION try",
    "sessions switch": "sessions switch SESSION SESSION",
    "sessions merge": "sessions merge SESSION SESSION",
    "sessions conflicts": "sessions conflicts SESSION",
    "sessions resolve": "sessions resolve SESSION 1 ours",
    "sessions attach": "sessions attach SESSION SESSION",
    "sessions detach": "sessions detach SESSION SESSION",
    "sessions attached": "sessions attached SESSION",
    "sessions compare": "sessions compare SESSION SESSION",
    "history show": "history show SESSION",
    "history summarize": "history summarize SESSION",
    "history count": "history count SESSION",
    "history export": "history export SESSION",
    "history import": "history import plan.yaml",
    "history clear": "history clear SESSION --yes",
    "history compact": "history compact SESSION",
    "history uncompact": "history uncompact SESSION",
    "history cold": "history cold SESSION",
    "retention": "retention",
    "prune sessions": "prune sessions --strategy lru --keep 0",
    "prune messages": "prune messages --strategy lru --keep 0",
    "prune stats": "prune stats",
    "history move": "history move SESSION --to file:///nowhere/that/is",
    "templates list": "templates list",
    "templates show": "templates show x",
    "templates save": "templates save x",
    "templates delete": "templates delete x",
    "checkpoints list": "checkpoints list SESSION",
    "checkpoints show": "checkpoints show SESSION:1",
    "checkpoints diff": "checkpoints diff SESSION:1 2",
    "checkpoints restore": "checkpoints restore SESSION:1",
    "checkpoints create": "checkpoints create SESSION",
    "steps list": "steps list SESSION",
    "steps show": "steps show SESSION list",
    "state get": "state get custom:x k",
    "state set": "state set custom:x k 2",
    "state delete": "state delete custom:x k",
    "state list": "state list custom:x",
    "state clear": "state clear custom:x --yes",
    "state migrate run": "state migrate run custom:x --schema profile",
    "cache stats": "cache stats",
    "cache invalidate": "cache invalidate --everything",
    "cache prune": "cache prune --max-entries 0",
    "keys list": "keys list",
    "keys rotate": "keys rotate",
    "backup create": "backup create",
    "backup list": "backup list",
    "backup verify": "backup verify latest",
    "backup restore": "backup restore latest",
    "backup delete": "backup delete latest",
    "backup keep": "backup keep latest",
    "backup prune": "backup prune",
    "backup export": "backup export latest {folder}/x.tar",
    "backup import": "backup import {folder}/plan.yaml",
    "archive create": "archive create SESSION",
    "archive show": "archive show SESSION",
    "archive verify": "archive verify SESSION",
    "archive restore": "archive restore SESSION",
    "archive delete": "archive delete SESSION --yes",
    "archive tidy": "archive tidy",
    "erase receipts": "erase receipts",
    "move": "move --to sqlite:///{folder}/moved.db",
    "maintenance list": "maintenance list",
    "maintenance run": "maintenance run sweep",
    "maintenance history": "maintenance history sweep",
    "maintenance stats": "maintenance stats",
    "grants add": "grants add eve admin *",
    "grants remove": "grants remove root admin *",
}
#: They show nothing to who may see nothing; or find no run of such a scope.
EMPTY = {
    "sessions list": "sessions list --json",
    "sessions search": "sessions search parts --json",
    "history list": "history list --json",
    "archive list": "archive list --json",
    "grants list": "grants list --json",
    "grants refused": "grants refused --json",
    "state migrate runs": "state migrate runs --json",
    "state migrate resume": "state migrate resume 0190a000",
    "state migrate undo": "state migrate undo 0190a000",
    "state migrate accept": "state migrate accept 0190a000",
}
#: For whoever runs the servers: they show and change nothing of any session, state or result.
FREE = {"worker", "doctor", "db", "keys generate", "grants bootstrap", "state migrate plan"}


def leaves(command: click.Command, name: str = "") -> Iterator[str]:
    """The names of all commands that do something."""
    if name in FREE or not isinstance(command, click.Group):
        yield name
        return
    with click.Context(command) as ctx:
        for part in command.list_commands(ctx):
            found = command.get_command(ctx, part)
            assert found is not None
            yield from leaves(found, f"{name} {part}".strip())


def test_no_command_is_without_a_check_in_this_file() -> None:
    assert set(leaves(main.celeriac)) == {*USES, *EMPTY, *FREE}


@pytest.fixture
def session(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A session of ana's, in a folder where access is on and root is admin; gives its id."""
    (folder / "plan.yaml").write_text(yaml.safe_dump(FAN_OUT))
    (folder / "schemas.yaml").write_text(
        yaml.safe_dump({"schemas": [{"name": "profile", "version": "1.0.0", "fields": {"n": {"type": "number"}}}]})
    )
    keyfile.write(folder / "keys.toml", Keys("a", {}).with_key("a", new_key()))
    monkeypatch.setenv("CELERIAC_KEYS_FILE", str(folder / "keys.toml"))
    monkeypatch.setenv("CELERIAC_SCHEMAS", str(folder / "schemas.yaml"))
    assert told(cli, "grants bootstrap root")["added"] is True
    monkeypatch.setenv("CELERIAC_ACCESS", "on")
    told(cli, "--as root grants add ana write sessions")
    found = told(cli, "--as ana run plan.yaml --query parts")
    assert (found["status"], found["user"]) == ("completed", "ana")
    told(cli, "--as root state set custom:x k 1")
    return str(found["id"])


def told(cli: Cli, words: str) -> Any:
    result = cli(*words.split(), "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_without_a_grant_no_command_does_anything(cli: Cli, session: str, folder: Path) -> None:
    before = told(cli, f"--as ana sessions show {session}")
    for name, words in USES.items():
        for principal in ("eve", ""):
            used = words.replace("SESSION", session).replace("{folder}", str(folder)).split()
            result = cli("--as", principal, *used)
            assert result.exit_code == 2 and result.stderr.count("\n") == 1, (name, result.output)
            assert result.stderr.startswith("celeriac: access denied: ") and "Traceback" not in result.output, name
            assert not result.stdout, name
    for name, words in EMPTY.items():
        result = cli("--as", "eve", *words.split())
        assert result.stdout in ("[]\n", "") and session not in result.output, name
    assert told(cli, f"--as ana sessions show {session}") == before
    assert told(cli, "--as root state get custom:x k")["value"] == 1


def test_within_another_tenant_no_command_finds_anything(cli: Cli, session: str, folder: Path) -> None:
    told(cli, "--tenant acme grants bootstrap root")
    for words in (*(words for words in USES.values() if "SESSION" in words), *EMPTY.values()):
        result = cli("--tenant", "acme", "--as", "root", *words.replace("SESSION", session).split())
        assert result.stdout in ("[]\n", "") or "root" in result.stdout, words
        if "SESSION" in words:
            assert (result.exit_code, result.stderr) == (2, f"celeriac: no session {session!r}\n"), words
    assert "has no key" in cli("--tenant", "acme", "--as", "root", "state", "get", "custom:x", "k").stderr
    assert "keys are for all tenants" in cli("--tenant", "acme", "--as", "root", "keys", "rotate").stderr


def test_a_grant_is_given_used_and_taken_back(cli: Cli, session: str) -> None:
    denied = cli("--as", "bob", "sessions", "show", session)
    assert f"'bob' lacks the grant read on session:{session}; who has admin on it" in denied.stderr
    assert told(cli, f"--as ana grants add bob read session:{session}")["added"] is True
    assert told(cli, f"--as bob sessions show {session[:13]}")["id"] == session
    assert [one["id"] for one in told(cli, "--as bob sessions list")] == [session]
    (listed,) = told(cli, "--as bob grants list")
    assert (listed["right"], listed["granted_by"]) == ("read", "ana")
    assert "bob" in cli("--as", "root", "grants", "list").stdout
    assert told(cli, f"--as ana grants remove bob read session:{session}")["removed"] is True
    assert cli("--as", "ana", "grants", "remove", "bob", "read", f"session:{session}").exit_code == 1
    assert cli("--as", "bob", "sessions", "show", session).exit_code == 2
    (refused,) = told(cli, "--as root grants refused")
    assert (refused["principal"], refused["times"], refused["resource"]) == ("bob", 2, f"session:{session}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--as root grants add bob read nonsense", "resource 'nonsense' is not allowed; allowed: session:ID"),
        ("grants bootstrap eve", "there is an admin already: root"),
        (f"--tenant {'x' * 201} sessions list", "setting tenant"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(cli: Cli, session: str, words: str, says: str) -> None:
    result = cli(*words.split())
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1
