"""Two reports as a user would get them: a licence review of forty packages, and the answer to a question."""

from __future__ import annotations

from celeriac.orchestration.reports.model import Report, ReportConflict, ReportFinding, Section, Source, Table

_PACKAGES = (
    "aiohttp alembic attrs billiard celery certifi charset-normalizer click cryptography django fastapi flask"
    " httpx idna"
    " jinja2 kombu lxml markdown-it-py msgspec numpy orjson packaging pandas pillow prometheus-client psycopg pydantic"
    " pygments pypdf python-dateutil pyyaml redis requests rich setuptools sqlalchemy tornado typing-extensions"
    " tzlocal urllib3"
).split()
_LICENCES = (
    "MIT",
    "BSD-3-Clause",
    "Apache-2.0",
    "Apache-2.0 OR MIT",
    "BSD-2-Clause",
    "LGPL-3.0-only",
    "PSF-2.0",
    "MPL-2.0",
)
_USES = (
    "The web application and its background workers",
    "Only the test suite",
    "The command line",
    "Data preparation jobs",
)


def licence_review() -> Report:
    """Forty packages, three sources each, tables, conflicts and more skipped files than are shown at once."""
    sources, findings, rows = [], [], []
    for index, name in enumerate(_PACKAGES):
        licence, first = _LICENCES[index * 5 % 8], index * 3 + 1
        sources += [
            Source(
                first,
                f"vendor/{name}/LICENSE",
                1,
                3,
                f"Copyright (c) 20{10 + index % 15} the {name} authors. All rights reserved.",
            ),
            Source(
                first + 1,
                f"vendor/{name}/{name.replace('-', '_')}-{index}.4.1.dist-info/METADATA",
                7 + index,
                7 + index,
                f"License-Expression: {licence}",
                title=f"{name} package metadata",
            ),
            Source(
                first + 2,
                "docs/third-party-notices.pdf",
                4,
                9,
                f"{name} is used under the terms of {licence}.",
                page=index + 2,
            ),
        ]
        findings.append(ReportFinding(name, "licence", licence, 0.99 - index % 7 * 0.04, [first, first + 1]))
        findings.append(ReportFinding(name, "copyright holder", f"The {name} authors and contributors", 0.9, [first]))
        if index % 4 == 1:
            findings.append(ReportFinding(name, "used by", _USES[index % 3], 0.62, [first + 2]))
        rows.append([f"`{name}`", f"{index}.4.1", licence, _USES[index % 4], f"[{first}][{first + 1}]"])
    return Report(
        title="Licences of the third-party packages in the billing service",
        question="Which licences do our dependencies carry, and may we ship them in a closed product?",
        created_at="2026-03-14T09:26:53Z",
        summary=[
            "Of the **40 packages** in `vendor/`, 35 carry permissive licences (MIT, BSD, Apache-2.0, PSF-2.0)"
            " and may be shipped"
            " with their notices [1][5][8]. Five are under the **LGPL-3.0** and may be shipped only if users"
            " can replace them"
            " [11][35]. Nothing is under the GPL or the AGPL.",
            "Three packages say different things in different places. All are listed below, with the lines that"
            " disagree;"
            " they need a decision before the next release.",
        ],
        conflicts=[
            ReportConflict(
                "charset-normalizer",
                "licence",
                "medium",
                [("MIT", [19, 20]), ("LGPL-2.1-or-later", [21])],
                "The package's own metadata says MIT since version 3; the notices still name the licence of its"
                " predecessor.",
                "Trust the metadata of the vendored version, and correct the notices [20].",
            ),
            ReportConflict(
                "psycopg",
                "licence",
                "high",
                [("LGPL-3.0-only", [76, 77]), ("BSD-3-Clause", [78])],
                "The notices that ship with the product name a *permissive* licence, while"
                " `vendor/psycopg/LICENSE` is the LGPL."
                " Shipping with wrong notices breaks the terms of the licence.",
            ),
            ReportConflict("tzlocal", "copyright year", "low", [("2011", [115]), ("2024", [117])]),
        ],
        sections=[
            Section(
                "Obligations by licence",
                [
                    "The permissive licences ask for the same thing in different words: keep the copyright line"
                    " and the text of"
                    " the licence with every copy [2]. Apache-2.0 also asks that a `NOTICE` file be passed on,"
                    " and that changed"
                    " files say so; see the [text of the licence](https://www.apache.org/licenses/LICENSE-2.0) [8]."
                ],
                [
                    "**MIT, BSD, PSF-2.0**: reproduce the notice [2][5].",
                    "**Apache-2.0**: reproduce the notice and any `NOTICE` file [8].",
                    "**MPL-2.0**: publish changes to files of the package itself; your own files are not"
                    " affected [23].",
                    "**LGPL-3.0**: link dynamically, and let users replace the library [11].",
                ],
                [
                    Table(
                        ["Licence", "Packages", "Notice", "Source of changes"],
                        [
                            ["MIT", "5", "yes", "no"],
                            ["Apache-2.0", "5", "yes, with `NOTICE`", "no"],
                            ["LGPL-3.0-only", "5", "yes", "of the library itself, in full [11]"],
                        ],
                        "What each licence asks of a closed product",
                    )
                ],
            ),
            Section(
                "Packages",
                ["Every package in `vendor/`, as found in its own metadata."],
                tables=[Table(["Package", "Version", "Licence", "Used by", "Sources"], rows)],
            ),
            Section(
                "Where the licence text was found",
                level=3,
                tables=[
                    Table(
                        ["Package", "File", "SHA-256"],
                        [
                            [
                                f"`{n}`",
                                f"`vendor/{n}/{n.replace('-', '_')}-3.4.1.dist-info/licenses/LICENSE.txt`",
                                f"`{'9f86d081884c7d65' * 4}`",
                            ]
                            for n in _PACKAGES[5:9]
                        ],
                    )
                ],
            ),
        ],
        findings=findings,
        sources=sources,
        skipped=[
            (f"vendor/lxml/src/lxml/includes/libxml/generated/schema_{n:02}.xsd.bin", "not text") for n in range(13)
        ],
        facts={
            "Documents read": 412,
            "Passages compared": 1874,
            "Model": "none (extractive)",
            "Formats": ["text", "PDF"],
            "Complete": True,
        },
    )


def answer() -> Report:
    """A short answer with three sources and no conflicts."""
    return Report(
        title="How long are access logs kept?",
        question="How long do we keep access logs, and who may read them?",
        created_at="2026-05-02T16:05:00+00:00",
        summary=[
            "Access logs are kept for **90 days** and then deleted [1]. Only the on-call engineer and the"
            " security team may read"
            " them [2]; each reading is itself logged [3]."
        ],
        findings=[
            ReportFinding("access log", "retention", "90 days", 0.96, [1]),
            ReportFinding("access log", "readers", "on-call engineer, security team", 0.81, [2, 3]),
        ],
        sources=[
            Source(
                1,
                "policies/retention.md",
                41,
                43,
                "Access logs are kept for 90 days.\nAfter that they are deleted, backups included.",
            ),
            Source(2, "policies/access.md", 12, 12, "Readers: the engineer on call; the security team."),
            Source(
                3,
                "src/logs/reader.py",
                88,
                91,
                "def read(self, who):\n    self.audit.write(who, self.name)\n    return self.lines()",
            ),
        ],
        facts={"Documents read": 37, "Model": "none (extractive)"},
    )
