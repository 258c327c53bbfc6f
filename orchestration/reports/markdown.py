"""A report as CommonMark with tables: readable as plain text, citations linked to the numbered sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from . import labels
from .inline import Piece, clean, clean_line, parse
from .model import Report, ReportConflict, Section, Source

# `$` starts a formula on some hosts, `~` strikes through; a lone `_` inside a word means nothing and stays readable.
_SPECIAL = re.compile(r"[\\`*\[\]<~$]|(?<![^\W_])_|_(?![^\W_])|&(?=#|\w+;)")
_BLOCK_START = re.compile(r"\s*([#>+=|:-]|[0-9]+(?=[.)]))")
_CODE = re.compile(r"(?<!`)(`[^`]*[^`\s][^`]*`)(?!`)")
_MARKS = {"strong": "**", "em": "*"}


def render_markdown(report: Report) -> str:
    """Give the report as Markdown text that ends in a newline; no text of the report can become HTML or a block."""
    numbers = {source.number for source in report.sources}

    def prose(text: str) -> str:
        return _prose(parse(text, numbers))

    blocks = _head(report)
    if report.summary:
        blocks += [f"## {labels.SUMMARY}", *(_block(prose(text)) for text in report.summary)]
    if report.conflicts:
        blocks.append(f"## {labels.CONFLICTS}")
        for conflict in labels.by_severity(report.conflicts):
            blocks += _conflict(conflict, prose, numbers)
    for section in report.sections:
        blocks += _section(section, prose)
    if report.findings:
        rows = [
            [_escape(clean_line(text)) for text in (f.entity, f.attribute, f.value)]
            + [labels.percent(f.confidence), _cites(f.sources, numbers)]
            for f in report.findings
        ]
        blocks += [f"## {labels.FINDINGS}", _table(labels.FINDING_COLUMNS, rows, right={3})]
    if report.skipped:
        skipped = [[_code(clean_line(path)), _escape(clean_line(reason))] for path, reason in report.skipped]
        blocks += [f"## {labels.SKIPPED}", _table(labels.SKIPPED_COLUMNS, skipped)]
    if report.facts:
        facts = [
            f"- {_block(_escape(clean_line(name)))}: {_escape(labels.fact(value))}"
            for name, value in report.facts.items()
        ]
        blocks += [f"## {labels.FACTS}", "\n".join(facts)]
    if report.sources:
        blocks += [f"## {labels.SOURCES}", *_sources(report.sources)]
    return "\n\n".join(blocks) + "\n"


def _head(report: Report) -> list[str]:
    blocks = [f"# {_escape(clean_line(report.title))}"]
    if report.question and report.question != report.title:
        blocks.append(_quote(report.question))
    if report.created_at:
        blocks.append(f"*{_escape(labels.written_date(report.created_at))}*")
    return blocks


def _conflict(conflict: ReportConflict, prose: Callable[[str], str], numbers: set[int]) -> list[str]:
    entity, attribute = _escape(clean_line(conflict.entity)), _escape(clean_line(conflict.attribute))
    blocks = [f"### {entity}: {attribute} ({labels.severity(conflict)})"]
    if conflict.explanation:
        blocks.append(_block(prose(conflict.explanation)))
    values = [
        f"- {_block(_escape(clean_line(value)))} {_cites(cited, numbers)}".rstrip() for value, cited in conflict.values
    ]
    if values:
        blocks.append("\n".join(values))
    if conflict.resolution:
        blocks.append(f"**{labels.RESOLUTION}:** {prose(conflict.resolution)}")
    return blocks


def _section(section: Section, prose: Callable[[str], str]) -> list[str]:
    blocks = [f"{'#' * min(6, max(2, section.level))} {prose(section.heading)}"]
    blocks += [_block(prose(text)) for text in section.paragraphs]
    if section.bullets:
        blocks.append("\n".join(f"- {_block(prose(text))}" for text in section.bullets))
    for table in section.tables:
        if table.caption:
            blocks.append(_block(prose(table.caption)))
        columns, rows = labels.rectangular(table)
        if columns:
            blocks.append(_table([prose(text) for text in columns], [[prose(text) for text in row] for row in rows]))
    return blocks


def _sources(sources: list[Source]) -> list[str]:
    blocks = []
    ordered = sorted(sources, key=lambda source: source.number)
    for source in ordered:
        line = f'<a id="source-{source.number}"></a>**{source.number}.** {_code(labels.place(source))}'
        if source.title:
            line += f" {_escape(clean_line(source.title))}"
        blocks.append(line)
        if source.quote.strip():
            blocks.append(_quote(source.quote))
    # One definition for each number makes every `[[3]]` in the text a link, and keeps the text readable as it is.
    blocks.append("\n".join(f"[{source.number}]: #source-{source.number}" for source in ordered))
    return blocks


def _prose(pieces: Iterable[Piece]) -> str:
    parts, addresses = [], [""]
    for piece in pieces:
        if piece.kind == "text":
            parts.append(_escape(piece.text))
        elif piece.kind == "code":
            parts.append(_code(piece.text))
        elif piece.kind == "cite":
            parts.append(f"[[{piece.number}]]")
        elif piece.kind == "link":
            if parts and parts[-1].endswith("!"):  # else the link would become an image
                parts[-1] = parts[-1][:-1] + "\\!"
            addresses.append(piece.text)
            parts.append("[")
        elif piece.kind == "end" and piece.text == "link":
            parts.append(f"](<{addresses.pop()}>)")
        else:
            parts.append(_MARKS[piece.text or piece.kind])
    return "".join(parts)


def _table(columns: Sequence[str], rows: list[list[str]], right: Iterable[int] = ()) -> str:
    marks = ["---:" if index in set(right) else "---" for index in range(len(columns))]
    # A bar splits a cell even inside code, so it is escaped last.
    lines = [columns, *rows]
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([written[0], "| " + " | ".join(marks) + " |", *written[1:]])


def _quote(text: str) -> str:
    lines = [_block(_escape_around_code(line.strip())) for line in clean(text).strip().split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _block(text: str) -> str:
    """Keep the start of a line from being read as a heading, list, quote or rule."""
    found = _BLOCK_START.match(text)
    if found is None:
        return text
    at = found.start(1) if not found[1][0].isdigit() else found.end(1)
    return f"{text[:at]}\\{text[at:]}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _escape_around_code(text: str) -> str:
    """Escape `text` but for what stands between two backticks, which is code wherever a document is quoted from."""
    parts = _CODE.split(text)
    if any("`" in part for part in parts[::2]):
        return _escape(text)
    return "".join(_code(part[1:-1]) if at % 2 else _escape(part) for at, part in enumerate(parts))


def _code(text: str) -> str:
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or (text[:1] == text[-1:] == " " and text.strip()) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}" if text else ""


def _cites(cited: list[int], numbers: set[int]) -> str:
    return "".join(f"[[{number}]]" if number in numbers else f"\\[{number}\\]" for number in cited)
