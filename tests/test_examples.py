"""What stands in examples/ runs as it stands there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from servers import RedisServer

from celeriac.config import Settings

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
#: What people read: the pages of docs/ and the two of the root.
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]


def run(script: str, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
    """Run an example in a process of its own; gives what it printed. Fails with its errors if it fails."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_plan_in_yaml_runs_and_fans_out(tmp_path: Path) -> None:
    printed = run("run_plan.py", CELERIAC_DATA_DIR=str(tmp_path))
    events, result = printed[: printed.index("{")], json.loads(printed[printed.index("{") :])
    assert result == {
        "question": "How long are they?",
        "totals": {"proverb": 6, "sonnet": 15, "speech": 10},
        "all": 31,
    }
    for step in ("list", "count-0", "count-1", "count-2", "count", "report"):
        assert events.count(f"step.done          {step}\n") == 1


def test_running_the_plan_again_does_nothing_twice(tmp_path: Path) -> None:
    first = run("run_plan.py", CELERIAC_DATA_DIR=str(tmp_path))
    assert run("run_plan.py", CELERIAC_DATA_DIR=str(tmp_path)) == first


@pytest.mark.parametrize("said_in", ["README.md", "examples/plan.yaml"])
def test_the_command_line_runs_the_plan(said_in: str, tmp_path: Path) -> None:
    usage = re.search(r"PYTHONPATH=\. CELERIAC_AGENTS=agents \S*celeriac (run .*)", (ROOT / said_in).read_text())
    assert usage
    done = subprocess.run(
        [sys.executable, "-c", "from celeriac.interface.main import main; main()", *shlex.split(usage[1]), "--json"],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONPATH": ".", "CELERIAC_AGENTS": "agents", "CELERIAC_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert '"proverb"' in done.stdout


@pytest.fixture
def shop(redis_server: RedisServer, tmp_path: Path) -> dict[str, str]:
    """The environment in which the shop's worker and its callers run."""
    return {"SHOP_BROKER": redis_server.url, "CELERIAC_DATA_DIR": str(tmp_path)}


def test_an_app_that_was_there_already_runs_durable_steps(shop: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery", "-A", "existing_app", "worker", "--concurrency=2", "--loglevel=WARNING"]
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=EXAMPLES, env={**os.environ, **shop}, stdout=log, stderr=log)
        try:
            printed = run("existing_app.py", "Ana", "Bo", **shop)
        finally:
            worker.terminate()
            worker.wait(60)
    status, _, result = printed.strip().partition(" ")
    assert status == "completed", (tmp_path / "worker.log").read_text()
    answer = ast.literal_eval(result)
    assert answer["sent"] == 2
    assert answer["first"].startswith("Dear Ana, thank you.")


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of one language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_code_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "docs" / "more").mkdir(parents=True)
    (tmp_path / "docs" / "one.md").write_text("one two three")
    (tmp_path / "docs" / "more" / "two.md").write_text("four five")
    (tmp_path / "docs" / "other.txt").write_text("not counted")
    (script,) = blocks("README.md", "python")
    (tmp_path / "page.py").write_text(script)
    data = str(tmp_path / "data")
    for _ in range(2):  # the second time, its key finds the session that has ended
        assert run(str(tmp_path / "page.py"), cwd=tmp_path, CELERIAC_DATA_DIR=data) == "completed 5\n"


def test_the_make_targets_that_the_readme_shows_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"(?:`|\$ )make ([\w ]+?)(?:`|  )", (ROOT / "README.md").read_text())
    assert shown
    assert {target for targets in shown for target in targets.split()} <= targets


def test_the_commands_that_the_readme_shows_are_there() -> None:
    shown = set(re.findall(r"(?:bin/|`)celeriac ((?:sessions )?\w+)", (ROOT / "README.md").read_text()))
    assert {"research", "run", "sessions resume"} <= shown
    for command in shown:
        asked = [sys.executable, "-m", "celeriac", *command.split(), "--help"]
        done = subprocess.run(asked, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_page_on_plans_runs_as_it_stands(tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    (plan,) = blocks("docs/plans.md", "yaml")
    said_twice = f"import yaml\nassert Plan.from_dict(yaml.safe_load({plan!r})).fingerprint == site.fingerprint\n"
    script.write_text("\n".join([*blocks("docs/plans.md", "python"), said_twice]))
    run(str(script), cwd=tmp_path, CELERIAC_DATA_DIR=str(tmp_path / "data"))


@pytest.mark.parametrize(
    "page",
    ["archive", "backup", "conversations", "history", "maintenance", "operations", "retention", "state", "trees"],
)
def test_the_code_of_a_page_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    if page == "conversations":
        pytest.importorskip("pydantic_ai")
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(f"docs/{page}.md", "python")))
    run(str(script), cwd=tmp_path, CELERIAC_DATA_DIR=str(tmp_path / "data"))


def test_the_conversation_runs_without_a_model_service(tmp_path: Path) -> None:
    pytest.importorskip("pydantic_ai")
    said = ["Hello!", "Where is order 17?", "And order 99?"]
    printed = run("conversation.py", *said, CELERIAC_DATA_DIR=str(tmp_path)).splitlines()
    assert printed[1:3] == ["It left Antwerp on Monday.", "I do not find that order: KeyError: 99."]
    assert printed[3].startswith("said: system, user, assistant, user, assistant, tool, assistant, user")


def test_every_test_that_the_page_on_guarantees_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "guarantees.md").read_text())
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
            leads_to = page.parent / target if target else page
            assert leads_to.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(leads_to), f"{page.name} links to {target}#{anchor}"


def test_the_files_that_the_pages_name_are_there() -> None:
    folders = "config|storage|orchestration|tasks|interface|tests|examples"
    for page in PAGES:
        for name in re.findall(rf"(?<![\w/])((?:{folders})/[\w/]+(?:\.\w+|/))", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_page_on_settings_has_every_setting_as_it_is_declared() -> None:
    rows = ["| setting | allowed | default | |", "|---|---|---|---|"]
    for name, allowed, default, description in Settings.describe():
        shown = f"`{default}`" if default else "empty"
        rows.append(f"| `{name}` | {allowed.replace('|', 'or')} | {shown} | {description} |")
    assert "\n".join(rows) in (DOCS / "configuration.md").read_text(), "the table is now:\n" + "\n".join(rows)
