"""The licences of real packages, read by hand from their papers; runs over whichever of them are installed here."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from celeriac.orchestration.research.licences.agents import analyze, locate

from .run_plan import Context, run

#: package -> (licence, licences of its parts, which paper says so)
BY_HAND: dict[str, tuple[str, list[str], str]] = {
    "celery": (
        "BSD-3-Clause",
        ["CC-BY-SA-4.0"],
        "License field and the 3-clause text; the docs are CC BY-SA 4.0 (LICENSE)",
    ),
    "kombu": ("BSD-3-Clause", [], "License field, readme 'New BSD License', 3-clause text"),
    "billiard": ("BSD-3-Clause", [], "field says only BSD; LICENSE.txt has the third clause"),
    "vine": ("BSD-3-Clause", ["CC-BY-SA-4.0"], "LICENSE: 'The BSD License (3 Clause...)'; docs CC BY-SA 4.0"),
    "amqp": ("BSD-3-Clause", [], "field says only BSD; LICENSE: 'The BSD License (3 Clause...)'"),
    "SQLAlchemy": ("MIT", [], "License-Expression and LICENSE"),
    "alembic": ("MIT", [], "License-Expression and LICENSE"),
    "Mako": ("MIT", [], "License-Expression, LICENSE; the readme says 'MIT-style'"),
    "msgspec": ("BSD-3-Clause", [], "License-Expression and LICENSE"),
    "backports.zstd": ("PSF-2.0", ["BSD-3-Clause"], "License-Expression; LICENSE_zstd.txt is the library's"),
    "uuid_utils": ("BSD-3-Clause", [], "License-Expression and LICENSE.md"),
    "click": ("BSD-3-Clause", [], "License-Expression and LICENSE.txt"),
    "click-plugins": ("BSD-3-Clause", [], "field 'New BSD', 3-clause text"),
    "rich": ("MIT", [], "License field and LICENSE"),
    "PyYAML": ("MIT", [], "License field and LICENSE"),
    "license-expression": ("Apache-2.0", ["CC-BY-4.0"], "License field; data/cc-by-4.0.LICENSE is that of its data"),
    "boolean.py": ("BSD-2-Clause", [], "License field; LICENSE.txt has two clauses"),
    "markdown-it-py": ("MIT", [], "classifier and both licence files"),
    "mdurl": ("MIT", [], "classifier; LICENSE holds Joyent's MIT text too"),
    "pysqlite3": ("Zlib", [], "no metadata says anything; LICENSE is the zlib text"),
    "python-dateutil": (
        "Apache-2.0 OR BSD-3-Clause",
        [],
        "field 'Dual License'; the readme says either; LICENSE has both",
    ),
    "psycopg": ("LGPL-3.0-only", [], "License-Expression; the text alone cannot say only or later"),
    "psycopg-binary": ("LGPL-3.0-only", [], "as psycopg"),
    "redis": ("MIT", [], "License-Expression and LICENSE"),
    "typst": ("Apache-2.0", [], "License-Expression and LICENSE"),
    "pypdf": ("BSD-3-Clause", [], "License-Expression and LICENSE"),
    "packaging": (
        "Apache-2.0 OR BSD-2-Clause",
        [],
        "License-Expression; LICENSE points to LICENSE.APACHE and LICENSE.BSD",
    ),
    "certifi": ("MPL-2.0", [], "License field; LICENSE has the MPL notice"),
    "typing_extensions": ("PSF-2.0", [], "License-Expression; LICENSE is CPython's whole stack"),
    "prompt_toolkit": ("BSD-3-Clause", [], "classifier says only BSD; LICENSE has three clauses"),
    "flower": ("BSD-3-Clause", [], "field says only BSD; readme and LICENSE say 3-clause"),
    "tornado": ("Apache-2.0", [], "License field and LICENSE"),
    "orjson": ("MPL-2.0 AND (Apache-2.0 OR MIT)", [], "License-Expression, and one text of each"),
    "wcwidth": ("MIT", ["HPND-Markus-Kuhn"], "classifier and LICENSE, which ends with Kuhn's notice"),
    "prometheus_client": ("Apache-2.0 AND BSD-2-Clause", [], "License-Expression; NOTICE names the BSD part"),
    "Pygments": ("BSD-2-Clause", [], "License-Expression and LICENSE"),
    "pytz": ("MIT", [], "field, classifier, LICENSE.txt; the readme mentions Zope's copy of the code"),
    "hypothesis": ("MPL-2.0", [], "License-Expression and LICENSE.txt"),
    "uv": ("MIT OR Apache-2.0", [], "License-Expression, one text of each"),
}


@cache
def installed() -> dict[str, Any]:
    located = run(locate, {"folders": []}, Context(""))
    return {package["name"].lower(): package for package in located["packages"]}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_package_carries_the_licence_that_its_papers_were_read_to_say(name: str) -> None:
    package = installed().get(name.lower())
    if package is None:
        pytest.skip(f"{name} is not installed here")
    licence, parts, note = BY_HAND[name]
    found = run(analyze, {"package": package}, Context(""))
    assert found["licence"] == licence, note
    assert [part["licence"] for part in found["contains"]] == parts, note
    assert found["conflict"] is None, note


def test_dateutil_offers_its_choice_for_newer_code_only() -> None:
    package = installed().get("python-dateutil")
    if package is None:
        pytest.skip("python-dateutil is not installed here")
    notes = run(analyze, {"package": package}, Context(""))["attention"]
    assert any("does not hold for all of the code" in note for note in notes)


def test_at_least_fifteen_packages_are_checked_by_hand_here() -> None:
    assert len(set(map(str.lower, BY_HAND)) & set(installed())) >= 15


def test_every_statement_stands_on_the_line_that_is_named() -> None:
    for package in list(installed().values())[:40]:
        for claim in run(analyze, {"package": package}, Context(""))["claims"]:
            with open(claim["path"], encoding="utf-8", errors="replace") as stream:
                line = stream.read().split("\n")[claim["line"] - 1]
            first = claim["text"].split()[0].strip("*`#:")
            assert first in line, (claim["path"], claim["line"], claim["text"])
