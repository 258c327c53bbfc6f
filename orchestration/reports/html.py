"""A report as one HTML file that stands alone: no script, no external resource, light and dark, made to be printed."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from itertools import groupby

from . import labels
from .columns import widths
from .inline import breakable, clean, clean_line, parse
from .model import Report, ReportConflict, ReportFinding, Section, Source, Table

_COLLAPSED_FROM = 11  # skipped files


def render_html(report: Report) -> str:
    """Give the report as a complete HTML document; texts are escaped, and a policy forbids all but its own style."""
    return _Page(report).document()


class _Page:
    """One document being written: knows the sources and counts the citations, so that each source can link back."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.places = {source.number: labels.place(source) for source in report.sources}
        self.cited: Counter[int] = Counter()

    def document(self) -> str:
        report = self.report
        style, digest = _style()
        # Sources come last: only then is it known how often each was cited.
        parts = [part for part in self._parts() if part[2]]
        if report.sources:
            parts.append(("sources", labels.SOURCES, self._sources()))
        main = "\n".join(
            f'<section id="{name}">\n{_heading(2, label)}{body}\n</section>' if label else body
            for name, label, body in parts
        )
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{digest}'\">\n"
            f"<title>{escape(clean_line(report.title))}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f"{self._header()}{self._contents(parts)}<main>\n{main}\n</main>\n</body>\n</html>\n"
        )

    def _parts(self) -> list[tuple[str, str, str]]:
        """The parts in reading order as (id, label, HTML); sections bring their own headings and have no label."""
        report = self.report
        return [
            ("summary", labels.SUMMARY, "\n".join(f"<p>{self._prose(text)}</p>" for text in report.summary)),
            ("conflicts", labels.CONFLICTS, "\n".join(map(self._conflict, labels.by_severity(report.conflicts)))),
            ("sections", "", "\n".join(map(self._section, report.sections))),
            ("findings", labels.FINDINGS, self._findings(report.findings)),
            ("skipped", labels.SKIPPED, _skipped(report.skipped)),
            ("facts", labels.FACTS, _facts(report)),
        ]

    def _header(self) -> str:
        report = self.report
        parts = [f"<h1>{_text(clean_line(report.title))}</h1>"]
        if report.question and report.question != report.title:
            parts.append(f'<p class="question">{_lines(report.question)}</p>')
        if report.created_at:
            moment = labels.moment(report.created_at)
            machine = f' datetime="{moment:%Y-%m-%dT%H:%M:%SZ}"' if moment else ""
            parts.append(f'<p class="date"><time{machine}>{_text(labels.written_date(report.created_at))}</time></p>')
        return "<header>\n" + "\n".join(parts) + "\n</header>\n"

    def _contents(self, parts: list[tuple[str, str, str]]) -> str:
        report = self.report
        counts = {
            "conflicts": len(report.conflicts),
            "findings": len(report.findings),
            "skipped": len(report.skipped),
            "sources": len(report.sources),
        }
        links = [
            f'<a href="#{name}">{label}{f" <span>{counts[name]}</span>" if name in counts else ""}</a>'
            for name, label, _ in parts
            if label
        ]
        return f'<nav aria-label="Contents">{" ".join(links)}</nav>\n' if len(links) > 1 else ""

    def _conflict(self, conflict: ReportConflict) -> str:
        severity = labels.severity(conflict)
        parts = [
            f'<article class="conflict {severity}">\n<h3>{_text(clean_line(conflict.entity))}'
            f' <span class="attribute">{_text(clean_line(conflict.attribute))}</span>'
            f' <span class="severity">{severity}</span></h3>'
        ]
        if conflict.explanation:
            parts.append(f"<p>{self._prose(conflict.explanation)}</p>")
        values = [f"<li>{_text(clean_line(value))} {self._cites(cited)}</li>" for value, cited in conflict.values]
        if values:
            parts.append("<ul>\n" + "\n".join(values) + "\n</ul>")
        if conflict.resolution:
            parts.append(f"<p><strong>{labels.RESOLUTION}.</strong> {self._prose(conflict.resolution)}</p>")
        return "\n".join(parts) + "\n</article>"

    def _section(self, section: Section) -> str:
        parts = [_heading(min(6, max(2, section.level)), self._prose(section.heading))]
        parts += [f"<p>{self._prose(text)}</p>\n" for text in section.paragraphs]
        if section.bullets:
            parts.append(
                "<ul>\n" + "\n".join(f"<li>{self._prose(text)}</li>" for text in section.bullets) + "\n</ul>\n"
            )
        parts += [self._table(table) for table in section.tables]
        return f"<section>\n{''.join(parts)}</section>"

    def _table(self, table: Table) -> str:
        columns, rows = labels.rectangular(table)
        if not columns:
            return ""
        caption = f"<caption>{self._prose(table.caption)}</caption>\n" if table.caption else ""
        heads = [self._prose(text) for text in columns]
        cells = ("".join(f"<td>{self._prose(text)}</td>" for text in row) for row in rows)
        return _table(caption, heads, (f"<tr>{row}</tr>" for row in cells), widths(columns, rows))

    def _findings(self, findings: list[ReportFinding]) -> str:
        if not findings:
            return ""
        rows = []
        for entity, group in groupby(findings, key=lambda finding: finding.entity):
            members = list(group)
            head = f'<th scope="rowgroup" rowspan="{len(members)}">{_text(clean_line(entity))}</th>'
            for index, finding in enumerate(members):
                rows.append(
                    f"<tr>{head if index == 0 else ''}"
                    f"<td>{_text(clean_line(finding.attribute))}</td>"
                    f"<td>{_text(clean_line(finding.value))}</td>"
                    f'<td class="number">{labels.percent(finding.confidence)}</td>'
                    f'<td class="cites">{self._cites(finding.sources)}</td></tr>'
                )
        return _table("", labels.FINDING_COLUMNS, rows, labels.finding_widths(findings), "findings")

    def _sources(self) -> str:
        ordered = sorted(self.report.sources, key=lambda source: source.number)
        return '<ol class="sources">\n' + "\n".join(map(self._source, ordered)) + "\n</ol>"

    def _source(self, source: Source) -> str:
        number = source.number
        parts = [
            f'<li id="source-{number}" value="{number}"><p><span class="mark">{number}</span>'
            f"<code>{_text(self.places[number])}</code>"
        ]
        if source.title:
            parts.append(f' <span class="name">{_text(clean_line(source.title))}</span>')
        count = self.cited[number]
        backs = [
            f'<a href="#cite-{number}-{at}" aria-label="Back to citation {at}">{"↩" if count == 1 else at}</a>'
            for at in range(1, count + 1)
        ]
        if backs:
            parts.append(f' <span class="back">{"↩ " if count > 1 else ""}{" ".join(backs)}</span>')
        quote = clean(source.quote).strip("\n")
        body = f"\n<blockquote>{_text(quote)}</blockquote>" if quote.strip() else ""
        return "".join(parts) + f"</p>{body}</li>"

    def _prose(self, text: str) -> str:
        parts = []
        for piece in parse(text, self.places):
            if piece.kind == "text":
                parts.append(_text(piece.text))
            elif piece.kind == "code":
                parts.append(f"<code>{_text(piece.text)}</code>")
            elif piece.kind == "cite":
                parts.append(self._cite(piece.number))
            elif piece.kind == "link":
                parts.append(f'<a href="{escape(piece.text)}" rel="noopener noreferrer nofollow">')
            elif piece.kind == "end":
                parts.append("</a>" if piece.text == "link" else f"</{piece.text}>")
            else:
                parts.append(f"<{piece.kind}>")
        return "".join(parts)

    def _cites(self, numbers: list[int]) -> str:
        return "<wbr>".join(self._cite(number) if number in self.places else f"[{number}]" for number in numbers)

    def _cite(self, number: int) -> str:
        self.cited[number] += 1
        return (
            f'<a class="cite" id="cite-{number}-{self.cited[number]}" href="#source-{number}"'
            f' title="{escape(self.places[number])}">[{number}]</a>'
        )


def _heading(level: int, content: str) -> str:
    return f"<h{level}>{content}</h{level}>\n"


def _table(caption: str, columns: Sequence[str], rows: Iterable[str], shares: list[int], name: str = "") -> str:
    heads = "".join(f'<th scope="col">{column}</th>' for column in columns)
    opening = f'<table class="{name}">' if name else "<table>"
    # The policy allows no style here; the attribute says the same. No column gets less than its longest word.
    sizes = "".join(f'<col width="{share}%">' for share in shares)
    # The frame scrolls sideways, so it takes the focus: a keyboard can scroll it too.
    return (
        f'<div class="frame" tabindex="0">{opening}\n{caption}<colgroup>{sizes}</colgroup>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
    )


def _skipped(skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return ""
    rows = [
        f"<tr><td><code>{_text(clean_line(p))}</code></td><td>{_text(clean_line(why))}</td></tr>" for p, why in skipped
    ]
    shares = widths(list(labels.SKIPPED_COLUMNS), [list(pair) for pair in skipped])
    table = _table("", labels.SKIPPED_COLUMNS, rows, shares)
    if len(skipped) < _COLLAPSED_FROM:
        return table
    return f"<details>\n<summary>{len(skipped)} files were not read</summary>\n{table}\n</details>"


def _facts(report: Report) -> str:
    facts = [
        f"<div><dt>{_text(clean_line(name))}</dt><dd>{_text(labels.fact(value))}</dd></div>"
        for name, value in report.facts.items()
    ]
    return '<dl class="facts">\n' + "\n".join(facts) + "\n</dl>" if facts else ""


def _text(text: str) -> str:
    return "<wbr>".join(escape(part) for part in breakable(text))


def _lines(text: str) -> str:
    return "<br>".join(_text(line) for line in clean(text).strip().split("\n"))


@cache
def _style() -> tuple[str, str]:
    """The style sheet, and its digest for the content security policy."""
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return style, "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
