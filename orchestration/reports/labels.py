"""The short texts that all renderers share: dates, places in documents, percentages, severities, facts."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

from .columns import widths
from .inline import clean_line
from .model import ReportConflict, ReportFinding, Source, Table

CONFLICTS = "Conflicts"
FACTS = "About this report"
FINDING_COLUMNS = ("Entity", "Attribute", "Value", "Confidence", "Sources")
FINDINGS = "Findings"
RESOLUTION = "Resolution"
SKIPPED = "Skipped files"
SKIPPED_COLUMNS = ("File", "Reason")
SOURCES = "Sources"
SUMMARY = "Summary"

_MONTHS = "January February March April May June July August September October November December".split()
_SEVERITIES = ("high", "medium", "low")


def moment(created_at: str) -> datetime | None:
    """Read an ISO 8601 time as UTC; None if it is not one. A time without a zone is taken as UTC."""
    try:
        found = datetime.fromisoformat(created_at)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def written_date(created_at: str) -> str:
    """Write an ISO 8601 time as `14 March 2026, 09:26 UTC`; what is not a time is given back as it is."""
    found = moment(created_at)
    if found is None:
        return clean_line(created_at)
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}, {found:%H:%M} UTC"


def place(source: Source) -> str:
    """Write where a source is: `path:3-5`, or `path, page 2, lines 3-5` for a PDF."""
    lines = str(source.line_start)
    if source.line_end != source.line_start:
        lines += f"-{source.line_end}"
    path = clean_line(source.path)
    if source.page is None:
        return f"{path}:{lines}"
    return f"{path}, page {source.page}, line{'s' if '-' in lines else ''} {lines}"


def percent(confidence: float) -> str:
    """Write a confidence of 0..1 as a whole percentage; 0% and 100% are kept for exactly 0 and 1."""
    rounded = round(confidence * 100)
    return f"{min(99, max(1, rounded)) if 0 < confidence < 1 else rounded}%"


def severity(conflict: ReportConflict) -> str:
    """Give the severity in lower case, `low` for one that is not known."""
    found = conflict.severity.lower()
    return found if found in _SEVERITIES else "low"


def common_folder(paths: list[str]) -> str:
    """Give the folder, with a slash at its end, that all of some paths begin with; "" where it saves little."""
    if len(paths) < 4 or not all(path.startswith("/") for path in paths):
        return ""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return f"{folder}/" if folder.count("/") > 1 else ""


def by_severity(conflicts: list[ReportConflict]) -> list[ReportConflict]:
    """Give the conflicts with the most severe first; equals keep their order."""
    return sorted(conflicts, key=lambda conflict: _SEVERITIES.index(severity(conflict)))


def rectangular(table: Table) -> tuple[list[str], list[list[str]]]:
    """Give header and rows of one width, short rows filled with empty cells."""
    width = max([len(table.columns), *(len(row) for row in table.rows)])
    columns, *rows = [line + [""] * (width - len(line)) for line in [table.columns, *table.rows]]
    return columns, rows


def finding_widths(findings: list[ReportFinding]) -> list[int]:
    """Give the columns' `widths` for the table of findings."""
    cells = [[f.entity, f.attribute, f.value, "100%", "[000]" * len(f.sources)] for f in findings]
    return widths(list(FINDING_COLUMNS), cells)


def fact(value: Any) -> str:
    """Write the value of a fact: yes or no, a list with commas, anything nested as JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) or (
        isinstance(value, (list, tuple)) and any(isinstance(v, (dict, list)) for v in value)
    ):
        return clean_line(json.dumps(value, ensure_ascii=False, default=str))
    if isinstance(value, (list, tuple)):
        return ", ".join(fact(item) for item in value)
    return "none" if value is None else clean_line(str(value))
