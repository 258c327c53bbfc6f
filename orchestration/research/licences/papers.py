"""The installed distributions of a site-packages folder and the papers that speak of their licence."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

from ....errors import CeleriacError
from ..files import Unreadable, read_text
from .names import names_in

_PAPER = re.compile(
    r"(^|[-_. ])(un)?licen[cs]es?($|[-_. ])|^copying|^notice|^copyright($|[-_.])|third[-_ ]?party", re.I
)
_NOT_A_PAPER = re.compile(
    r"\.(py[cio]?|pyx|pxd|json|jsonl|yaml|yml|toml|about|so|c|h|cpp|hpp|js|css|map|html?|xml|rs|go|svg|png|gz|pem)$",
    re.I,
)
_OTHER_PAPERS = re.compile(
    r"^(authors|contributors|readme|change(s|log)|history|news|code_of_conduct|contributing)", re.I
)
_PLAIN_SUFFIX = re.compile(r"^(txt|md|rst|text|markdown|licen[cs]e)?$", re.I)


def site_packages() -> list[str]:
    """The folders in which the running interpreter keeps its packages."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys([paths["purelib"], paths["platlib"]]))


def distributions(folders: list[str]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Every distribution in `folders` (site-packages folders or virtual environments) and what was skipped.

    A distribution is `{"name", "version", "folder", "papers": [{"path", "role"}], "native"}`; roles are `metadata`,
    `main`, `notice` and `bundled` (the licence of a part). Raises CeleriacError where a folder is missing or empty.
    """
    packages: dict[tuple[str, str], dict[str, Any]] = {}
    skipped: list[tuple[str, str]] = []
    for folder in _package_folders(folders):
        for entry in sorted(os.listdir(folder)):
            if not entry.endswith((".dist-info", ".egg-info")):
                continue
            info = os.path.join(folder, entry)
            try:
                package = _distribution(folder, info)
            except (Unreadable, OSError) as error:
                skipped.append((info, str(error)))
                continue
            if _is_editable(info):
                skipped.append((info, "installed in editable mode: one's own project, not a dependency"))
                continue
            packages.setdefault((package["name"].lower(), package["version"]), package)
    if not packages:
        raise CeleriacError(f"no installed package found in {', '.join(map(repr, folders))} (looked for *.dist-info)")
    return [packages[key] for key in sorted(packages)], skipped


def _package_folders(folders: list[str]) -> list[str]:
    found: list[str] = []
    for folder in folders:
        if not os.path.isdir(folder):
            raise CeleriacError(
                f"folder {folder!r} does not exist; name a site-packages folder or a virtual environment"
            )
        inside = [*sorted(Path(folder).glob("lib/python*/site-packages")), *Path(folder).glob("Lib/site-packages")]
        found += [str(path) for path in inside] or [folder]
    return list(dict.fromkeys(found))


def _distribution(folder: str, info: str) -> dict[str, Any]:
    metadata = info
    if os.path.isdir(info):
        name = "METADATA" if info.endswith(".dist-info") else "PKG-INFO"
        metadata = os.path.join(info, name)
    headers, _ = parse_metadata(read_text(metadata))
    first = {key.lower(): value for key, value, _ in reversed(headers)}
    record = _record(folder, info)
    papers = [{"path": metadata, "role": "metadata"}]
    if os.path.isdir(info):
        papers += _licence_files(folder, info, record)
    name, version = first.get("name", os.path.basename(info)), first.get("version", "")
    return {
        "name": name,
        "version": version,
        "folder": folder,
        "papers": papers,
        "without_paper": _parts_without_paper(record),
    }


def _parts_without_paper(record: list[str]) -> list[str]:
    """Other people's work inside a wheel that no licence file beside it speaks of: native libraries, vendored code."""
    libraries: dict[str, set[str]] = {}
    vendored: dict[str, set[str]] = {}
    for name in record:
        if match := re.match(r"([^/]+\.libs|[^/]+/\.dylibs)/(.+)", name):
            libraries.setdefault(match[1], set()).add(_library_name(match[2]))
        elif match := re.match(
            r"((?:[^/]+/)+?_?vendor(?:ed)?)/((?!vendor|.*licen)[A-Za-z][\w.-]*?)(?:\.py)?(/|$)", name
        ):
            vendored.setdefault(match[1], set()).add(match[2])
    for folder in list(vendored):
        if any(name.startswith(folder + "/") and is_paper(name.rsplit("/", 1)[-1]) for name in record):
            del vendored[folder]
    return [f"{folder}: {', '.join(sorted(parts))}" for folder, parts in sorted({**libraries, **vendored}.items())]


def _library_name(name: str) -> str:
    return re.split(r"[-.](?:[0-9a-f]{6,}|so|\d)", name.rsplit("/", 1)[-1])[0]


def parse_metadata(text: str) -> tuple[list[tuple[str, str, int]], tuple[int, list[str]]]:
    """The headers of a METADATA or PKG-INFO file as (key, value, line), and the description as (first line, lines)."""
    lines = text.split("\n")
    headers: list[tuple[str, str, int]] = []
    body = len(lines)
    for index, line in enumerate(lines):
        if not line.strip() and not (headers and headers[-1][0] == "License" and _continues(lines, index)):
            body = index + 1
            break
        if line[:1] in " \t|" or not line.strip():
            if headers:
                key, value, number = headers[-1]
                headers[-1] = (key, f"{value}\n{line.strip()}", number)
        elif ":" in line:
            key, value = line.split(":", 1)
            headers.append((key.strip(), value.strip(), index + 1))
    old = next(((v, n) for k, v, n in headers if k == "Description"), None)  # metadata before 2.1
    if old and body >= len(lines):
        return headers, (old[1], old[0].split("\n"))
    return headers, (body + 1, lines[body:])


def _continues(lines: list[str], index: int) -> bool:
    return index + 1 < len(lines) and lines[index + 1][:1] in (" ", "\t")


def _record(folder: str, info: str) -> list[str]:
    try:
        text = read_text(os.path.join(info, "RECORD"))
    except Unreadable:
        return []
    return [row[0] for row in csv.reader(io.StringIO(text)) if row]


def _is_editable(info: str) -> bool:
    try:
        url = json.loads(read_text(os.path.join(info, "direct_url.json")))
        return bool(url.get("dir_info", {}).get("editable"))
    except (Unreadable, ValueError, AttributeError):
        return False


def is_paper(name: str) -> bool:
    """True for a file name that promises a licence, a copying or a notice."""
    return bool(_PAPER.search(name)) and not _NOT_A_PAPER.search(name) and not _OTHER_PAPERS.match(name)


def _licence_files(folder: str, info: str, record: list[str]) -> list[dict[str, str]]:
    base = os.path.basename(info)
    inside = [
        os.path.relpath(os.path.join(root, name), folder)
        for root, _, names in os.walk(info)
        for name in names
        if is_paper(name) or (os.path.basename(root) == "licenses" and not _OTHER_PAPERS.match(name))
    ]
    outside = [name for name in record if not name.startswith((base, "..", "/")) and is_paper(name.rsplit("/", 1)[-1])]
    papers: list[dict[str, str]] = []
    has_main = False
    for relative in [*sorted(inside), *sorted(outside, key=lambda name: (name.count("/"), name))]:
        path = os.path.join(folder, relative)
        if not os.path.isfile(path):
            continue
        role = _role(relative, base)
        if role == "package":  # a licence at the top of the package's own folder stands in for a missing one
            role = "bundled" if has_main else "main"
        has_main = has_main or role == "main"
        papers.append({"path": path, "role": role})
    return papers


def _role(relative: str, base: str) -> str:
    """main: speaks for the whole package; bundled: for a part of it; notice; package: beside the package's modules."""
    name = relative.rsplit("/", 1)[-1]
    if re.search(r"third[-_ ]?party|bundled|vendor", name, re.I):
        return "bundled"
    if re.match(r"notice", name, re.I):
        return "notice"
    inner = relative.removeprefix(base + "/").removeprefix("licenses/").removeprefix("license_files/")
    if not relative.startswith(base):
        return "package" if relative.count("/") == 1 else "bundled"
    if "/" in inner:
        return "bundled"
    return "main" if _speaks_for_all(name) else "bundled"


def _speaks_for_all(name: str) -> bool:
    """LICENSE, LICENSE.txt and LICENSE-MIT speak for the package; LICENSE_zstd.txt speaks for zstd."""
    rest = re.sub(r"\.(txt|md|rst)$", "", name, flags=re.I)
    rest = re.sub(r"(un)?licen[cs]es?|copying|copyright|lesser", "", rest, flags=re.I).strip("-_. ")
    return bool(_PLAIN_SUFFIX.match(rest)) or bool(names_in(rest))
