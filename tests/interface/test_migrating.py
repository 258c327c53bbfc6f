"""`celeriac state migrate`: plans, dry runs, runs, undoing and accepting them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from celeriac.orchestration.schemas import Schemas, schemas

from .conftest import Cli

SCHEMAS = """
schemas:
  - {name: profile, version: 1.0.0, fields: {nom: string, age: string}}
bindings:
  - {scope: "agent:*", key: "profile*", schema: profile}
"""
NEWER = """
schemas:
  - {name: profile, version: 1.0.0, fields: {nom: string, age: string}}
  - name: profile
    version: 2.0.0
    compatibility: none
    fields: {name: string, age: number}
    migrate: [{rename: {from: nom, to: name}}, {convert: {path: age, to: number}}]
bindings:
  - {scope: "agent:*", key: "profile*", schema: profile}
"""


@pytest.fixture
def filled(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three values of version 1.0.0, and now also version 2.0.0."""
    monkeypatch.setenv("CELERIAC_SCHEMAS", "schemas.yaml")
    for name, value in vars(Schemas()).items():  # this process has one registry for all tests
        monkeypatch.setattr(schemas, name, value)
    (folder / "schemas.yaml").write_text(SCHEMAS)
    for n, age in enumerate(("3", "4", "old")):
        assert cli("state", "set", "agent:a", f"profile{n}", json.dumps({"nom": f"n{n}", "age": age})).exit_code == 0
    (folder / "schemas.yaml").write_text(NEWER)
    return folder


def said(result: Any) -> Any:
    assert "Traceback" not in result.output
    return json.loads(result.stdout)


def test_the_way_is_shown(filled: Path, cli: Cli) -> None:
    result = cli("state", "migrate", "plan", "profile", "1.0.0", "2.0.0")
    assert (result.exit_code, result.stdout.splitlines()[1].strip()) == (
        0,
        "1.0.0 -> 2.0.0: move nom to name; convert age to number",
    )


def test_a_dry_run_changes_nothing_and_tells_what_would_fail(filled: Path, cli: Cli) -> None:
    result = cli("state", "migrate", "agent:a", "--schema", "profile", "--dry-run")
    assert result.exit_code == 1
    assert "would change" in result.stdout and '{"nom":"n0","age":"3"}' in result.stdout
    assert "agent:a profile2: 1.0.0 -> 2.0.0, convert age to number: age cannot be converted to number" in result.stderr
    assert said(cli("state", "migrate", "runs", "--json")) == []


def test_a_run_is_made_and_undone(filled: Path, cli: Cli) -> None:
    result = cli("state", "migrate", "agent:a", "--schema", "profile", "--to", "2.0.0", "--json")
    report = said(result)
    assert (result.exit_code, report["status"], report["migrated"], report["failed"]) == (1, "done", 2, 1)
    assert said(cli("state", "get", "agent:a", "profile0", "--json"))["value"] == {"name": "n0", "age": 3}
    result = cli("state", "migrate", "undo", report["run"])
    assert (result.exit_code, "put back" in result.stdout) == (0, True)
    (run,) = said(cli("state", "migrate", "runs", "--json"))
    assert (run["status"], run["undone"]) == ("undone", 2)
    assert cli("state", "migrate", "accept", report["run"]).exit_code == 0


def test_one_key_that_is_bound_needs_no_name_of_a_schema(filled: Path, cli: Cli) -> None:
    result = cli("state", "migrate", "agent:a", "profile0")
    assert result.exit_code == 0 and "to undo:" in result.stdout
    result = cli("state", "migrate", "global", "free")
    assert (result.exit_code, result.stderr.strip()) == (
        2,
        "celeriac: say --schema NAME: global free is no key that a schema is bound to; there are: profile",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("agent:a", "--schema", "gone"), "no schema 'gone'; there are: profile"),
        (("agent:a", "--schema", "profile", "--to", "3"), "'3' is no version"),
        (("agents", "--schema", "profile"), "'agents' is no scope"),
        (("undo", "0123456789"), "no run '0123456789'"),
    ],
)
def test_bad_input_is_one_line(filled: Path, cli: Cli, words: Any, told: str) -> None:
    result = cli("state", "migrate", *words)
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_file_of_schemas_that_is_wrong_is_one_line(filled: Path, cli: Cli) -> None:
    (filled / "schemas.yaml").write_text("schemas: [{name: a, version: x, value: number}]")
    result = cli("state", "list", "global")
    assert result.exit_code == 2 and "schemas file schemas.yaml" in result.stderr
    assert len(result.stderr.splitlines()) == 1
