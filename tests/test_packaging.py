"""The root folder is the package: what goes into the wheel is what is listed, and nothing strays into it."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import celeriac

ROOT = Path(celeriac.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]

#: Modules of the root. Any other .py file there would be installed as part of the package.
ROOT_MODULES = {"__init__.py", "__main__.py", "errors.py", "llm.py"}
#: Folders of the root that are not packages.
OTHER_FOLDERS = {"tests", "bench", "docs", "examples", "typecheck", "build", "dist", "reports"}


def source_files() -> Iterator[Path]:
    """Every file in a folder of the root that belongs to the package, relative to the root."""
    for top in ROOT.iterdir():
        if top.is_dir() and top.name[0] != "." and top.name not in OTHER_FOLDERS and top.suffix != ".egg-info":
            for path in top.rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    yield path.relative_to(ROOT)


def test_every_package_folder_is_listed_and_no_other() -> None:
    folders = {f"celeriac.{'.'.join(file.parent.parts)}" for file in source_files() if file.suffix == ".py"}
    assert set(SETUPTOOLS["packages"]) == folders | {"celeriac"}


def test_every_package_has_its_init() -> None:
    for package in SETUPTOOLS["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert (folder / "__init__.py").is_file(), f"{package} has no __init__.py"


def test_no_stray_module_lies_in_the_root() -> None:
    assert {path.name for path in ROOT.glob("*.py")} <= ROOT_MODULES


def test_every_data_file_goes_into_the_wheel() -> None:
    patterns: dict[str, list[str]] = SETUPTOOLS["package-data"]
    for file in source_files():
        if file.suffix != ".py":
            package = f"celeriac.{'.'.join(file.parent.parts)}"
            assert any(fnmatch(file.name, pattern) for pattern in patterns.get(package, [])), (
                f"{file} would be left out"
            )


def test_the_version_is_written_once() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert version("celeriac") == celeriac.__version__


@pytest.mark.parametrize("target", [*PROJECT["project"]["scripts"].values()])
def test_every_console_script_exists(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(import_module(module), name))


def test_every_make_target_can_be_planned() -> None:
    targets = ["research", "test", "check", "bench", "chaos", "clean"]
    planned = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
