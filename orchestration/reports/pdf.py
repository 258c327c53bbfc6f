"""A report as a PDF, set by Typst. The template is fixed; the report reaches it as JSON and is never read as code."""

from __future__ import annotations

import textwrap
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from ...errors import CeleriacError
from . import labels
from .columns import widths
from .inline import breakable, clean, clean_line, parse
from .model import Report, ReportConflict, ReportFinding, Section, Source, Table

_MANY_SOURCES = 40  # more are set small, a line or two each
_SHORT_QUOTE = 100  # characters
_WHOLE = 1500  # characters; shorter blocks are not broken across pages

_LABELS = {
    "summary": labels.SUMMARY,
    "conflicts": labels.CONFLICTS,
    "resolution": labels.RESOLUTION,
    "findings": labels.FINDINGS,
    "finding_columns": labels.FINDING_COLUMNS,
    "skipped": labels.SKIPPED,
    "skipped_columns": labels.SKIPPED_COLUMNS,
    "facts": labels.FACTS,
    "sources": labels.SOURCES,
}

Run = dict[str, Any]  # t: parts of a text to be joined; n: a citation; b, i, c: bold, italic, code; u: an address


class PdfError(CeleriacError):
    """A report cannot be written as a PDF: Typst is not installed, or refused the document."""


def render_pdf(report: Report) -> bytes:
    """Give the report as the bytes of a PDF (A4, tagged, with bookmarks); the same report gives the same bytes.

    Letters that the built-in fonts lack (Chinese, Japanese, Korean, emoji) are taken from the system's fonts.
    Raises PdfError if the extra `pdf` is not installed or Typst refuses the document.
    """
    try:
        import typst
    except ImportError as error:
        raise PdfError(
            "a PDF report needs the package typst, which is not installed: pip install 'celeriac[pdf]'"
        ) from error
    data = msgspec.json.encode(_data(report)).decode()
    moment = labels.moment(report.created_at)
    try:
        return typst.compile(
            _template(), format="pdf", sys_inputs={"report": data}, timestamp=int(moment.timestamp()) if moment else 0
        )
    except typst.TypstError as error:
        raise PdfError(f"Typst refused the report {report.title!r}: {error}") from error


def _data(report: Report) -> dict[str, Any]:
    numbers = {source.number for source in report.sources}
    question = report.question if report.question != report.title else ""
    moment = labels.moment(report.created_at)
    return {
        "title": clean_line(report.title),
        "heading": _plain(report.title),
        "running": textwrap.shorten(clean_line(report.title), 95, placeholder=" …"),
        "question": [breakable(line) for line in clean(question).strip().split("\n")] if question.strip() else [],
        "date": labels.written_date(report.created_at),
        "stamp": [moment.year, moment.month, moment.day] if moment else [],
        "labels": _LABELS,
        "summary": [_prose(text, numbers) for text in report.summary],
        "conflicts": [_conflict(conflict, numbers) for conflict in labels.by_severity(report.conflicts)],
        "sections": [_section(section, numbers) for section in report.sections],
        "findings": _findings(report.findings, numbers),
        "skipped": {
            "widths": widths(list(labels.SKIPPED_COLUMNS), [list(pair) for pair in report.skipped]),
            "rows": [[_plain(path), _plain(reason)] for path, reason in report.skipped],
        },
        "facts": [[_plain(name), _plain(labels.fact(value))] for name, value in report.facts.items()],
        "sources": _sources(report.sources),
    }


def _conflict(conflict: ReportConflict, numbers: set[int]) -> dict[str, Any]:
    length = sum(map(len, [conflict.explanation, conflict.resolution, *(value for value, _ in conflict.values)]))
    return {
        "whole": length < _WHOLE,
        "entity": _plain(conflict.entity),
        "attribute": _plain(conflict.attribute),
        "severity": labels.severity(conflict),
        "explanation": _prose(conflict.explanation, numbers),
        "values": [[_plain(value), _cites(cited, numbers)] for value, cited in conflict.values],
        "resolution": _prose(conflict.resolution, numbers),
    }


def _findings(findings: list[ReportFinding], numbers: set[int]) -> dict[str, Any]:
    return {
        "widths": labels.finding_widths(findings),
        "rows": [
            [
                _plain(f.entity),
                _plain(f.attribute),
                _plain(f.value),
                labels.percent(f.confidence),
                _cites(f.sources, numbers),
            ]
            for f in findings
        ],
    }


def _section(section: Section, numbers: set[int]) -> dict[str, Any]:
    return {
        "heading": _prose(section.heading, numbers),
        "level": min(6, max(2, section.level)),
        "paragraphs": [_prose(text, numbers) for text in section.paragraphs],
        "bullets": [_prose(text, numbers) for text in section.bullets],
        "tables": [_table(table, numbers) for table in section.tables if table.columns or table.rows],
    }


def _table(table: Table, numbers: set[int]) -> dict[str, Any]:
    columns, rows = labels.rectangular(table)
    return {
        "caption": _prose(table.caption, numbers),
        "widths": widths(columns, rows),
        "columns": [_prose(text, numbers) for text in columns],
        "rows": [[_prose(text, numbers) for text in row] for row in rows],
    }


def _sources(sources: list[Source]) -> dict[str, Any]:
    """The sources; where they are many, with paths below a folder that is named once and the quotes' beginnings."""
    compact = len(sources) > _MANY_SOURCES
    folder = labels.common_folder([source.path for source in sources]) if compact else ""
    known: set[int] = set()
    found = []
    for source in sorted(sources, key=lambda source: source.number):
        quote = clean(source.quote).strip("\n")
        if compact:
            quote = textwrap.shorten(quote, _SHORT_QUOTE, placeholder=" …")
        place = clean_line(labels.place(source)).removeprefix(folder)
        found.append(
            {
                "number": source.number,
                # A link needs one target: were a number given twice, the first is it.
                "target": source.number not in known,
                "place": _plain(place),
                "title": _plain(source.title),
                "quote": [breakable(line) for line in quote.split("\n")] if quote.strip() else [],
                "whole": len(quote) < _WHOLE,
            }
        )
        known.add(source.number)
    return {"compact": compact, "folder": _plain(f"Paths are below {folder}") if folder else [], "all": found}


def _prose(text: str, numbers: set[int]) -> list[Run]:
    runs: list[Run] = []
    style: Run = {}
    for piece in parse(text, numbers):
        if piece.kind == "strong":
            style["b"] = style.get("b", 0) + 1
        elif piece.kind == "em":
            style["i"] = style.get("i", 0) + 1
        elif piece.kind == "link":
            style["u"] = piece.text
        elif piece.kind == "end":
            key = {"strong": "b", "em": "i", "link": "u"}[piece.text]
            style[key] = style[key] - 1 if key != "u" else None
            style = {name: value for name, value in style.items() if value}
        elif piece.kind == "cite":
            runs.append({"n": piece.number})
        else:
            runs.append({"t": breakable(piece.text), **style, **({"c": True} if piece.kind == "code" else {})})
    return runs


def _plain(text: str) -> list[str]:
    return breakable(clean_line(text)) if text else []


def _cites(cited: list[int], numbers: set[int]) -> list[Run]:
    return [{"n": number} if number in numbers else {"t": [f"[{number}]"]} for number in cited]


@cache
def _template() -> bytes:
    return files(__package__).joinpath("report.typ").read_bytes()
