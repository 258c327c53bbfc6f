"""The report as data: plain JSON-able dataclasses that the renderers read and the research agents write."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Source:
    """One numbered source of a report: a place in a document.

    `number` counts from 1 and is what `[3]` in the text refers to; lines count from 1 and include both ends.
    `path` is as the user would type it; for a PDF, `page` (from 1) is set and the lines count within that page's text.
    """

    number: int
    path: str
    line_start: int
    line_end: int
    quote: str = ""
    title: str = ""
    page: int | None = None


@dataclass(slots=True)
class Table:
    """A table: every row has as many cells as `columns`. Cells may hold inline Markdown and citations such as `[3]`."""

    columns: list[str]
    rows: list[list[str]]
    caption: str = ""


@dataclass(slots=True)
class Section:
    """A heading with its paragraphs (inline Markdown, citations `[3]`), bullets and tables, shown in that order."""

    heading: str
    paragraphs: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    level: int = 2


@dataclass(slots=True)
class ReportFinding:
    """One finding: what is said of `entity`'s `attribute`, how sure (0..1), and the numbers of its sources."""

    entity: str
    attribute: str
    value: str
    confidence: float
    sources: list[int] = field(default_factory=list)


@dataclass(slots=True)
class ReportConflict:
    """Two or more values for the same entity and attribute. `severity` is one of low, medium, high."""

    entity: str
    attribute: str
    severity: str
    values: list[tuple[str, list[int]]]
    explanation: str = ""
    resolution: str = ""


@dataclass(slots=True)
class Report:
    """All that a report says. Times are ISO 8601 in UTC."""

    title: str
    question: str
    created_at: str
    summary: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    findings: list[ReportFinding] = field(default_factory=list)
    conflicts: list[ReportConflict] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)  # path, reason
    facts: dict[str, Any] = field(default_factory=dict)  # "documents read": 120, "model": "none (extractive)", ...

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Build a report from what `to_dict` gave."""
        known = dict(data)
        known["sections"] = [
            Section(**{**s, "tables": [Table(**t) for t in s.get("tables", [])]}) for s in data.get("sections", [])
        ]
        known["findings"] = [ReportFinding(**f) for f in data.get("findings", [])]
        known["conflicts"] = [
            ReportConflict(**{**c, "values": [(v, list(n)) for v, n in c["values"]]}) for c in data.get("conflicts", [])
        ]
        known["sources"] = [Source(**s) for s in data.get("sources", [])]
        known["skipped"] = [(path, reason) for path, reason in data.get("skipped", [])]
        return cls(**known)
